//! Whose edits may use the last tokens of the budget.
//!
//! Routine work, of whatever namespace, leaves a part of the burst in the bucket
//! ([`crate::tailscale::Haste`]). So an edit of a namespace that has been quiet need not wait for a token,
//! even while another one spends all that it can. What a namespace may take of that part is bounded, so that
//! nobody empties it by editing all the time.

use std::{collections::BTreeMap, time::Duration};

/// Requests for new or edited policies that a namespace may send at once.
const BURST: u32 = 6;
/// How long it takes until it may send another one.
const REFILL: Duration = Duration::from_secs(2);

/// What namespaces have used.
#[derive(Debug, Default)]
pub(super) struct Quick {
    /// When a namespace will have all its requests again.
    full_at: BTreeMap<String, Duration>,
}

impl Quick {
    /// Whether the next request of this namespace may use the last tokens.
    pub fn allows(&self, namespace: &str, now: Duration) -> bool {
        let full_at = self.full_at.get(namespace).copied().unwrap_or(now);
        full_at.max(now) + REFILL <= now + REFILL * BURST
    }

    /// A request for a new or edited policy of this namespace is sent.
    pub fn spend(&mut self, namespace: &str, now: Duration) {
        self.full_at.retain(|_, full_at| *full_at > now);
        let full_at = self.full_at.entry(namespace.to_owned()).or_insert(now);
        // Whoever sends more than that owes no more for it.
        *full_at = (*full_at + REFILL).min(now + REFILL * BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_edits_all_the_time_gets_few_and_who_was_quiet_gets_them_at_once() {
        let mut quick = Quick::default();
        let mut granted = 0;
        for tenth in 0..300 {
            let now = Duration::from_millis(100) * tenth;
            granted += usize::from(quick.allows("busy", now));
            quick.spend("busy", now);
            assert!(quick.allows("quiet", now));
        }
        assert!((6..=22).contains(&granted), "{granted} in 30 s");
        let later = Duration::from_mins(2);
        for _ in 0..BURST {
            assert!(quick.allows("busy", later));
            quick.spend("busy", later);
        }
        assert!(!quick.allows("busy", later));
    }
}
