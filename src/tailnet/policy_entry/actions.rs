//! The one-shot actions of a policy: their records before a request, and which device may be deleted next.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::PolicyEntry;
use crate::{
    model::{Device, NodeId},
    plan::{ActionRecords, Change, Inactivity, Missed, Mode, Stage, expiry, inactivity},
    tailnet::actions::{DeletionQueue, MissedExpiry},
};

impl PolicyEntry {
    fn action_records(&mut self) -> &mut ActionRecords {
        Arc::make_mut(&mut self.records.needed_mut().actions)
    }

    /// The state of its one-shot actions that only this process has.
    pub const fn deletion_queue(&self) -> &DeletionQueue {
        &self.actions
    }

    /// Notes how many deletions by deleted policies count for this one too.
    pub const fn inherit_deletions(&mut self, deletions: usize) {
        self.actions.inherit(deletions);
    }

    /// Takes the missed expiry that must be reported.
    pub const fn take_missed(&mut self) -> Option<MissedExpiry> {
        self.actions.take_missed()
    }

    /// Records that the key of a device is about to be expired. Returns whether there was room for it.
    pub fn begin_expiry(&mut self, at: Timestamp, id: &NodeId, before: Option<Timestamp>) -> bool {
        self.action_records().begin_expiry(at, id, before)
    }

    /// Records that the key of a device was expired, if that was begun.
    pub fn finish_expiry(&mut self, at: Timestamp, id: &NodeId) {
        if self.has_begun_expiry(at, id) {
            self.action_records().finish_expiry(at, id);
        }
    }

    /// Whether it is recorded that the key of a device is about to be expired.
    pub fn has_begun_expiry(&self, at: Timestamp, id: &NodeId) -> bool {
        let record = self.needed_record().actions.expiries.get(&at);
        record.is_some_and(|record| record.started.contains_key(id))
    }

    /// Records that a device is about to be deleted. Returns whether that was recorded before: a repeated
    /// attempt is one deletion.
    pub fn begin_deletion(&mut self, id: &NodeId, name: String, now: Timestamp) -> bool {
        let again = self.needed_record().actions.deletions.contains_key(id);
        self.action_records().begin_deletion(id, name, now);
        again
    }

    /// Records that a device was deleted.
    pub fn finish_deletion(&mut self, id: &NodeId) {
        if let Some(record) = self.action_records().deletions.get_mut(id) {
            record.done = true;
        }
    }

    pub fn has_actions(&self) -> bool {
        let desired = |entry: &Self| {
            let policy = entry.policy.as_deref();
            policy.is_ok_and(|policy| policy.desired.has_actions())
        };
        !self.needed_record().actions.is_empty() || !self.actions.is_empty() || desired(self)
    }

    /// An expiry that an earlier process has completed but not recorded: the key has expired since.
    pub fn found_done(&self, device: &Device, now: Timestamp) -> Option<Change> {
        let at = self.policy.as_deref().ok()?.desired.expire_key_at?;
        let record = self.needed_record().actions.expiries.get(&at)?;
        let before = *record.started.get(&device.node_id)?;
        let expired = device.expires.is_some_and(|expires| expires <= now);
        // A key whose time has come by itself keeps its expiry: only the request moves it.
        (expired && before != device.expires).then_some(Change::ExpireKey { at, before })
    }

    /// Records the outcome of an expiry. Returns whether the record has changed.
    pub fn update_expiry(&mut self, device: &Device, now: Timestamp) -> bool {
        let Ok(policy) = self.policy.as_deref() else {
            return false;
        };
        // An invalid policy sends nothing, and so records nothing (docs/decisions/0018).
        if self.is_invalid() {
            return false;
        }
        let (desired, mode) = (policy.desired.expire_key_at, policy.mode);
        let stage = expiry(policy, self.needed_record(), device, now);
        let over = self.needed_record().actions.over(desired, now);
        for at in &over {
            self.action_records().drop_expiry(*at);
        }
        // A policy in mode `Observe` does nothing and so records nothing.
        let (Some(at), false) = (desired, mode == Mode::Observe) else {
            return !over.is_empty();
        };
        let id = &device.node_id;
        let record = self.needed_record().actions.expiries.get(&at);
        match stage {
            Some(Stage::Done)
                if !record.is_some_and(|record| record.done.contains(id))
                    && !self.needed_record().actions.is_full(at, id) =>
            {
                self.action_records().finish_expiry(at, id);
                true
            }
            Some(Stage::Missed(why)) => {
                let reported = record.is_some_and(|record| record.missed_reported);
                self.note_missed(device, at, why, reported);
                !reported
            }
            _ => !over.is_empty(),
        }
    }

    /// Reports a missed expiry once for each time, with the devices that are found in the same step.
    fn note_missed(&mut self, device: &Device, at: Timestamp, why: Missed, reported: bool) {
        // The record says that it was reported, so that a restart emits no second Event.
        if !reported {
            self.action_records()
                .expiries
                .entry(at)
                .or_default()
                .missed_reported = true;
            self.actions.begin_missed(at, why);
        }
        self.actions.note_missed(at, device);
    }

    /// Lets a device be deleted, or makes it wait. Returns the device that may take its turn.
    pub fn update_turn(
        &mut self,
        device: &Device,
        protected: bool,
        now: Timestamp,
    ) -> Option<NodeId> {
        let id = &device.node_id;
        let policy = self.policy.as_deref().ok();
        let inactive = policy.is_some_and(|policy| {
            let inactivity = inactivity(policy, device, protected, now);
            matches!(inactivity, Some(Inactivity::Inactive(_)))
        });
        let record = self.needed_record().actions.deletions.get(id);
        let record = record.filter(|record| record.counts(now));
        if !inactive || record.is_some_and(|record| record.done) {
            return self.end_turn(id);
        }
        let delete_inactive = policy.and_then(|policy| policy.desired.delete_inactive);
        let most =
            delete_inactive.map_or(0, |delete_inactive| delete_inactive.max_per_day as usize);
        // Turns count before they are used, as several devices get theirs in one step.
        let others = self.actions.other_turns(id);
        let taken = self.needed_record().actions.deleted(now, &others)
            + others.len()
            + self.actions.inherited();
        // A deletion that has begun counts already, so repeating it needs no room.
        if record.is_some() || taken < most {
            self.actions.give_turn(id);
        } else {
            self.actions.make_wait(id);
        }
        None
    }

    /// Whether a deletion may begin or be repeated now: the deletions of the last day are below `maxPerDay`.
    pub fn may_begin_deletion(&self, id: &NodeId, now: Timestamp) -> bool {
        let records = &self.needed_record().actions;
        let begun = records
            .deletions
            .get(id)
            .is_some_and(|record| record.counts(now));
        let policy = self.policy.as_deref().ok();
        let delete_inactive = policy.and_then(|policy| policy.desired.delete_inactive);
        let most =
            delete_inactive.map_or(0, |delete_inactive| delete_inactive.max_per_day as usize);
        let deleted = records.deleted(now, &BTreeSet::new()) + self.actions.inherited();
        records.needs_deletion(id, now) && (begun || deleted < most)
    }

    /// Takes back the turn of a device that must not be deleted. Returns the device that may take it.
    pub fn end_turn(&mut self, id: &NodeId) -> Option<NodeId> {
        self.actions.end_turn(id)
    }
}
