//! One-shot actions: their records before a request, and their outcome: see [`crate::tailnet::actions`].

use super::changes::note_change;
use crate::{
    model::{Device, NodeId, PolicyField},
    plan::{Change, Difference, Field, PolicyKey, Why},
    tailnet::{
        Now, Settings, change_budget::ChangeBudget, devices::Devices, dirty::Dirty, gate::Gate,
        observed::Observed, outbox::Outbox, policy_entry::PolicyEntry, policy_set::PolicySet,
    },
};

/// What the records of one-shot actions rest on.
pub(super) struct Actions<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e Observed,
    pub policies: &'e mut PolicySet,
    pub devices: &'e mut Devices,
    pub change_budget: &'e mut ChangeBudget,
    pub dirty: &'e mut Dirty,
    pub outbox: &'e mut Outbox,
}

impl Actions<'_> {
    /// Updates the records of the actions of a device's policies, before the device is planned.
    pub(super) fn update_actions(&mut self, id: &NodeId, now: Now) {
        let (Some(node), Some(device)) =
            (self.devices.get(id), self.observed.index().get(id).cloned())
        else {
            return;
        };
        // The request may have arrived although its answer was lost.
        let doubtful = node.progress().has_doubtful_action();
        let of_actions: Vec<(PolicyKey, usize)> = node
            .policies()
            .iter()
            .filter(|key| self.policies.get(key).is_some_and(PolicyEntry::has_actions))
            .map(|key| {
                let inherited = inherited_deletions(self.change_budget, self.policies, key);
                (key.clone(), inherited)
            })
            .collect();
        for (key, inherited) in of_actions {
            // A deletion that a guardrail denies takes no turn.
            let protected = denies_deletion(self.policies, &key, &device);
            let Some(entry) = self.policies.get_mut(&key) else {
                continue;
            };
            entry.inherit_deletions(inherited);
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
                    cause: None,
                    owner: key,
                    others: Vec::new(),
                    hold: None,
                };
                note_change(
                    self.gate,
                    self.policies,
                    self.devices,
                    self.outbox,
                    &difference,
                    now,
                );
            }
        }
    }

    /// Records a deletion right before its request, once a fresh read has verified that it is due. Each
    /// record counts for the day, whatever the outcome.
    pub(super) fn begin_deletions(&mut self, id: &NodeId, now: Now) {
        // A deletion cannot be undone, so it waits while the lists are in doubt.
        let trusted = self.gate.leads() && self.observed.polling().is_trusted(now.monotonic);
        let Some(node) = self.devices.get(id).filter(|_| trusted) else {
            return;
        };
        // The device may have come back since the list.
        if !node.was_just_read(self.settings.fresh_for(), now.monotonic) {
            return;
        }
        let claims = &node.plan().owners;
        for difference in &node.plan().differences {
            if difference.change.field() != Field::DeleteInactive {
                continue;
            }
            for owner in difference.owners() {
                if let Some(entry) = self.policies.get_mut(owner)
                    && difference.begins_for(owner, claims)
                    && entry.may_begin_deletion(id, now.wall)
                {
                    let name = difference.device.clone();
                    let again = entry.begin_deletion(id, name, now.wall);
                    // A repeated attempt on the same device is one deletion, and counts once in the tailnet's
                    // log.
                    if !again {
                        self.change_budget
                            .begin_deletion(owner, entry.uid(), now.wall);
                    }
                    self.dirty.report(owner);
                }
            }
        }
    }

    /// A deletion whose answer was lost has taken effect if the device is gone.
    pub(super) fn confirm_deletions(&mut self, id: &NodeId, now: Now) {
        // A device that is still there was not deleted.
        if self.observed.index().get(id).is_some() {
            return;
        }
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        let made = node.progress_mut().take_doubtful_deletions();
        for difference in made {
            finish_action(self.policies, self.dirty, &difference);
            note_change(
                self.gate,
                self.policies,
                self.devices,
                self.outbox,
                &difference,
                now,
            );
        }
    }
}

