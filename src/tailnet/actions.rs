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

use super::{
    DETAILS, Engine, Notification, Now, device_state::DeviceState, policy_entry::PolicyEntry,
};
use crate::{
    model::{Device, NodeId, PolicyField},
    plan::{
        ActionRecords, Change, Difference, Field, Inactivity, Missed, Mode, PolicyKey, Stage, Why,
        expiry, inactivity,
    },
};

/// The number of devices that a message about a missed expiry names.
const NAMED: usize = 3;
/// The number of devices that may leave between two lists without making the later one doubtful.
const FEW: usize = 5;

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
    /// Whether a device may be deleted now.
    pub fn has_turn(&self, id: &NodeId) -> bool {
        self.turns.contains(id)
    }
}

impl PolicyEntry {
    fn records(&mut self) -> &mut ActionRecords {
        Arc::make_mut(&mut self.needed_record.actions)
    }

    fn has_actions(&self) -> bool {
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
    fn found_done(&self, device: &Device, now: Timestamp) -> Option<Change> {
        let at = self.policy.as_ref().ok()?.desired.expire_key_at?;
        let record = self.needed_record.actions.expiries.get(&at)?;
        let before = *record.started.get(&device.node_id)?;
        let expired = device.expires.is_some_and(|expires| expires <= now);
        (expired && before != device.expires).then_some(Change::ExpireKey { at, before })
    }

    /// Records the outcome of an expiry. Returns whether the record has changed.
    fn update_expiry(&mut self, device: &Device, now: Timestamp) -> bool {
        let Ok(policy) = self.policy.as_ref() else {
            return false;
        };
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
    fn update_turn(&mut self, device: &Device, protected: bool, now: Timestamp) -> Option<NodeId> {
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
    fn may_begin_deletion(&self, id: &NodeId, now: Timestamp) -> bool {
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

impl Engine {
    /// Updates the records of the actions of a device's policies, before the device is planned.
    pub(super) fn update_actions(&mut self, id: &NodeId, now: Now) {
        let (Some(node), Some(device)) =
            (self.devices.get(id), self.observed.index().get(id).cloned())
        else {
            return;
        };
        let doubtful = node.outcome_unknown.iter().any(Difference::is_action);
        let acting =
            |key: &&PolicyKey| self.policies.get(key).is_some_and(PolicyEntry::has_actions);
        let keys: Vec<PolicyKey> = node.policies.iter().filter(acting).cloned().collect();
        let inherited: BTreeMap<PolicyKey, usize> = keys
            .iter()
            .map(|key| (key.clone(), self.inherited_deletions(key)))
            .collect();
        for key in keys {
            let guardrails = self.policies.guardrails();
            let policy = self.policies.get(&key).map(|entry| entry.policy.as_ref());
            // A deletion that a guardrail denies takes no turn.
            let protected = policy.is_some_and(|policy| {
                let denies =
                    |policy| guardrails.denies(policy, PolicyField::DeleteInactive, &device);
                policy.is_ok_and(|policy| denies(policy).is_some())
            });
            let Some(entry) = self.policies.get_mut(&key) else {
                continue;
            };
            entry.actions.inherited = inherited.get(&key).copied().unwrap_or_default();
            // If the answer of the request was lost, the read that follows reports the change.
            let found = entry.found_done(&device, now.wall).filter(|_| !doubtful);
            // Only the leader records anything.
            if self.gate.leads() && entry.update_expiry(&device, now.wall) {
                self.dirty.report(&key);
            }
            let next = entry.update_turn(&device, protected, now.wall);
            self.dirty.plan_all(next);
            if let Some(change) = found.filter(|_| self.gate.leads()) {
                let difference = Difference {
                    node: id.clone(),
                    device: device.label().to_string(),
                    change,
                    why: Why::Declared,
                    owner: key,
                    others: Vec::new(),
                    hold: None,
                };
                self.note_change(&difference, now);
            }
        }
    }

    /// How many deletions by deleted policies count for a policy.
    fn inherited_deletions(&self, key: &PolicyKey) -> usize {
        let entry = self.policies.get(key);
        let Some((entry, policy)) =
            entry.and_then(|entry| Some((entry, entry.policy.as_ref().ok()?)))
        else {
            return 0;
        };
        let exists = |key: &PolicyKey, uid: &str| {
            let known = self.policies.get(key);
            known.is_some_and(|known| known.uid == uid)
        };
        let has_own = !entry.needed_record.actions.deletions.is_empty();
        let log = &self.change_budget.deletions;
        log.inherited(key, &entry.uid, policy.created, has_own, exists)
    }

    /// Forgets deletions that are a day old, so that waiting devices get their turn.
    pub(super) fn expire_deletions(&mut self, now: Now) {
        if self.change_budget.deletions.expire(now.wall) {
            let waiting = self
                .policies
                .values()
                .flat_map(|entry| &entry.actions.waiting);
            self.dirty.plan_all(waiting.cloned());
        }
    }

    /// Records keys that are about to be expired, or will be once somebody approves. This happens as soon as
    /// the time has come, even if no request can be sent yet: the record must be durable before the request
    /// ([`crate::plan::PolicyRecord::covers`]).
    pub(super) fn begin_expiries(&mut self, id: &NodeId) {
        let Some(node) = self.devices.get(id).filter(|_| self.gate.leads()) else {
            return;
        };
        let claims = &node.plan.owners;
        for difference in node.plan.differences.iter().chain(&node.plan.shown) {
            let Change::ExpireKey { at, before } = difference.change else {
                continue;
            };
            for owner in difference.owners() {
                let entry = self.policies.get_mut(owner);
                let Some(entry) = entry.filter(|_| difference.begins_for(owner, claims)) else {
                    continue;
                };
                let record = entry.needed_record.actions.expiries.get(&at);
                let known = record.is_some_and(|record| record.started.contains_key(id));
                if !known && entry.records().begin_expiry(at, id, before) {
                    self.dirty.report(owner);
                }
            }
        }
    }

    /// Records a deletion right before its request, once a fresh read has verified that it is due. Each
    /// record counts for the day, whatever the outcome.
    pub(super) fn begin_deletions(&mut self, id: &NodeId, now: Now) {
        let trusted = self.gate.leads() && self.observed.polling().is_trusted(now.monotonic);
        let Some(node) = self.devices.get(id).filter(|_| trusted) else {
            return;
        };
        if !node.was_just_read(self.fresh_for(), now.monotonic) {
            return;
        }
        let claims = &node.plan.owners;
        for difference in &node.plan.differences {
            if difference.change.field() != Field::DeleteInactive {
                continue;
            }
            for owner in difference.owners() {
                let entry = self.policies.get_mut(owner);
                let entry = entry.filter(|_| difference.begins_for(owner, claims));
                let new = |entry: &&mut PolicyEntry| entry.may_begin_deletion(id, now.wall);
                if let Some(entry) = entry.filter(new) {
                    let name = difference.device.clone();
                    let again = entry.needed_record.actions.deletions.contains_key(id);
                    entry.records().begin_deletion(id, name, now.wall);
                    if !again {
                        let revision = self.change_budget.reservations.next_revision();
                        let log = &mut self.change_budget.deletions;
                        log.add(owner, &entry.uid, now.wall, revision);
                    }
                    self.dirty.report(owner);
                }
            }
        }
    }

    /// Whether these one-shot actions are recorded for every policy that they are done for.
    pub(super) fn have_begun(&self, differences: &[Difference], now: Now) -> bool {
        let begun = |difference: &Difference, owner: &PolicyKey| {
            let (Some(entry), Some(node)) =
                (self.policies.get(owner), self.devices.get(&difference.node))
            else {
                return true;
            };
            if !difference.begins_for(owner, &node.plan.owners) {
                return true;
            }
            let records = &entry.needed_record.actions;
            match difference.change {
                Change::ExpireKey { at, .. } => {
                    let record = records.expiries.get(&at);
                    record.is_some_and(|record| record.started.contains_key(&difference.node))
                }
                Change::Delete { .. } => {
                    let budget = &self.change_budget;
                    let counted = budget.reservations.has_recorded(budget.deletions.revision);
                    counted && !records.needs_deletion(&difference.node, now.wall)
                }
                _ => true,
            }
        };
        let mut differences = differences.iter();
        differences.all(|difference| difference.owners().all(|owner| begun(difference, owner)))
    }

    /// The API has accepted a one-shot action.
    pub(super) fn finish_action(&mut self, difference: &Difference) {
        let id = &difference.node;
        for owner in difference.owners() {
            let Some(entry) = self.policies.get_mut(owner) else {
                continue;
            };
            match difference.change {
                Change::ExpireKey { at, .. } => {
                    let record = entry.needed_record.actions.expiries.get(&at);
                    if record.is_some_and(|record| record.started.contains_key(id)) {
                        entry.records().finish_expiry(at, id);
                    }
                }
                Change::Delete { .. } => {
                    if let Some(record) = entry.records().deletions.get_mut(id) {
                        record.done = true;
                    }
                }
                _ => {}
            }
            self.dirty.report(owner);
        }
    }

    /// A device was deleted: it is no longer in the tailnet, even if a list that was requested earlier still
    /// has it.
    pub(super) fn take_deleted(&mut self, id: &NodeId) {
        self.reconsider(id);
        self.observed.note_deleted(id);
    }

    /// A deletion whose answer was lost has taken effect if the device is gone.
    pub(super) fn confirm_deletions(&mut self, id: &NodeId, now: Now) {
        if self.observed.index().get(id).is_some() {
            return;
        }
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        let is_deletion =
            |difference: &mut Difference| matches!(difference.change, Change::Delete { .. });
        let made: Vec<Difference> = node.outcome_unknown.extract_if(.., is_deletion).collect();
        for difference in made {
            self.finish_action(&difference);
            self.note_change(&difference, now);
        }
    }

    /// Whether a list that has lost so many devices is plausible.
    pub(super) fn is_plausible(&self, gone: usize) -> bool {
        gone <= FEW.max(self.observed.index().own_count() / 10)
    }

    /// Marks devices that must be deleted for planning: they wait for a list that can be trusted.
    pub(super) fn find_inactive(&mut self) {
        let waits = |node: &DeviceState| {
            let mut differences = node.plan.differences.iter();
            differences.any(|difference| difference.change.field() == Field::DeleteInactive)
        };
        let waiting = self.devices.iter().filter(|(_, node)| waits(node));
        self.dirty.plan_all(waiting.map(|(id, _)| id.clone()));
    }

    /// Emits the Event about a missed expiry.
    pub(super) fn report_missed(&mut self, key: &PolicyKey) {
        let entry = self.policies.get_mut(key);
        if let Some(missed) = entry.and_then(|entry| entry.actions.missed.take()) {
            self.notify(key, Notification::Missed(missed));
        }
    }

    /// The progress of a policy's one-shot actions.
    pub(super) fn action_report(&self, key: &PolicyKey) -> ActionReport {
        let mut report = ActionReport::default();
        let Some(entry) = self.policies.get(key).filter(|entry| entry.has_actions()) else {
            return report;
        };
        report.clock_skew = self.observed.clock_skew();
        let mut ranked: BTreeSet<(Stage, &NodeId, Field)> = BTreeSet::new();
        for (id, node) in entry
            .nodes()
            .filter_map(|id| self.devices.get_key_value(id))
        {
            for action in node
                .plan
                .actions
                .iter()
                .filter(|action| action.policy == *key)
            {
                *report.totals.entry(action.stage).or_default() += 1;
                ranked.insert((action.stage, id, action.field.clone()));
                if ranked.len() > DETAILS {
                    ranked.pop_last();
                }
            }
        }
        let details = ranked.into_iter().filter_map(|(stage, id, field)| {
            let (node, device) = (self.devices.get(id)?, self.observed.index().get(id)?);
            let mut own = node.plan.of(key);
            let own = own.find(|difference| difference.change.field() == field);
            Some(ActionDetail {
                stage,
                node: id.clone(),
                label: device.label().to_string(),
                held: own.and_then(|own| own.hold.as_ref().map(ToString::to_string)),
                field,
            })
        });
        report.details = details.collect();
        // Deletions that were recorded before a crash and whose device is gone.
        let listed = self.observed.lists() > 0;
        let gone = entry.needed_record.actions.deletions.iter();
        let gone: Vec<_> = gone
            .filter(|(id, record)| {
                (record.done || listed) && self.observed.index().get(id).is_none()
            })
            .collect();
        if !gone.is_empty() {
            *report.totals.entry(Stage::Done).or_default() += gone.len();
        }
        let room = DETAILS.saturating_sub(report.details.len());
        let gone = gone.into_iter().take(room);
        report.details.extend(gone.map(|(id, record)| ActionDetail {
            stage: Stage::Done,
            node: id.clone(),
            label: record.name.clone(),
            field: Field::DeleteInactive,
            held: None,
        }));
        report
    }
}
