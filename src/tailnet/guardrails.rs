//! Applies the guardrails and the labels of namespaces to a declared policy.

use super::{Engine, Notification, Settings};
use crate::plan::{Labels, PolicyKey, Refusal};

impl Engine {
    /// Takes the guardrails of new settings.
    pub(super) fn take_guardrails(&mut self, settings: &Settings) {
        if !self.policies.set_guardrails(&settings.guardrails) {
            return;
        }
        // Which devices are protected may have changed.
        self.dirty.plan_all(self.devices.ids().cloned());
        let all: Vec<PolicyKey> = self.policies.keys().cloned().collect();
        for key in &all {
            self.admit_again(key);
        }
    }

    /// Takes the labels of a namespace; `None` if it is gone.
    pub(super) fn take_labels(&mut self, namespace: String, labels: Option<Labels>) {
        let affected = self.policies.set_labels(namespace, labels);
        for key in &affected {
            self.admit_again(key);
        }
    }

    /// Checks a policy against the guardrails again. A changed result is like an edit.
    fn admit_again(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get(key) else {
            return;
        };
        let known = entry
            .last_valid
            .as_ref()
            .or(entry.status_state.readable.as_ref());
        let policy = self.policies.admit(&entry.declared, known);
        if policy == *entry.intended() {
            return;
        }
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut entry.policy, policy);
        entry.note_edit(before.as_ref().ok());
        let after = entry.policy.as_ref().ok().cloned();
        self.redeclare(before.as_ref().ok(), after.as_ref());
        self.take_edit(key);
    }

    /// Whether it is too early to report that a policy is not allowed: not everything has been listed, or its
    /// namespace is so new that its labels are unknown.
    pub(super) fn may_be_allowed_yet(&self, refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Invalid(_) => false,
            Refusal::NotAllowed(forbidden) => {
                forbidden.selector_errors || !self.gate.has_listed_policies()
            }
        }
    }

    /// Emits the Event that a policy is not allowed.
    pub(super) fn notify_refusal(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get(key) else {
            return;
        };
        if let Err(Refusal::NotAllowed(forbidden)) = &entry.policy {
            let notification = Notification::Refused(forbidden.clone());
            self.notify(key, notification);
        }
    }
}
