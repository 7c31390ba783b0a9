use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
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
                "{per_second} requests per second is no budget: write a number from 0.01 to 1000"
            )));
        }
        let burst = NonZeroU32::new(burst).ok_or_else(|| {
            Refused("a burst of 0 lets no request through: write 1 or more".into())
        })?;
        Ok(Self {
            interval: Duration::from_secs_f64(1.0 / per_second),
            burst,
        })
    }

    /// How long a bucket that has one token left needs to be full.
    fn last_tokens(&self) -> Duration {
        self.interval.saturating_mul(self.burst.get() - 1)
    }
}

impl Default for Budget {
    /// 5 requests per second, bursts of 20. Tailscale publishes no limits; this is far below all
    /// that have been guessed.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(200),
            burst: const { NonZeroU32::new(20).expect("20 is not zero") },
        }
    }
}

/// The bucket of one client. Who asks first is served first.
#[derive(Debug)]
pub(super) struct Bucket {
    budget: Budget,
    /// When the bucket will be full, if nothing is taken: this one instant says how many tokens
    /// it holds at any other. Each token taken moves it by one interval.
    full_at: Mutex<Instant>,
    /// Held while waiting: tokio's mutex is fair.
    queue: tokio::sync::Mutex<()>,
}

impl Bucket {
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            full_at: Mutex::new(Instant::now()),
            queue: tokio::sync::Mutex::new(()),
        }
    }

    /// Takes a token, waiting until there is one.
    pub async fn take(&self) {
        let _turn = self.queue.lock().await;
        // More than once around only if a pause begins while waiting.
        while let Err(wait) = self.try_take() {
            tokio::time::sleep(wait).await;
        }
    }

    fn try_take(&self) -> Result<(), Duration> {
        let mut full_at = self.lock();
        let now = Instant::now();
        let wait = full_at
            .saturating_duration_since(now)
            .saturating_sub(self.budget.last_tokens());
        if wait.is_zero() {
            *full_at = (*full_at).max(now) + self.budget.interval;
            Ok(())
        } else {
            Err(wait)
        }
    }

    /// Lets nobody through before `pause` has passed, and then one at a time: a server that asked
    /// for a pause is not greeted with a burst.
    pub fn pause(&self, pause: Duration) {
        let mut full_at = self.lock();
        *full_at = (*full_at).max(Instant::now() + pause + self.budget.last_tokens());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        // An instant cannot be left half written.
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// When each of `count` requests that are made at once is let through, in milliseconds.
    async fn let_through(bucket: &Arc<Bucket>, count: usize) -> Vec<u128> {
        let start = Instant::now();
        let mut waiting = Vec::new();
        for _ in 0..count {
            let bucket = Arc::clone(bucket);
            waiting.push(tokio::spawn(async move {
                bucket.take().await;
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
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate_in_the_order_of_asking() {
        let bucket = Arc::new(Bucket::new(Budget::new(5.0, 3).unwrap()));
        assert_eq!(let_through(&bucket, 6).await, [0, 0, 0, 200, 400, 600]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_time_fills_the_bucket_but_not_beyond_the_burst() {
        let bucket = Arc::new(Bucket::new(Budget::new(1.0, 2).unwrap()));
        let_through(&bucket, 4).await;
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(let_through(&bucket, 4).await, [0, 0, 1000, 2000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_stalls_everybody_even_who_waits_already_and_ends_without_a_burst() {
        let bucket = Arc::new(Bucket::new(Budget::new(5.0, 2).unwrap()));
        let_through(&bucket, 2).await;
        let waiting = tokio::spawn({
            let bucket = Arc::clone(&bucket);
            async move { let_through(&bucket, 3).await }
        });
        tokio::task::yield_now().await;
        bucket.pause(Duration::from_secs(10));
        assert_eq!(waiting.await.unwrap(), [10_000, 10_200, 10_400]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_takes_no_token_and_blocks_nobody() {
        let bucket = Arc::new(Bucket::new(Budget::new(1.0, 1).unwrap()));
        bucket.take().await;
        let impatient = tokio::time::timeout(Duration::from_millis(100), bucket.take()).await;
        assert!(impatient.is_err());
        assert_eq!(let_through(&bucket, 1).await, [900]);
    }

    #[test]
    fn a_budget_that_lets_nothing_through_is_refused() {
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
