use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::GRACE;
use crate::model::NodeId;

/// The most devices of which a policy can expire the keys at one time: their ids stand in its status,
/// with what tells whether it has been done.
pub const MAX_EXPIRIES: usize = 5_000;

/// A deletion counts for a day, and a little longer: the call comes a moment after the record.
const COUNTS: SignedDuration = SignedDuration::from_mins(24 * 60 + 10);
/// A call comes this soon after the record, or the record is made anew.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// What a policy keeps of its acts, in its status, before the first call of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionRecords {
    /// By the time that was wished for; kept as long as that is wished, and until no act could begin
    /// for it any more.
    pub expiries: BTreeMap<Timestamp, ExpiryRecord>,
    /// The devices that were deleted within the last day, or are being deleted.
    pub deletions: BTreeMap<NodeId, DeletionRecord>,
    /// The latest time of which the record was dropped: no action begins for it or an earlier one,
    /// whatever the clock says by now.
    pub dropped_until: Option<Timestamp>,
}

/// The devices whose keys are expired for one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiryRecord {
    /// Those for which it has begun, with the expiry that they had then. As long as they still have
    /// it, nothing has been done.
    pub started: BTreeMap<NodeId, Option<Timestamp>>,
    /// Those for which it is done.
    pub done: BTreeSet<NodeId>,
    /// Somebody has been told that it is missed for devices.
    pub missed_reported: bool,
}

/// The deletion of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletionRecord {
    /// When it began.
    pub at: Timestamp,
    /// What people called the device.
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

impl ActionRecords {
    /// Whether nothing has been done once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expiries.is_empty() && self.deletions.is_empty() && self.dropped_until.is_none()
    }

    /// Whether what `needed` says is kept here too, so that a crash after a call would lose nothing.
    #[must_use]
    pub fn cover(&self, needed: &Self) -> bool {
        let expiry = |(at, needed): (&Timestamp, &ExpiryRecord)| {
            let Some(kept) = self.expiries.get(at) else {
                return needed.started.is_empty() && needed.done.is_empty();
            };
            let known = |id: &NodeId| kept.started.contains_key(id) || kept.done.contains(id);
            needed.started.keys().all(known) && needed.done.iter().all(known)
        };
        let deletion = |(id, needed): (&NodeId, &DeletionRecord)| {
            let kept = self.deletions.get(id);
            kept.is_some_and(|kept| kept.at >= needed.at)
        };
        needed.expiries.iter().all(expiry) && needed.deletions.iter().all(deletion)
    }

    /// Takes in what another place has kept: what is done stays done, what has begun has begun.
    pub fn merge(&mut self, other: &Self) {
        for (at, other) in &other.expiries {
            let record = self.expiries.entry(*at).or_default();
            record.done.extend(other.done.iter().cloned());
            for (id, before) in &other.started {
                record.started.entry(id.clone()).or_insert(*before);
            }
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

    /// Whether no device more can be recorded for a time.
    #[must_use]
    pub fn is_full(&self, at: Timestamp, id: &NodeId) -> bool {
        self.expiries.get(&at).is_some_and(|record| {
            !record.started.contains_key(id)
                && record.started.len() + record.done.len() >= MAX_EXPIRIES
        })
    }

    /// Begins to expire a key. Says whether that is new.
    pub fn begin_expiry(&mut self, at: Timestamp, id: &NodeId, before: Option<Timestamp>) -> bool {
        let record = self.expiries.entry(at).or_default();
        if record.started.contains_key(id) || record.done.contains(id) {
            return false;
        }
        record.started.insert(id.clone(), before);
        true
    }

    /// The key of a device is expired for a time.
    pub fn finish_expiry(&mut self, at: Timestamp, id: &NodeId) {
        let record = self.expiries.entry(at).or_default();
        record.started.remove(id);
        record.done.insert(id.clone());
    }

    /// The times that are no longer declared and more than an hour past: their records can be dropped.
    #[must_use]
    pub fn over(&self, declared: Option<Timestamp>, now: Timestamp) -> Vec<Timestamp> {
        let is_over = |at: &Timestamp| Some(*at) != declared && now.duration_since(*at) > GRACE;
        self.expiries.keys().copied().filter(is_over).collect()
    }

    /// Drops the record of a time. The clock may be wrong, so the latest of these times is kept:
    /// nothing begins for it again.
    pub fn drop_expiry(&mut self, at: Timestamp) {
        self.expiries.remove(&at);
        self.dropped_until = self.dropped_until.max(Some(at));
    }

    /// Whether an action for a time may have been recorded before, in a record that is gone.
    #[must_use]
    pub fn is_dropped(&self, at: Timestamp) -> bool {
        self.dropped_until >= Some(at)
    }

    /// Whether the record of a deletion is to be made, or made anew, before a call.
    #[must_use]
    pub fn needs_deletion(&self, id: &NodeId, now: Timestamp) -> bool {
        let record = self.deletions.get(id);
        record.is_none_or(|record| !record.done && now.duration_since(record.at) > FRESH)
    }

    /// Begins to delete a device; what counts no more is forgotten.
    pub fn begin_deletion(&mut self, id: &NodeId, name: String, at: Timestamp) {
        self.deletions.retain(|_, record| record.counts(at));
        let done = false;
        self.deletions
            .insert(id.clone(), DeletionRecord { at, name, done });
    }

    /// How many deletions count for the day, besides those of these devices.
    #[must_use]
    pub fn deleted(&self, now: Timestamp, besides: &BTreeSet<NodeId>) -> usize {
        let counting = self.deletions.iter().filter(|(_, it)| it.counts(now));
        counting.filter(|(id, _)| !besides.contains(*id)).count()
    }

    /// When one of them counts no more.
    #[must_use]
    pub fn next_lapse(&self, now: Timestamp) -> Option<Timestamp> {
        let counting = self.deletions.values().filter(|it| it.counts(now));
        let lapses = counting.filter_map(|record| record.at.checked_add(COUNTS).ok());
        lapses.min()
    }
}
