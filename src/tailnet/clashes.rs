//! Keeps up to date what devices and policies claim of what a tailnet has once.

use std::collections::BTreeSet;

use super::Engine;
use crate::{
    model::NodeId,
    plan::{Form, Policy, PolicyKey, Want},
};

impl Engine {
    /// Puts what a policy claims now in the place of what it claimed before.
    pub(super) fn redeclare(&mut self, before: Option<&Policy>, after: Option<&Policy>) {
        let affected = self.clashes.forms.declare(before, after);
        self.compare_anew(affected);
    }

    /// Notes what a device has and what is wanted for it, once it has been planned.
    pub(super) fn note_claims(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let reading = node.attributes.as_ref();
        // What nobody reads any more may be gone.
        let reading = reading.filter(|_| node.plan.claims.need_attributes());
        let forms = reading.map(|reading| Form::all(&reading.values));
        let forms = forms.unwrap_or_default();
        let before = std::mem::replace(&mut node.forms, forms);
        let want = node.plan.want.clone();
        let affected = self.clashes.forms.note(id, &before, &node.forms);
        self.compare_anew(affected);
        self.want(id, want);
    }

    /// Forgets what a device has and what is wanted for it.
    pub(super) fn drop_claims(&mut self, id: &NodeId) {
        if let Some(node) = self.nodes.get_mut(id) {
            let before = std::mem::take(&mut node.forms);
            let affected = self.clashes.forms.note(id, &before, &BTreeSet::new());
            self.compare_anew(affected);
        }
        self.want(id, Want::default());
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
