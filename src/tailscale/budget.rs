use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::model::Refused;

/// How many requests may be sent: a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    interval: Duration,
    burst: NonZeroU32,
}

impl Budget {
    /// `per_second` requests in the long run (0.01 to 1000), up to `burst` (at least 1) at once
    /// after a quiet time.
    pub fn new(per_second: f64, burst: u32) -> Result<Self, Refused> {
        if !(0.01..=1000.0).contains(&per_second) {
            return Err(Refused(format!(
                "{per_second} requests per second is not a valid budget: write a number from 0.01 to 1000"
            )));
        }
        let burst = NonZeroU32::new(burst)
            .ok_or_else(|| Refused("a burst of 0 allows no request: write 1 or more".into()))?;
        Ok(Self {
            interval: Duration::from_secs_f64(1.0 / per_second),
            burst,
        })
    }

    /// How long the bucket takes to fill up from one token, without those that it keeps in reserve.
    fn last_tokens(&self, haste: Haste) -> Duration {
        let kept = match haste {
            Haste::Quick => 0,
            // Rounded down: a burst below four keeps nothing, so that a routine request can always be
            // sent.
            Haste::Routine => self.burst.get() / KEPT,
        };
        self.interval.saturating_mul(self.burst.get() - 1 - kept)
    }
}

impl Default for Budget {
    /// 5 requests per second, bursts of 20. Tailscale publishes no limits; this is far below all known
    /// guesses.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(200),
            burst: const { NonZeroU32::new(20).expect("20 is not zero") },
        }
    }
}

/// Routine requests leave this fraction (1/4) of the burst to quick ones.
const KEPT: u32 = 4;

/// Whether a request may take the last tokens of the bucket.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// It leaves a quarter of the burst for others.
    #[default]
    Routine,
    /// It takes any token.
    Quick,
}

/// The bucket of one tailnet. It outlives the clients that take from it, so that a new client respects the
/// pause that the server requested from a previous one. First come, first served.
#[derive(Debug)]
pub struct Bucket {
    level: Mutex<Level>,
    /// Locked while waiting: tokio's mutex is fair.
    queue: tokio::sync::Mutex<()>,
    /// The same for routine requests, so that no quick one waits for them.
    routine: tokio::sync::Mutex<()>,
    /// How long requests have waited for a token in total, in microseconds.
    waited: AtomicU64,
}

/// A request that waits for a token. The time counts too if it gives up.
struct Waiting<'b> {
    bucket: &'b Bucket,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waited = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.bucket.waited.fetch_add(waited, Relaxed);
    }
}

#[derive(Debug)]
struct Level {
    budget: Budget,
    /// When the bucket will be full, if nothing is taken. This one instant determines how many tokens it has
    /// at any time. Each taken token moves it by one interval.
    full_at: Instant,
    /// No request is sent before: a server asked for that.
    paused_until: Instant,
    /// Counts the pauses: a token that was taken before a pause is not given back after it.
    pauses: u64,
}

impl Level {
    fn end_pauses_without_a_burst(&mut self) {
        if self.paused_until > Instant::now() {
            // As if one token were left when the pause ends, so that the next one comes an interval
            // later.
            let full_at = self.paused_until + self.budget.last_tokens(Haste::Quick);
            self.full_at = self.full_at.max(full_at);
        }
    }
}

/// A token taken from a bucket: one request may be sent. An unused token goes back when it is dropped.
#[derive(Debug)]
pub struct Token {
    bucket: Arc<Bucket>,
    interval: Duration,
    pauses: u64,
    used: bool,
}

