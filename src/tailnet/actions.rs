//! One-shot actions: their records before a request, which device may be deleted next, and the stage of each
//! action ([`crate::plan::expiry`] and [`crate::plan::inactivity`] decide).
//!
//! A device is deleted only right after a list that can be trusted: it is complete and recent, it is not the
//! first one, and no list has lost many devices at once for a while. A read of the device right before the
//! request must show the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::policy_entry::PolicyEntry;
use crate::{
    model::{Device, NodeId},
    plan::{ActionRecords, Change, Field, Inactivity, Missed, Mode, Stage, expiry, inactivity},
};

/// The number of devices that a message about a missed expiry names.
const NAMED: usize = 3;

/// A missed expiry: the keys were not expired at that time, and will not be. Names the devices that were
/// found at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissedExpiry {
    /// The desired time.
    pub at: Timestamp,
    /// Why.
    pub why: Missed,
    /// Some of the devices.
    pub devices: Vec<String>,
    /// How many there are.
    pub total: usize,
}

/// The progress of a policy's one-shot actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionReport {
    /// How many actions there are, by stage.
    pub totals: BTreeMap<Stage, usize>,
    /// Some of them; those that need attention most come first.
    pub details: Vec<ActionDetail>,
    /// How far the local clock is ahead of the API's, if that is too far for any action.
    pub clock_skew: Option<SignedDuration>,
}

/// A one-shot action on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionDetail {
    /// Its stage.
    pub stage: Stage,
    /// The device.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
    /// [`Field::ExpireKeyAt`] or [`Field::DeleteInactive`].
    pub field: Field,
    /// Why it is held, if it is.
    pub held: Option<String>,
}

/// The state of a policy's one-shot actions that a process keeps in memory only.
#[derive(Debug, Default)]
pub(super) struct DeletionQueue {
    /// The devices that may be deleted now.
    turns: BTreeSet<NodeId>,
    /// Devices that wait because the policy has reached `maxPerDay`.
    waiting: BTreeSet<NodeId>,
    /// Deletions by deleted policies that count for this one too.
    inherited: usize,
    /// The missed expiry that must be reported.
    missed: Option<MissedExpiry>,
}

impl DeletionQueue {
    /// Notes how many deletions by deleted policies count for this one too.
    pub fn inherit(&mut self, deletions: usize) {
        self.inherited = deletions;
    }

    /// Devices that wait because the policy has reached `maxPerDay`.
    pub fn waiting(&self) -> impl Iterator<Item = &NodeId> {
        self.waiting.iter()
    }

    /// Takes the missed expiry that must be reported.
    pub fn take_missed(&mut self) -> Option<MissedExpiry> {
        self.missed.take()
    }

    /// Whether a device may be deleted now.
    pub fn has_turn(&self, id: &NodeId) -> bool {
        self.turns.contains(id)
    }
}

impl PolicyEntry {
    pub fn records(&mut self) -> &mut ActionRecords {
        Arc::make_mut(&mut self.needed_record.actions)
    }

    pub fn has_actions(&self) -> bool {
        let desired = |entry: &Self| {
            let policy = entry.policy.as_ref();
            policy.is_ok_and(|policy| policy.desired.has_actions())
        };
        !self.needed_record.actions.is_empty()
            || !self.actions.turns.is_empty()
            || !self.actions.waiting.is_empty()
            || desired(self)
    }

    /// An expiry that an earlier process has completed but not recorded: the key has expired since.
    pub fn found_done(&self, device: &Device, now: Timestamp) -> Option<Change> {
        let at = self.policy.as_ref().ok()?.desired.expire_key_at?;
        let record = self.needed_record.actions.expiries.get(&at)?;
        let before = *record.started.get(&device.node_id)?;
        let expired = device.expires.is_some_and(|expires| expires <= now);
        // A key whose time has come by itself keeps its expiry: only the request moves it.
        (expired && before != device.expires).then_some(Change::ExpireKey { at, before })
    }

