//! Limits requests for an immediate reconcile: a few are granted at once.
//!
//! Each costs a poll, and a read of attributes for each device of the policy. Anyone who can write a policy
//! can change the annotation as often as they like. So a policy's request is granted at once if its last one
//! was some time ago, and a namespace has a few polls a minute. Further requests wait for the next poll,
//! which answers them too.

use std::{collections::BTreeMap, time::Duration};

use super::namespace_bucket::NamespaceBuckets;
use crate::plan::PolicyKey;

/// The polls that a namespace may have at once.
const BURST: u32 = 3;
/// The time until it may have another one.
const REFILL: Duration = Duration::from_secs(20);
/// The pause between two requests of one policy, unless polls come more often.
const PAUSE: Duration = Duration::from_secs(10);

/// The recently granted requests.
#[derive(Debug)]
pub(super) struct Asks {
    /// When the next request of a policy may be granted.
    policies: BTreeMap<PolicyKey, Duration>,
    /// The polls of each namespace.
    lists: NamespaceBuckets,
}

impl Default for Asks {
    fn default() -> Self {
        Self {
            policies: BTreeMap::new(),
            lists: NamespaceBuckets::new(BURST, REFILL),
        }
    }
}

impl Asks {
    /// Whether a request of a policy is granted at once. `reads`: how long the reads that it causes take
    /// within their share of the budget; `is_due`: a poll comes at once anyway, so the request costs none.
    pub fn grant(
        &mut self,
        key: &PolicyKey,
        (poll_interval, reads, is_due): (Duration, Duration, bool),
        now: Duration,
    ) -> bool {
        self.policies.retain(|_, until| *until > now);
        if self.policies.contains_key(key) {
            return false;
        }
        // A poll that is due anyway costs nothing.
        if !is_due {
            if !self.lists.has_token(&key.namespace, now) {
                return false;
            }
            self.lists.take(&key.namespace, now);
        }
        // At least as long as its reads take, or they would fill the share of all others.
        let pause = PAUSE.min(poll_interval).max(reads);
        self.policies.insert(key.clone(), now + pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const POLL: Duration = Duration::from_mins(1);

    fn key(name: &str) -> PolicyKey {
        PolicyKey::new("lab", name)
    }

    #[test]
    fn policy_that_always_requests_reconciles_gets_a_few_a_minute() {
        let mut asks = Asks::default();
        let mut granted = Vec::new();
        for tenth in 0..1200 {
            let now = SECOND / 10 * tenth;
            if asks.grant(&key("a"), (POLL, Duration::ZERO, false), now) {
                granted.push(now.as_secs());
            }
        }
        assert_eq!(granted[..3], [0, 10, 20]);
        assert!((7..=9).contains(&granted.len()), "{granted:?}");
    }

    #[test]
    fn namespace_of_many_policies_gets_the_same_few_reconciles() {
        let mut asks = Asks::default();
        let names: Vec<String> = (0..600).map(|number| number.to_string()).collect();
        let at = (0_u32..).map(|number| SECOND / 10 * number);
        let granted = names
            .iter()
            .zip(at)
            .filter(|(name, now)| asks.grant(&key(name), (POLL, Duration::ZERO, false), *now))
            .count();
        assert!((3..=6).contains(&granted), "{granted}");
    }

    #[test]
    fn simultaneous_reconcile_requests_are_completed_by_one_list() {
        let mut asks = Asks::default();
        for number in 0..100 {
            let given = (POLL, Duration::ZERO, number > 0);
            assert!(asks.grant(&key(&number.to_string()), given, SECOND));
        }
    }

    #[test]
    fn a_policy_whose_request_causes_many_reads_waits_until_these_are_within_their_share() {
        let mut asks = Asks::default();
        let reads = Duration::from_mins(10);
        assert!(asks.grant(&key("a"), (POLL, reads, false), Duration::ZERO));
        assert!(!asks.grant(&key("a"), (POLL, reads, false), SECOND * 599));
        assert!(asks.grant(&key("a"), (POLL, reads, false), SECOND * 600));
    }
}
