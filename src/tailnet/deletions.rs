//! The deletions of the last day, as the tailnet's status records them.
//!
//! A policy counts its own deletions in its status, by device. The count disappears with the object, so that
//! deleting and recreating a policy (under the same name or another) would reset it. Hence the tailnet counts
//! them too, before each request: they count for a policy that was created after them if the policy that made
//! them is gone, and for the same policy if its status was lost.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::plan::PolicyKey;

/// Deletions are counted in steps of so many seconds, so that the record stays small.
const STEP: i64 = 300;
/// How long a deletion counts, from the beginning of its step: as long as in the policy's own status.
const COUNTS: SignedDuration = SignedDuration::from_secs(24 * 3600 + 600 + STEP);
/// More entries than these are merged, so that the status stays small. Merged entries count longer, never
/// shorter.
const MAX_ENTRIES: usize = 40;

/// How many devices a policy has deleted, or was about to delete, within a step: an entry of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentDeletions {
    /// The policy that deleted them; `None` for merged entries.
    pub policy: Option<PolicyKey>,
    /// The uid of the policy.
    pub uid: String,
    /// The beginning of the step.
    pub since: Timestamp,
    /// How many.
    pub devices: usize,
}

/// The known deletions of the last day.
#[derive(Debug, Default)]
pub(super) struct DeletionLog {
    entries: Vec<RecentDeletions>,
    /// The revision of the tailnet's record that has all of them.
    revision: u64,
}

impl DeletionLog {
    /// Counts a deletion that is about to be sent.
    pub fn add(&mut self, policy: &PolicyKey, uid: &str, now: Timestamp, revision: u64) {
        let since = step(now);
        let mut entries = self.entries.iter_mut();
        match entries.find(|entry| {
            entry.policy.as_ref() == Some(policy) && entry.uid == uid && entry.since == since
        }) {
            Some(entry) => entry.devices += 1,
            None => self.entries.push(RecentDeletions {
                policy: Some(policy.clone()),
                uid: uid.to_owned(),
                since,
                devices: 1,
            }),
        }
        self.revision = revision;
        self.merge();
    }

    /// Takes over the record of a previous leader. The counts of this process may be newer than the watched
    /// record, so the larger one counts.
    pub fn take_over(&mut self, recorded: Vec<RecentDeletions>) {
        for entry in recorded {
            let same = |known: &&mut RecentDeletions| {
                known.policy == entry.policy && known.uid == entry.uid && known.since == entry.since
            };
            match self.entries.iter_mut().find(same) {
                // Both counted the same deletions, so that their sum would count them twice.
                Some(known) => known.devices = known.devices.max(entry.devices),
                None => self.entries.push(entry),
            }
        }
        self.merge();
    }

    /// Forgets entries that no longer count. Returns whether there were any.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| counts(entry, now));
        self.entries.len() < before
    }

    /// The revision of the tailnet's record that has all of them.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    pub fn recent(&self) -> Vec<RecentDeletions> {
        self.entries.clone()
    }

    /// How many deletions count for a policy besides those that its own status records.
    pub fn inherited(
        &self,
        policy: &PolicyKey,
        uid: &str,
        created: Timestamp,
        has_own: bool,
        exists: impl Fn(&PolicyKey, &str) -> bool,
    ) -> usize {
        let inherited = self.entries.iter().filter(|entry| match &entry.policy {
            None => true,
            // Its own status counts them by device; without one, the status was lost.
            Some(by) if by == policy && entry.uid == uid => !has_own,
            // A successor was created after the deletions, once the policy that made them is gone.
            Some(by) => created >= entry.since && !exists(by, &entry.uid),
        });
        inherited.map(|entry| entry.devices).sum()
    }

    /// Merges the steps of each policy first, then those of all policies.
    fn merge(&mut self) {
        if self.entries.len() <= MAX_ENTRIES {
            return;
        }
        let mut merged: BTreeMap<(Option<PolicyKey>, String), RecentDeletions> = BTreeMap::new();
        for entry in self.entries.drain(..) {
            let key = (entry.policy.clone(), entry.uid.clone());
            merged
                .entry(key)
                .and_modify(|known| known.absorb(&entry))
                .or_insert(entry);
        }
        self.entries = merged.into_values().collect();
        self.entries
            // The newest entries keep their policy, as they count the longest.
            .sort_by_key(|entry| std::cmp::Reverse(entry.since));
        for entry in self.entries.split_off(self.entries.len().min(MAX_ENTRIES)) {
            if let Some(last) = self.entries.last_mut() {
                last.absorb(&entry);
                // Without a policy it counts for every policy, which errs on the safe side.
                last.policy = None;
            }
        }
    }
}

impl RecentDeletions {
    fn absorb(&mut self, other: &Self) {
        self.devices += other.devices;
        // The later time counts, so a merged entry lives longer and never shorter.
        self.since = self.since.max(other.since);
    }
}

fn counts(entry: &RecentDeletions, now: Timestamp) -> bool {
    let since = now.duration_since(entry.since);
    // A clock that was wrong wrote an entry of the future; it must not count forever.
    since.abs() < COUNTS
}

fn step(time: Timestamp) -> Timestamp {
    let seconds = time.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(STEP)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn key(number: usize) -> PolicyKey {
        PolicyKey::new("network", format!("policy-{number}"))
    }

    fn log(entries: usize) -> DeletionLog {
        let mut log = DeletionLog::default();
        for number in 0..entries {
            let step = i32::try_from(number).unwrap() * 300;
            let at = START + SignedDuration::from_secs(step.into());
            log.add(&key(number % 7), "uid", at, 1);
        }
        log
    }

    fn total(log: &DeletionLog) -> usize {
        log.entries.iter().map(|entry| entry.devices).sum()
    }

    #[test]
    fn deletions_count_for_a_successor_for_a_day_and_not_for_others() {
        let mut log = DeletionLog::default();
        log.add(&key(0), "old", START, 1);
        log.add(&key(0), "old", START, 2);
        let later = START + SignedDuration::from_mins(10);
        let nobody = |_: &PolicyKey, _: &str| false;
        assert_eq!(log.inherited(&key(0), "new", later, false, nobody), 2);
        assert_eq!(log.inherited(&key(1), "other", later, false, nobody), 2);
        // It existed before, with its own count.
        let before = START - SignedDuration::from_hours(1);
        assert_eq!(log.inherited(&key(1), "other", before, false, nobody), 0);
        // The policy that made them is still there.
        assert_eq!(
            log.inherited(&key(1), "other", later, false, |_, _| true),
            0
        );
        // Its own status has them, or was lost.
        assert_eq!(log.inherited(&key(0), "old", before, true, nobody), 0);
        assert_eq!(log.inherited(&key(0), "old", before, false, nobody), 2);
        assert!(!log.expire(START + SignedDuration::from_hours(24)));
        assert!(log.expire(START + SignedDuration::from_hours(25)));
        assert_eq!(total(&log), 0);
    }

    #[test]
    fn many_entries_are_merged_and_none_is_lost() {
        assert_eq!(log(40).entries.len(), 40);
        let merged = log(41);
        assert_eq!((merged.entries.len(), total(&merged)), (7, 41));
        let mut many = DeletionLog::default();
        for number in 0..90 {
            many.add(&key(number), "uid", START, 1);
        }
        assert!(many.entries.len() <= MAX_ENTRIES);
        assert_eq!(total(&many), 90);
    }
}
