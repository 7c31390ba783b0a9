//! Keeps up to date what devices and policies claim of what a tailnet has once.

use std::collections::BTreeSet;

use super::Engine;
use crate::{
    api::PolicyField,
    model::NodeId,
    plan::{Field, Form, Forms, Policy, PolicyKey, Want},
};

impl Engine {
    /// Puts what a policy claims now in the place of what it claimed before.
    pub(super) fn redeclare(&mut self, before: Option<&Policy>, after: Option<&Policy>) {
        let affected = self.clashes.forms.declare(before, after);
        self.compare_anew(affected);
    }

    /// Notes what a device has and what is wanted for it, once it has been planned.
    pub(super) fn note_claims(&mut self, id: &NodeId) {
        let setting = self.setting_attributes(id);
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut node.setting, setting.clone());
        self.note_setting(&before, &setting);
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let reading = node.attributes.as_ref();
        // What nobody reads any more may be gone.
        let reading = reading.filter(|_| node.plan.claims.need_attributes());
        let forms = reading.map(|reading| Form::all(&reading.values));
        let forms = forms.unwrap_or_default();
        let before = std::mem::replace(&mut node.forms, forms);
        let mut want = node.plan.want.clone();
        // What the API refuses for good cannot be had.
        want.ipv4.take_if(|_| node.is_refused(&Field::Ipv4));
        want.name.take_if(|_| node.is_refused(&Field::Name));
        let mut affected = self.clashes.forms.note(id, &before, &node.forms);
        let refused = node.refused_forms();
        let before = std::mem::replace(&mut node.refused, refused);
        let forms = &mut self.clashes.forms;
        affected.extend(forms.note_refused(id, &before, &node.refused));
        self.compare_anew(affected);
        self.want(id, want);
    }

    /// Forgets what a device has and what is wanted for it.
    pub(super) fn drop_claims(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            let before = std::mem::take(&mut node.forms);
            let setting = std::mem::take(&mut node.setting);
            let refused = std::mem::take(&mut node.refused);
            let (forms, nothing) = (&mut self.clashes.forms, BTreeSet::new());
            let mut affected = forms.note(id, &before, &nothing);
            affected.extend(forms.note_refused(id, &refused, &nothing));
            self.compare_anew(affected);
            self.note_setting(&setting, &BTreeSet::new());
        }
        self.want(id, Want::default());
    }

    /// The policies that may set attributes of a device: what they declare counts in the whole tailnet.
    fn setting_attributes(&self, id: &NodeId) -> BTreeSet<PolicyKey> {
        let (Some(node), Some(device)) = (self.nodes.get(id), self.fleet.get(id)) else {
            return BTreeSet::new();
        };
        let guardrails = &self.guards.guardrails;
        let sets = |key: &&PolicyKey| {
            let held = self.policies.get(*key).filter(|held| !held.too_many);
            let policy = held.and_then(|held| held.policy.as_ref().ok());
            policy.is_some_and(|policy| {
                let field = PolicyField::PostureAttributes;
                Forms::is_set_by(policy) && guardrails.bars(policy, field, device).is_none()
            })
        };
        node.policies.iter().filter(sets).cloned().collect()
    }

    fn note_setting(&mut self, before: &BTreeSet<PolicyKey>, after: &BTreeSet<PolicyKey>) {
        let mut affected = BTreeSet::new();
        for key in after.difference(before) {
            let held = self.policies.get(key);
            if let Some(policy) = held.and_then(|held| held.policy.as_ref().ok()) {
                affected.extend(self.clashes.forms.gain_device(policy));
            }
        }
        for key in before.difference(after) {
            let held = self.policies.get(key);
            let policy = held.and_then(|held| held.policy.as_ref().ok());
            affected.extend(self.clashes.forms.lose_device(key, policy));
        }
        self.compare_anew(affected);
    }

    fn want(&mut self, id: &NodeId, want: Want) {
        if self.clashes.wants.of(id) == want {
            return;
        }
        let affected = self.clashes.wants.put(id, want);
        self.stale.extend(affected);
        self.reconsider_waiting(id);
    }

    /// Compares those anew that wait for the address of this device.
    pub(super) fn reconsider_waiting(&mut self, id: &NodeId) {
        let waiting = self.clashes.wants.waiting_for(id, &self.fleet);
        self.stale.extend(waiting);
    }

    fn compare_anew(&mut self, policies: BTreeSet<PolicyKey>) {
        for key in policies {
            if let Some(held) = self.policies.get(&key) {
                self.stale.extend(held.nodes().cloned());
            }
        }
    }
}
