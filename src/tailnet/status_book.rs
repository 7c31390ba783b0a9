//! What was reported last, so that only changes are written.
//!
//! A status that someone else has edited is corrected after the next poll and not before, so that two writers
//! who disagree cost one write per poll.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use super::{PolicyReport, TailnetReport, shows_poll};
use crate::plan::PolicyKey;

/// The last reports of the tailnet and its policies.
#[derive(Debug, Default)]
pub(super) struct StatusBook {
    /// A hash of each: there is one for each policy, and a report takes most of a kilobyte.
    policies: BTreeMap<PolicyKey, u64>,
    tailnet: Option<TailnetReport>,
    /// Someone has edited the statuses of these policies.
    edited: BTreeSet<PolicyKey>,
    /// Someone has edited the status of the tailnet.
    tailnet_edited: bool,
    /// The number of the last list after which reports were made.
    list: u64,
}

impl StatusBook {
    /// Notes that someone edited the status of this policy, or of the tailnet (`None`).
    pub fn note_edit(&mut self, policy: Option<PolicyKey>) {
        match policy {
            Some(key) => {
                self.edited.insert(key);
            }
            None => self.tailnet_edited = true,
        }
    }

    /// Whether reports were made since this list arrived.
    pub const fn covers(&self, list: u64) -> bool {
        self.list == list
    }

    /// The edited statuses to correct: after each list, those that were edited since the one before.
    pub fn corrections(
        &mut self,
        list: u64,
        exists: impl Fn(&PolicyKey) -> bool,
    ) -> Vec<PolicyKey> {
        if self.covers(list) {
            return Vec::new();
        }
        // A deleted policy has no status left to correct.
        self.edited.retain(exists);
        if std::mem::take(&mut self.tailnet_edited) {
            self.tailnet = None;
        }
        self.edited.iter().cloned().collect()
    }

    /// Takes the report of a policy; returns it if it must be written.
    pub fn offer(&mut self, key: &PolicyKey, report: PolicyReport) -> Option<Box<PolicyReport>> {
        let is_edited = self.edited.remove(key);
        let hash = hash_of(&report);
        // An edited status is written again even if nothing has changed: the edit must go.
        if !is_edited && self.policies.get(key) == Some(&hash) {
            return None;
        }
        self.policies.insert(key.clone(), hash);
        Some(Box::new(report))
    }

    /// Takes the report of the tailnet; returns it if it must be written.
    pub fn offer_tailnet(&mut self, mut report: TailnetReport) -> Option<Box<TailnetReport>> {
        if let Some(before) = &self.tailnet
            && shows_poll(before.polled_at, report.polled_at)
        {
            let polled_at = std::mem::replace(&mut report.polled_at, before.polled_at);
            if *before == report {
                return None;
            }
            report.polled_at = polled_at;
        }
        self.tailnet = Some(report.clone());
        Some(Box::new(report))
    }

    /// All reports that are due were made since this list.
    pub fn note_list(&mut self, list: u64) {
        self.list = list;
    }

    /// The report of a policy must be written again, or the policy is gone.
    pub fn forget(&mut self, key: &PolicyKey) {
        self.policies.remove(key);
    }

    /// The report of the tailnet must be written again.
    pub fn forget_tailnet(&mut self) {
        self.tailnet = None;
    }

    /// The reports of all policies must be written again.
    pub fn forget_policies(&mut self) {
        self.policies.clear();
    }
}

fn hash_of(report: &PolicyReport) -> u64 {
    let mut hasher = DefaultHasher::new();
    report.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tailnet::{ActionReport, State};

    fn key() -> PolicyKey {
        PolicyKey::new("network", "routers")
    }

    fn report(state: State) -> PolicyReport {
        PolicyReport {
            uid: "1".to_owned(),
            generation: 1,
            record: std::sync::Arc::default(),
            owned: std::sync::Arc::default(),
            unrecorded: 0,
            changed_at: None,
            mode: crate::plan::Mode::default(),
            held: None,
            approval_errors: Vec::new(),
            clearing: None,
            actions: ActionReport::default(),
            within: None,
            state,
        }
    }

    #[test]
    fn a_report_is_written_only_when_it_changes() {
        let mut book = StatusBook::default();
        assert!(book.offer(&key(), report(State::Starting)).is_some());
        assert!(book.offer(&key(), report(State::Starting)).is_none());
        let mut other = report(State::Starting);
        other.generation = 2;
        assert!(book.offer(&key(), other.clone()).is_some());
        other.state = State::TooMany(1);
        assert!(book.offer(&key(), other.clone()).is_some());
        book.forget(&key());
        assert!(book.offer(&key(), other).is_some());
        assert!(book.offer_tailnet(TailnetReport::default()).is_some());
        assert!(book.offer_tailnet(TailnetReport::default()).is_none());
    }

    #[test]
    fn the_time_of_the_last_poll_alone_is_reported_every_ten_minutes() {
        let polled = |minutes: i64| TailnetReport {
            polled_at: jiff::Timestamp::from_second(minutes * 60).ok(),
            ..TailnetReport::default()
        };
        let mut book = StatusBook::default();
        assert!(book.offer_tailnet(TailnetReport::default()).is_some());
        let reported = (0..=60).filter(|minute| book.offer_tailnet(polled(*minute)).is_some());
        assert_eq!(reported.collect::<Vec<_>>(), [0, 10, 20, 30, 40, 50, 60]);
        // A clock that was set back must not stop it.
        assert!(book.offer_tailnet(polled(5)).is_some());
        // With another change, the newest time is reported.
        let other = TailnetReport {
            policies: 1,
            ..polled(6)
        };
        let reported = book.offer_tailnet(other.clone());
        assert_eq!(reported.as_deref(), Some(&other));
    }

    #[test]
    fn an_edited_status_is_corrected_once_and_only_after_the_next_list() {
        let mut book = StatusBook::default();
        book.offer(&key(), report(State::Starting));
        book.offer_tailnet(TailnetReport::default());
        book.note_list(1);
        book.note_edit(Some(key()));
        book.note_edit(None);
        assert!(book.covers(1) && book.corrections(1, |_| true).is_empty());
        assert!(book.offer_tailnet(TailnetReport::default()).is_none());
        assert_eq!(book.corrections(2, |_| true), [key()]);
        assert!(book.offer(&key(), report(State::Starting)).is_some());
        assert!(book.offer_tailnet(TailnetReport::default()).is_some());
        book.note_list(2);
        assert!(book.corrections(3, |_| true).is_empty());
    }

    #[test]
    fn the_edit_of_a_policy_that_is_gone_is_forgotten() {
        let mut book = StatusBook::default();
        book.note_edit(Some(key()));
        assert!(book.corrections(1, |_| false).is_empty());
        book.note_list(1);
        assert!(book.corrections(2, |_| true).is_empty());
    }
}
