use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::model::NodeId;

/// How long after its time the expiry of a key may still begin.
pub(super) const GRACE: SignedDuration = SignedDuration::from_hours(1);

/// The most devices whose keys a policy can expire at one time: its status records the id and the key
/// expiry of each.
pub const MAX_EXPIRIES: usize = 5_000;

/// How long a deletion counts: a day, and a little longer, because the request follows its record.
const COUNTS: SignedDuration = SignedDuration::from_mins(24 * 60 + 10);
/// A request that is sent later than this after its record needs a new record.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// What the status of a policy records of its one-shot actions, before the request of each is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ActionRecords {
    /// By the declared time. A time stays while the policy declares it, and for as long as an action
    /// could still begin for it.
    pub expiries: BTreeMap<Timestamp, ExpiryRecord>,
    /// The devices that the policy deleted within the last day, or is deleting.
    pub deletions: BTreeMap<NodeId, DeletionRecord>,
    /// The latest time whose record was dropped: no action begins for it or an earlier time, even if the
    /// clock is set back.
    pub dropped_until: Option<Timestamp>,
}

/// The devices whose keys are expired for one time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ExpiryRecord {
    /// The devices for which it has begun, with the key expiry that they had then. While a device still
    /// has it, its key has not been expired.
    pub started: BTreeMap<NodeId, Option<Timestamp>>,
    /// The devices for which it is done.
    pub done: BTreeSet<NodeId>,
    /// It was reported that the time is missed for some devices.
    pub missed_reported: bool,
}

/// The deletion of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeletionRecord {
    /// When it began.
    pub at: Timestamp,
    /// The name that the device had.
    pub name: String,
    /// Whether the API has accepted it.
    pub done: bool,
}

impl DeletionRecord {
    /// Whether it counts for the day.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < COUNTS
    }
}

impl ExpiryRecord {
    /// Whether this has every device that `needed` has.
    fn cover(&self, needed: &Self) -> bool {
        // A begun expiry is enough for a done one: after a crash, the key's new expiry shows that it is done.
        let is_known = |id: &NodeId| self.started.contains_key(id) || self.done.contains(id);
        needed.started.keys().all(is_known) && needed.done.iter().all(is_known)
    }
}

impl ActionRecords {
    /// Whether no action is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expiries.is_empty() && self.deletions.is_empty() && self.dropped_until.is_none()
    }

    /// Whether this records everything that `needed` records, so that a crash after a request loses
    /// nothing.
    #[must_use]
    pub fn cover(&self, needed: &Self) -> bool {
        let nothing = ExpiryRecord::default();
        let mut expiries = needed.expiries.iter();
        let mut deletions = needed.deletions.iter();
        expiries.all(|(at, needed)| self.expiries.get(at).unwrap_or(&nothing).cover(needed))
            && deletions.all(|(id, needed)| {
                // An earlier record of the same device would cease to count too soon.
                let kept = self.deletions.get(id);
                kept.is_some_and(|kept| kept.at >= needed.at)
            })
    }

    /// Merges another record. A done action stays done, and a begun one stays begun.
    pub fn merge(&mut self, other: &Self) {
        for (at, other) in &other.expiries {
            let record = self.expiries.entry(*at).or_default();
            record.done.extend(other.done.iter().cloned());
            for (id, before) in &other.started {
                record.started.entry(id.clone()).or_insert(*before);
            }
            // Either record may be the older one: an action that one of them knows as done is done.
            let done = &record.done;
            record.started.retain(|id, _| !done.contains(id));
            record.missed_reported |= other.missed_reported;
        }
        self.dropped_until = self.dropped_until.max(other.dropped_until);
        for (id, other) in &other.deletions {
            let known = self.deletions.get(id);
            if known.is_none_or(|known| known.at < other.at) {
                self.deletions.insert(id.clone(), other.clone());
            }
        }
    }

    /// Whether no further device can be recorded for a time.
    #[must_use]
    pub fn is_full(&self, at: Timestamp, id: &NodeId) -> bool {
        self.expiries.get(&at).is_some_and(|record| {
            // A begun expiry has its place in the record.
            !record.started.contains_key(id)
                && record.started.len() + record.done.len() >= MAX_EXPIRIES
        })
    }

    /// Begins to expire a key. Returns whether that is new.
    pub fn begin_expiry(&mut self, at: Timestamp, id: &NodeId, before: Option<Timestamp>) -> bool {
        let record = self.expiries.entry(at).or_default();
        if record.started.contains_key(id) || record.done.contains(id) {
            return false;
        }
        record.started.insert(id.clone(), before);
        true
    }

    /// Records that the key of a device is expired for a time.
    pub fn finish_expiry(&mut self, at: Timestamp, id: &NodeId) {
        let record = self.expiries.entry(at).or_default();
        record.started.remove(id);
        record.done.insert(id.clone());
    }

    /// The times that are no longer declared and more than an hour ago: their records can be dropped.
    #[must_use]
    pub fn over(&self, declared: Option<Timestamp>, now: Timestamp) -> Vec<Timestamp> {
        self.expiries
            .keys()
            .copied()
            .filter(|at| Some(*at) != declared && now.duration_since(*at) > GRACE)
            .collect()
    }

    /// Drops the record of a time. The clock may be wrong, so the latest dropped time is recorded: no
    /// action begins for it again.
    pub fn drop_expiry(&mut self, at: Timestamp) {
        self.expiries.remove(&at);
        self.dropped_until = self.dropped_until.max(Some(at));
    }

    /// Whether an action for a time may have been in a record that was dropped.
    #[must_use]
    pub fn is_dropped(&self, at: Timestamp) -> bool {
        self.dropped_until >= Some(at)
    }

    /// Whether a deletion must be recorded, or recorded again, before its request.
    #[must_use]
    pub fn needs_deletion(&self, id: &NodeId, now: Timestamp) -> bool {
        let record = self.deletions.get(id);
        record.is_none_or(|record| !record.done && now.duration_since(record.at) > FRESH)
    }

    /// Begins to delete a device. Drops the records that no longer count.
    pub fn begin_deletion(&mut self, id: &NodeId, name: String, at: Timestamp) {
        self.deletions.retain(|_, record| record.counts(at));
        let done = false;
        self.deletions
            .insert(id.clone(), DeletionRecord { at, name, done });
    }

    /// How many deletions count for the day, without those of these devices.
    #[must_use]
    pub fn deleted(&self, now: Timestamp, besides: &BTreeSet<NodeId>) -> usize {
        let counting = self.deletions.iter().filter(|(_, it)| it.counts(now));
        counting.filter(|(id, _)| !besides.contains(*id)).count()
    }

    /// When the next deletion ceases to count.
    #[must_use]
    pub fn next_lapse(&self, now: Timestamp) -> Option<Timestamp> {
        let counting = self.deletions.values().filter(|it| it.counts(now));
        let lapses = counting.filter_map(|record| record.at.checked_add(COUNTS).ok());
        lapses.min()
    }
}
