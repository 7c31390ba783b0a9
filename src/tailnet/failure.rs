use std::time::Duration;

use crate::model::Reason;

/// Whether repeating a request can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The answer stays the same until someone edits something.
    Never,
    /// It may help later.
    Later,
    /// It may help after this time.
    After(Duration),
}

/// A failed request, as a status reports it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The kind of failure, out of a bounded set.
    pub reason: Reason,
    /// The request, the answer, the API's request id, and what to do.
    pub message: String,
    /// Whether repeating can help.
    pub retry: Retry,
    /// Whether the request may have taken effect: its answer was lost.
    pub unknown_outcome: bool,
}

impl Failure {
    /// The API sent another kind of answer than the request asks for.
    pub(super) fn unexpected() -> Self {
        Self {
            reason: Reason::ApiError,
            message: "The API answered a different request: found another kind of answer."
                .to_owned(),
            retry: Retry::Later,
            unknown_outcome: false,
        }
    }
}

/// A failure and when to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backoff {
    pub failure: Failure,
    pub attempts: u32,
    pub retry_at: Duration,
}

const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_mins(5);
/// The number of tries if the engine must come to an end.
const TRIES: u32 = 3;
/// Later than the end of any engine that finishes by itself.
const NEVER: Duration = Duration::from_hours(24 * 365);

impl Backoff {
    /// A failure that only an edit fixes is tried again too, but rarely: the edit may be made in the
    /// tailnet's policy file, where the controller does not notice it.
    pub fn new(
        failure: Failure,
        before: Option<&Self>,
        now: Duration,
        rare: Duration,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let attempts = before.map_or(1, |backoff| backoff.attempts.saturating_add(1));
        let delay = match failure.retry {
            Retry::Never => jittered(rare, rng),
            Retry::Later => backoff(attempts, rng),
            // The longer one: the server may ask for less than repeated failures deserve.
            Retry::After(pause) => pause.max(backoff(attempts, rng)),
        };
        Self {
            failure,
            attempts,
            retry_at: now + delay,
        }
    }

    /// For an engine that must come to an end: a failure that only an edit fixes, or that has occurred a few
    /// times, is not tried again.
    pub fn or_give_up(mut self) -> Self {
        if self.failure.retry == Retry::Never || self.attempts >= TRIES {
            self.retry_at = NEVER;
        }
        self
    }

    /// Whether it is the first or second failure of a transient kind: it is not reported yet.
    pub fn is_quiet(&self) -> bool {
        let passes = matches!(
            self.failure.reason,
            Reason::ApiUnreachable | Reason::ApiError | Reason::RateLimited
        );
        passes && self.failure.retry != Retry::Never && self.attempts < TRIES && !self.is_given_up()
    }

    /// Whether it is not tried again.
    pub fn is_given_up(&self) -> bool {
        self.retry_at >= NEVER
    }

    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.retry_at
    }
}

/// 1 s, 2 s, 4 s … 300 s, each 20 % more or less, so that many requests do not return at once.
pub(crate) fn backoff(attempts: u32, rng: &mut fastrand::Rng) -> Duration {
    backoff_up_to(MAX_DELAY, attempts, rng)
}

/// 1 s, 2 s, 4 s … up to `longest`, each 20 % more or less.
pub(super) fn backoff_up_to(longest: Duration, attempts: u32, rng: &mut fastrand::Rng) -> Duration {
    // At most 16 doublings, as the shift would overflow long after the maximum is reached.
    let doubled = FIRST_DELAY.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    jittered(doubled.min(longest), rng)
}

pub(crate) fn jittered(delay: Duration, rng: &mut fastrand::Rng) -> Duration {
    delay.mul_f64(0.8 + 0.4 * rng.f64())
}

#[cfg(test)]
impl Backoff {
    /// The backoff of a first failure, until this time.
    pub fn example(retry_at: Duration) -> Self {
        Self {
            failure: Failure {
                reason: Reason::ApiError,
                message: String::new(),
                retry: Retry::Later,
                unknown_outcome: false,
            },
            attempts: 1,
            retry_at,
        }
    }
}