impl Token {
    /// The request is sent.
    pub(super) fn spend(mut self) {
        self.used = true;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.used {
            self.bucket.give_back(self.interval, self.pauses);
        }
    }
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        let now = Instant::now();
        Self {
            level: Mutex::new(Level {
                budget,
                full_at: now,
                paused_until: now,
                pauses: 0,
            }),
            queue: tokio::sync::Mutex::new(()),
            routine: tokio::sync::Mutex::new(()),
            waited: AtomicU64::new(0),
        }
    }

    /// Changes how fast it fills; taken tokens and the current pause stay.
    pub fn set_budget(&self, budget: Budget) {
        let mut level = self.lock();
        level.budget = budget;
        level.end_pauses_without_a_burst();
    }

    /// How many requests may be sent at once: between 0 and the burst.
    #[must_use]
    pub fn tokens(&self) -> f64 {
        let level = self.lock();
        let lacking = level.full_at.saturating_duration_since(Instant::now());
        let burst = f64::from(level.budget.burst.get());
        (burst - lacking.div_duration_f64(level.budget.interval)).max(0.0)
    }

    /// How long requests have waited for a token, in total.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.waited.load(Relaxed))
    }

    /// Whether the server has asked for a pause that is not over.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.lock().paused_until > Instant::now()
    }

    /// Takes a token, waiting until there is one.
    pub(super) async fn take(self: &Arc<Self>, haste: Haste) -> Token {
        let _waiting = Waiting {
            bucket: self,
            since: Instant::now(),
        };
        let queue = match haste {
            Haste::Quick => &self.queue,
            Haste::Routine => &self.routine,
        };
        let _turn = queue.lock().await;
        // Loops more than once only if a pause begins while waiting.
        loop {
            match self.try_take(haste) {
                Ok(token) => return token,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    fn try_take(self: &Arc<Self>, haste: Haste) -> Result<Token, Duration> {
        let mut level = self.lock();
        let now = Instant::now();
        let empty_until = level
            .full_at
            // An `Instant` cannot always go back that far. The bucket then counts as not empty.
            .checked_sub(level.budget.last_tokens(haste))
            .unwrap_or(now);
        let wait = empty_until
            .max(level.paused_until)
            .saturating_duration_since(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        let interval = level.budget.interval;
        // Time beyond a full bucket is lost: otherwise a quiet hour would allow a burst of thousands.
        level.full_at = level.full_at.max(now) + interval;
        Ok(Token {
            bucket: Arc::clone(self),
            interval,
            pauses: level.pauses,
            used: false,
        })
    }

    fn give_back(&self, interval: Duration, pauses: u64) {
        let mut level = self.lock();
        // A token from before a pause would let a request out that the server asked to hold back.
        if level.pauses == pauses
            && let Some(full_at) = level.full_at.checked_sub(interval)
        {
            level.full_at = full_at;
        }
    }

    /// Sends no request before `pause` has passed, and then one at a time: a server that asked for a pause
    /// must not get a burst.
    pub(super) fn pause(&self, pause: Duration) {
        let mut level = self.lock();
        // Answers to requests in flight arrive in any order, so a shorter pause must not end a longer
        // one.
        level.paused_until = level.paused_until.max(Instant::now() + pause);
        level.pauses += 1;
        level.end_pauses_without_a_burst();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Level> {
        // No field can be left half written.
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// When each of `count` simultaneous requests gets its token, in milliseconds.
    async fn token_times(bucket: &Arc<Bucket>, count: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut waiting = Vec::new();
        for _ in 0..count {
            let bucket = Arc::clone(bucket);
            waiting.push(tokio::spawn(async move {
                bucket.take(Haste::Quick).await.spend();
                start.elapsed().as_millis()
            }));
        }
        let mut times = Vec::new();
        for request in waiting {
            times.push(request.await.unwrap());
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn burst_is_immediate_and_the_rest_follows_at_the_rate_in_request_order() {
        let bucket = Arc::new(Bucket::new(Budget::new(5.0, 3).unwrap()));
        assert_eq!(token_times(&bucket, 6).await, [0, 0, 0, 200, 400, 600]);
    }

    #[tokio::test(start_paused = true)]
    async fn routine_requests_leave_part_of_the_burst_and_delay_no_urgent_one() {
        let bucket = Arc::new(Bucket::new(Budget::new(5.0, 8).unwrap()));
        let start = Instant::now();
        let routine = |count: usize| {
            let bucket = Arc::clone(&bucket);
            async move {
                for _ in 0..count {
                    bucket.take(Haste::Routine).await.spend();
                }
                start.elapsed().as_millis()
            }
        };
        assert_eq!(routine(6).await, 0);
        let waiting = tokio::spawn(routine(2));
        tokio::task::yield_now().await;
        assert_eq!(token_times(&bucket, 3).await, [0, 0, 200]);
        // The borrowed tokens are refilled first.
        assert_eq!(waiting.await.unwrap(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_refills_the_bucket_up_to_the_burst() {
        let bucket = Arc::new(Bucket::new(Budget::new(1.0, 2).unwrap()));
        token_times(&bucket, 4).await;
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(token_times(&bucket, 4).await, [0, 0, 1000, 2000]);
    }

    #[tokio::test(start_paused = true)]
    async fn pause_delays_waiting_requests_too_and_ends_without_a_burst() {
        let bucket = Arc::new(Bucket::new(Budget::new(5.0, 2).unwrap()));
        token_times(&bucket, 2).await;
        let waiting = tokio::spawn({
            let bucket = Arc::clone(&bucket);
            async move { token_times(&bucket, 3).await }
        });
        tokio::task::yield_now().await;
        bucket.pause(Duration::from_secs(10));
        assert_eq!(waiting.await.unwrap(), [10_000, 10_200, 10_400]);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_caller_takes_no_token_and_blocks_no_other() {
        let bucket = Arc::new(Bucket::new(Budget::new(1.0, 1).unwrap()));
        bucket.take(Haste::Quick).await.spend();
        let impatient =
            tokio::time::timeout(Duration::from_millis(100), bucket.take(Haste::Quick)).await;
        assert!(impatient.is_err());
        assert_eq!(token_times(&bucket, 1).await, [900]);
    }

    #[tokio::test(start_paused = true)]
    async fn unused_token_is_returned_but_not_during_a_pause() {
        let bucket = Arc::new(Bucket::new(Budget::new(1.0, 1).unwrap()));
        drop(bucket.take(Haste::Quick).await);
        assert_eq!(token_times(&bucket, 1).await, [0]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let token = bucket.take(Haste::Quick).await;
        bucket.pause(Duration::from_secs(10));
        drop(token);
        assert_eq!(token_times(&bucket, 1).await, [10_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_waits_and_pauses_can_be_observed() {
        let bucket = Arc::new(Bucket::new(Budget::new(2.0, 4).unwrap()));
        let near = |value: f64, expected: f64| (value - expected).abs() < 0.01;
        assert!(near(bucket.tokens(), 4.0) && !bucket.is_paused());
        token_times(&bucket, 3).await;
        assert!(near(bucket.tokens(), 1.0), "{}", bucket.tokens());
        assert!(near(bucket.waited().as_secs_f64(), 0.0));
        // One has a token, the next ones wait half a second and a second.
        token_times(&bucket, 3).await;
        assert!(
            near(bucket.waited().as_secs_f64(), 1.5),
            "{:?}",
            bucket.waited()
        );
        assert!(near(bucket.tokens(), 0.0), "{}", bucket.tokens());
        bucket.pause(Duration::from_secs(10));
        assert!(bucket.is_paused());
        let impatient = bucket.take(Haste::Quick);
        let _ = tokio::time::timeout(Duration::from_secs(2), impatient).await;
        assert!(
            near(bucket.waited().as_secs_f64(), 3.5),
            "{:?}",
            bucket.waited()
        );
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(!bucket.is_paused());
    }

    #[tokio::test(start_paused = true)]
    async fn another_budget_does_not_end_a_pause() {
        let bucket = Arc::new(Bucket::new(Budget::new(1.0, 1).unwrap()));
        bucket.pause(Duration::from_secs(200));
        bucket.set_budget(Budget::new(0.1, 100).unwrap());
        assert_eq!(token_times(&bucket, 1).await, [200_000]);
    }

    #[test]
    fn budget_that_permits_no_request_is_refused() {
        for (per_second, burst) in [
            (0.0, 1),
            (-1.0, 1),
            (f64::NAN, 1),
            (f64::INFINITY, 1),
            (1.0, 0),
        ] {
            assert!(
                Budget::new(per_second, burst).is_err(),
                "{per_second} {burst}"
            );
        }
    }
}