    /// Records the outcome of an expiry. Returns whether the record has changed.
    pub fn update_expiry(&mut self, device: &Device, now: Timestamp) -> bool {
        let Ok(policy) = self.policy.as_ref() else {
            return false;
        };
        // An invalid policy sends nothing, and so records nothing (docs/decisions/0018).
        if self.is_invalid() {
            return false;
        }
        let (desired, mode) = (policy.desired.expire_key_at, policy.mode);
        let stage = expiry(policy, &self.needed_record, device, now);
        let over = self.needed_record.actions.over(desired, now);
        for at in &over {
            self.records().drop_expiry(*at);
        }
        // A policy in mode `Observe` does nothing and so records nothing.
        let (Some(at), false) = (desired, mode == Mode::Observe) else {
            return !over.is_empty();
        };
        let id = &device.node_id;
        let record = self.needed_record.actions.expiries.get(&at);
        match stage {
            Some(Stage::Done)
                if !record.is_some_and(|record| record.done.contains(id))
                    && !self.needed_record.actions.is_full(at, id) =>
            {
                self.records().finish_expiry(at, id);
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
        if !reported {
            self.records()
                .expiries
                .entry(at)
                .or_default()
                .missed_reported = true;
            self.actions.missed = Some(MissedExpiry {
                at,
                why,
                devices: Vec::new(),
                total: 0,
            });
        }
        if let Some(missed) = self
            .actions
            .missed
            .as_mut()
            .filter(|missed| missed.at == at)
        {
            missed.total += 1;
            if missed.devices.len() < NAMED {
                missed.devices.push(device.label().to_string());
            }
        }
    }

    /// Lets a device be deleted, or makes it wait. Returns the device that may take its turn.
    pub fn update_turn(
        &mut self,
        device: &Device,
        protected: bool,
        now: Timestamp,
    ) -> Option<NodeId> {
        let id = &device.node_id;
        let policy = self.policy.as_ref().ok();
        let inactive = policy.is_some_and(|policy| {
            let inactivity = inactivity(policy, device, protected, now);
            matches!(inactivity, Some(Inactivity::Inactive(_)))
        });
        let record = self.needed_record.actions.deletions.get(id);
        let record = record.filter(|record| record.counts(now));
        if !inactive || record.is_some_and(|record| record.done) {
            return self.end_turn(id);
        }
        let delete_inactive = policy.and_then(|policy| policy.desired.delete_inactive);
        let most =
            delete_inactive.map_or(0, |delete_inactive| delete_inactive.max_per_day as usize);
        // Turns count before they are used, as several devices get theirs in one step.
        let mut others = self.actions.turns.clone();
        others.remove(id);
        let taken = self.needed_record.actions.deleted(now, &others)
            + others.len()
            + self.actions.inherited;
        if record.is_some() || taken < most {
            self.actions.turns.insert(id.clone());
            self.actions.waiting.remove(id);
        } else {
            // Another process may have deleted devices since this one got its turn.
            self.actions.turns.remove(id);
            self.actions.waiting.insert(id.clone());
        }
        None
    }

    /// Whether a deletion may begin or be repeated now: the deletions of the last day are below `maxPerDay`.
    pub fn may_begin_deletion(&self, id: &NodeId, now: Timestamp) -> bool {
        let records = &self.needed_record.actions;
        let begun = records.deletions.get(id);
        let begun = begun.is_some_and(|record| record.counts(now));
        let policy = self.policy.as_ref().ok();
        let delete_inactive = policy.and_then(|policy| policy.desired.delete_inactive);
        let most =
            delete_inactive.map_or(0, |delete_inactive| delete_inactive.max_per_day as usize);
        let deleted = records.deleted(now, &BTreeSet::new()) + self.actions.inherited;
        records.needs_deletion(id, now) && (begun || deleted < most)
    }

    /// Takes back the turn of a device that must not be deleted. Returns the device that may take it.
    pub fn end_turn(&mut self, id: &NodeId) -> Option<NodeId> {
        self.actions.waiting.remove(id);
        let had = self.actions.turns.remove(id);
        had.then(|| self.actions.waiting.first().cloned()).flatten()
    }
}
