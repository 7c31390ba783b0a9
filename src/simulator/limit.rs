//! The switch `rateLimit`: a fixed number of requests in a time span, then 429.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use jiff::Timestamp;

use super::{
    response::{Answer, Refusal},
    switches::{RateLimit, RetryAfter},
};

/// The requests counted in the present span.
#[derive(Debug, Default)]
pub(super) struct Window {
    started: Option<Timestamp>,
    requests: u32,
}

impl Window {
    /// Counts a request. Refuses it over the limit.
    pub fn admit(&mut self, limit: RateLimit, now: Timestamp) -> Result<(), Box<Answer>> {
        let span = i64::from(limit.seconds);
        let age = |started: Timestamp| now.as_second() - started.as_second();
        let started = match self.started {
            Some(started) if age(started) < span => started,
            _ => {
                self.requests = 0;
                // A span begins with a request, not by the clock: a client cannot prepare for its
                // end.
                *self.started.insert(now)
            }
        };
        // Refused requests count too: a client that does not pause stays locked out.
        self.requests = self.requests.saturating_add(1);
        if self.requests <= limit.requests {
            return Ok(());
        }
        let wait = u64::try_from(span - age(started)).unwrap_or(0);
        let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded");
        let answer = Answer::from(refusal);
        Err(Box::new(match limit.retry_after {
            RetryAfter::Absent => answer,
            RetryAfter::Seconds => answer.header("retry-after", &wait.to_string()),
            RetryAfter::Date => {
                // By the machine's clock: the client compares it with its own.
                let again = SystemTime::now() + Duration::from_secs(wait);
                answer.header("retry-after", &httpdate::fmt_http_date(again))
            }
        }))
    }
}
