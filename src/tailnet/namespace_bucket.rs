//! A limit for each namespace: a few times at once, then at a slow rate.

use std::{collections::BTreeMap, time::Duration};

/// A token bucket for each namespace. A quiet namespace has a full bucket and takes no memory.
#[derive(Debug)]
pub(super) struct NamespaceBuckets {
    burst: u32,
    refill: Duration,
    /// When the bucket of a namespace will be full again.
    full_at: BTreeMap<String, Duration>,
}

impl NamespaceBuckets {
    /// Buckets of `burst` tokens; each token that is taken comes back after `refill`.
    pub const fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            full_at: BTreeMap::new(),
        }
    }

    /// Whether a namespace has a token.
    pub fn has_token(&self, namespace: &str, now: Duration) -> bool {
        let full_at = self.full_at.get(namespace).copied().unwrap_or(now);
        full_at.max(now) + self.refill <= now + self.refill * self.burst
    }

    /// Takes a token. An empty bucket stays empty.
    pub fn take(&mut self, namespace: &str, now: Duration) {
        // A full bucket needs no entry, so that deleted namespaces leave none behind.
        self.full_at.retain(|_, full_at| *full_at > now);
        let full_at = self.full_at.entry(namespace.to_owned()).or_insert(now);
        *full_at = (*full_at + self.refill).min(now + self.refill * self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 6;

    #[test]
    fn a_busy_namespace_gets_few_tokens_and_a_quiet_one_gets_its_burst_at_once() {
        let mut buckets = NamespaceBuckets::new(BURST, Duration::from_secs(2));
        let mut granted = 0;
        for tenth in 0..300 {
            let now = Duration::from_millis(100) * tenth;
            granted += usize::from(buckets.has_token("busy", now));
            buckets.take("busy", now);
            assert!(buckets.has_token("quiet", now));
        }
        assert!((6..=22).contains(&granted), "{granted} in 30 s");
        let later = Duration::from_mins(2);
        for _ in 0..BURST {
            assert!(buckets.has_token("busy", later));
            buckets.take("busy", later);
        }
        assert!(!buckets.has_token("busy", later));
    }
}
