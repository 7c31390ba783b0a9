//! One-shot actions: their records before a request, and their outcome: see [`crate::tailnet::actions`].

use std::collections::BTreeMap;

use super::Engine;
use crate::{
    model::{NodeId, PolicyField},
    plan::{Change, Difference, Field, PolicyKey, Why},
    tailnet::{Now, policy_entry::PolicyEntry},
};

impl Engine {
    /// Updates the records of the actions of a device's policies, before the device is planned.
    pub(super) fn update_actions(&mut self, id: &NodeId, now: Now) {
        let (Some(node), Some(device)) =
            (self.devices.get(id), self.observed.index().get(id).cloned())
        else {
            return;
        };
        // The request may have arrived although its answer was lost.
        let doubtful = node.progress().has_doubtful_action();
        let keys: Vec<PolicyKey> = node
            .policies()
            .iter()
            .filter(|key| self.policies.get(key).is_some_and(PolicyEntry::has_actions))
            .cloned()
            .collect();
        let inherited: BTreeMap<PolicyKey, usize> = keys
            .iter()
            .map(|key| (key.clone(), self.inherited_deletions(key)))
            .collect();
        for key in keys {
            let guardrails = self.policies.guardrails();
            let policy = self.policies.get(&key).map(|entry| entry.policy().as_ref());
            // A deletion that a guardrail denies takes no turn.
            let protected = policy.is_some_and(|policy| {
                let denies =
                    |policy| guardrails.denies(policy, PolicyField::DeleteInactive, &device);
                policy.is_ok_and(|policy| denies(policy).is_some())
            });
            let Some(entry) = self.policies.get_mut(&key) else {
                continue;
            };
            entry.inherit_deletions(inherited.get(&key).copied().unwrap_or_default());
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
            entry.and_then(|entry| Some((entry, entry.policy().as_ref().ok()?)))
        else {
            return 0;
        };
        let exists = |key: &PolicyKey, uid: &str| {
            let known = self.policies.get(key);
            known.is_some_and(|known| known.uid() == uid)
        };
        let has_own = !entry.needed_record().actions.deletions.is_empty();
        let log = self.change_budget.deletions();
        log.inherited(key, entry.uid(), policy.created, has_own, exists)
    }

    /// Forgets deletions that are a day old, so that waiting devices get their turn.
    pub(super) fn expire_deletions(&mut self, now: Now) {
        if self.change_budget.expire_deletions(now.wall) {
            let waiting = self
                .policies
                .values()
                .flat_map(|entry| entry.deletion_queue().waiting());
            self.dirty.plan_all(waiting.cloned());
        }
    }

    /// Records keys that are about to be expired, or will be once someone approves. This happens as soon as
    /// the time has come, even if no request can be sent yet: the record must be durable before the request
    /// ([`crate::plan::PolicyRecord::covers`]).
    pub(super) fn begin_expiries(&mut self, id: &NodeId) {
        let Some(node) = self.devices.get(id).filter(|_| self.gate.leads()) else {
            return;
        };
        let claims = &node.plan().owners;
        for difference in node.plan().differences.iter().chain(&node.plan().shown) {
            let Change::ExpireKey { at, before } = difference.change else {
                continue;
            };
            for owner in difference.owners() {
                let entry = self.policies.get_mut(owner);
                let Some(entry) = entry.filter(|_| difference.begins_for(owner, claims)) else {
                    continue;
                };
                if !entry.has_begun_expiry(at, id) && entry.begin_expiry(at, id, before) {
                    self.dirty.report(owner);
                }
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
        if !node.was_just_read(self.fresh_for(), now.monotonic) {
            return;
        }
        let claims = &node.plan().owners;
        for difference in &node.plan().differences {
            if difference.change.field() != Field::DeleteInactive {
                continue;
            }
            for owner in difference.owners() {
                let entry = self.policies.get_mut(owner);
                let entry = entry.filter(|_| difference.begins_for(owner, claims));
                let new = |entry: &&mut PolicyEntry| entry.may_begin_deletion(id, now.wall);
                if let Some(entry) = entry.filter(new) {
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

    /// Whether these one-shot actions are recorded for every policy that they are done for.
    pub(super) fn have_begun(&self, differences: &[Difference], now: Now) -> bool {
        let begun = |difference: &Difference, owner: &PolicyKey| {
            let (Some(entry), Some(node)) =
                (self.policies.get(owner), self.devices.get(&difference.node))
            else {
                return true;
            };
            if !difference.begins_for(owner, &node.plan().owners) {
                return true;
            }
            let records = &entry.needed_record().actions;
            match difference.change {
                Change::ExpireKey { at, .. } => entry.has_begun_expiry(at, &difference.node),
                Change::Delete { .. } => {
                    // The tailnet's record counts too: the policy's own status is lost if the policy is
                    // recreated.
                    let counted = self.change_budget.has_recorded_deletions();
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
                    entry.finish_expiry(at, id);
                }
                Change::Delete { .. } => entry.finish_deletion(id),
                _ => {}
            }
            self.dirty.report(owner);
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
            self.finish_action(&difference);
            self.note_change(&difference, now);
        }
    }
}