fn denies_deletion(policies: &PolicySet, key: &PolicyKey, device: &Device) -> bool {
    let guardrails = policies.guardrails();
    let policy = policies
        .get(key)
        .and_then(|entry| entry.policy().as_deref().ok());
    let denied = policy.map(|it| guardrails.denies(it, PolicyField::DeleteInactive, device));
    denied.is_some_and(|denied| denied.is_some())
}

/// How many deletions by deleted policies count for a policy.
fn inherited_deletions(
    change_budget: &ChangeBudget,
    policies: &PolicySet,
    key: &PolicyKey,
) -> usize {
    let entry = policies.get(key);
    let Some((entry, policy)) =
        entry.and_then(|entry| Some((entry, entry.policy().as_deref().ok()?)))
    else {
        return 0;
    };
    let has_own = !entry.needed_record().actions.deletions.is_empty();
    let log = change_budget.deletions();
    log.inherited(key, entry.uid(), policy.created, has_own, |key, uid| {
        let known = policies.get(key);
        known.is_some_and(|known| known.uid() == uid)
    })
}

/// Forgets deletions that are a day old, so that waiting devices get their turn.
pub(super) fn expire_deletions(
    change_budget: &mut ChangeBudget,
    policies: &PolicySet,
    dirty: &mut Dirty,
    now: Now,
) {
    if change_budget.expire_deletions(now.wall) {
        let waiting = policies
            .values()
            .flat_map(|entry| entry.deletion_queue().waiting());
        dirty.plan_all(waiting.cloned());
    }
}

/// Records keys that are about to be expired, or will be once someone approves. This happens as soon as
/// the time has come, even if no request can be sent yet: the record must be durable before the request
/// ([`crate::plan::PolicyRecord::covers`]).
pub(super) fn begin_expiries(
    gate: &Gate,
    policies: &mut PolicySet,
    devices: &Devices,
    dirty: &mut Dirty,
    id: &NodeId,
) {
    let Some(node) = devices.get(id).filter(|_| gate.leads()) else {
        return;
    };
    let claims = &node.plan().owners;
    for difference in node.plan().differences.iter().chain(&node.plan().shown) {
        let Change::ExpireKey { at, before } = difference.change else {
            continue;
        };
        for owner in difference.owners() {
            let entry = policies.get_mut(owner);
            let Some(entry) = entry.filter(|_| difference.begins_for(owner, claims)) else {
                continue;
            };
            if !entry.has_begun_expiry(at, id) && entry.begin_expiry(at, id, before) {
                dirty.report(owner);
            }
        }
    }
}

/// Whether these one-shot actions are recorded for every policy that they are done for.
pub(super) fn have_begun(
    change_budget: &ChangeBudget,
    policies: &PolicySet,
    devices: &Devices,
    differences: &[Difference],
    now: Now,
) -> bool {
    let mut differences = differences.iter();
    differences.all(|difference| {
        let Some(node) = devices.get(&difference.node) else {
            return true;
        };
        let claims = &node.plan().owners;
        let begins = difference
            .owners()
            .filter(|owner| difference.begins_for(owner, claims));
        let mut entries = begins.filter_map(|owner| policies.get(owner));
        entries.all(|entry| has_begun(change_budget, entry, difference, now))
    })
}

fn has_begun(
    change_budget: &ChangeBudget,
    entry: &PolicyEntry,
    difference: &Difference,
    now: Now,
) -> bool {
    match difference.change {
        Change::ExpireKey { at, .. } => entry.has_begun_expiry(at, &difference.node),
        Change::Delete { .. } => {
            let records = &entry.needed_record().actions;
            // The tailnet's record counts too: the policy's own status is lost if the policy is recreated.
            change_budget.has_recorded_deletions()
                && !records.needs_deletion(&difference.node, now.wall)
        }
        _ => true,
    }
}

/// The API has accepted a one-shot action.
pub(super) fn finish_action(policies: &mut PolicySet, dirty: &mut Dirty, difference: &Difference) {
    let id = &difference.node;
    for owner in difference.owners() {
        let Some(entry) = policies.get_mut(owner) else {
            continue;
        };
        match difference.change {
            Change::ExpireKey { at, .. } => {
                entry.finish_expiry(at, id);
            }
            Change::Delete { .. } => entry.finish_deletion(id),
            _ => {}
        }
        dirty.report(owner);
    }
}
