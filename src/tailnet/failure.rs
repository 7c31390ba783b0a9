use std::time::Duration;

use crate::api::Reason;

/// Whether repeating a request can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// As long as nobody edits something, the answer will be the same.
    Never,
    /// Later it may.
    Later,
    /// Not before this time has passed.
    After(Duration),
}

/// A request that failed, as a status tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure, out of a bounded set.
    pub reason: Reason,
    /// What was asked, what came back, the API's request id, and what helps.
    pub message: String,
    /// Whether repeating can help.
    pub retry: Retry,
    /// Whether the request may have taken effect all the same (the answer was lost).
    pub unknown_outcome: bool,
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
/// So often is something tried that is not tried for ever.
const TRIES: u32 = 3;
/// Later than any engine lasts that ends by itself.
const NEVER: Duration = Duration::from_hours(24 * 365);

impl Backoff {
    /// What only an edit mends is asked again all the same, but rarely: the edit may be made
    /// elsewhere (the tailnet's policy file), where nothing tells us.
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
            Retry::After(pause) => pause.max(backoff(attempts, rng)),
        };
        Self {
            failure,
            attempts,
            retry_at: now + delay,
        }
    }

    /// For an engine that is to end: what only an edit mends, and what has failed a few times, is
    /// not tried again.
    pub fn or_the_last(mut self) -> Self {
        if self.failure.retry == Retry::Never || self.attempts >= TRIES {
            self.retry_at = NEVER;
        }
        self
    }

    /// Whether it is the first or second failure of a kind that tends to pass: nobody is told yet.
    pub fn is_quiet(&self) -> bool {
        let passes = matches!(
            self.failure.reason,
            Reason::ApiUnreachable | Reason::ApiError | Reason::RateLimited
        );
        passes && self.failure.retry != Retry::Never && self.attempts < TRIES && !self.is_the_last()
    }

    /// Whether it is not tried again.
    pub fn is_the_last(&self) -> bool {
        self.retry_at >= NEVER
    }

    pub fn is_over(&self, now: Duration) -> bool {
        now >= self.retry_at
    }
}

/// 1 s, 2 s, 4 s … 300 s, each 20 % up or down, so that many do not come back at once.
pub(crate) fn backoff(attempts: u32, rng: &mut fastrand::Rng) -> Duration {
    backoff_up_to(MAX_DELAY, attempts, rng)
}

/// 1 s, 2 s, 4 s … up to `longest`, each 20 % up or down.
pub(super) fn backoff_up_to(longest: Duration, attempts: u32, rng: &mut fastrand::Rng) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    jittered(doubled.min(longest), rng)
}

pub(crate) fn jittered(delay: Duration, rng: &mut fastrand::Rng) -> Duration {
    delay.mul_f64(0.8 + 0.4 * rng.f64())
}
