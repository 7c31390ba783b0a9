use std::time::Duration;

use super::{
    Failure,
    failure::{backoff, jittered},
};
use crate::api::Reason;

/// When to ask for the list, and how the last requests for it went.
#[derive(Debug, Default)]
pub(super) struct Polling {
    next: Duration,
    /// The engine's count of writes when the list that is under way was asked for.
    pub in_flight: Option<u64>,
    /// Complete lists seen since the connection was made or the lead was taken.
    pub seen: u64,
    failures: u32,
    failure: Option<Failure>,
}

/// After so many lists in a row have failed, policies say so; one lost answer is no news.
const DOWN_AFTER: u32 = 3;

impl Polling {
    pub fn is_due(&self, now: Duration) -> bool {
        self.in_flight.is_none() && now >= self.next
    }

    /// When the next list is due; `None` while one is under way.
    pub fn wake_at(&self) -> Option<Duration> {
        self.in_flight.is_none().then_some(self.next)
    }

    /// Asks for a list at once.
    pub fn hasten(&mut self, now: Duration) {
        self.next = self.next.min(now);
    }

    /// Forgets what the former connection gave, and asks at once.
    pub fn restart(&mut self, now: Duration) {
        *self = Self {
            next: now,
            ..Self::default()
        };
    }

    pub fn succeeded(&mut self, now: Duration, interval: Duration, rng: &mut fastrand::Rng) {
        self.in_flight = None;
        self.seen += 1;
        self.failures = 0;
        self.failure = None;
        self.next = now + jittered(interval, rng);
    }

    pub fn failed(&mut self, now: Duration, failure: Failure, rng: &mut fastrand::Rng) {
        self.in_flight = None;
        self.failures = self.failures.saturating_add(1);
        let pause = match failure.retry {
            super::Retry::After(pause) => pause,
            _ => Duration::ZERO,
        };
        self.next = now + backoff(self.failures, rng).max(pause);
        self.failure = Some(failure);
    }

    /// The circuit: while lists fail, nothing is written.
    pub fn is_closed(&self) -> bool {
        self.seen > 0 && self.failures == 0
    }

    /// The failure that policies should tell, if they should.
    pub fn outage(&self) -> Option<&Failure> {
        let for_sure = |failure: &&Failure| {
            self.seen == 0
                || self.failures >= DOWN_AFTER
                || matches!(
                    failure.reason,
                    Reason::CredentialRejected | Reason::Forbidden
                )
        };
        self.failure.as_ref().filter(for_sure)
    }

    /// The last failure, told by the tailnet's own status from the first on.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}
