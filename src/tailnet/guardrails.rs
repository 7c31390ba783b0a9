//! Applies the guardrails and the labels of namespaces to a declared policy.

use super::{Engine, Notification, Settings};
use crate::plan::{Labels, Policy, PolicyKey, Refusal};

impl Engine {
    /// The policy that is in force, or why none is. An invalid policy keeps its precedence for what it last
    /// validly declared (`known`), if the guardrails allow that.
    pub(super) fn admit(
        &self,
        declared: &Result<Policy, Vec<String>>,
        known: Option<&Policy>,
    ) -> Result<Policy, Refusal> {
        let errors = match declared {
            Ok(policy) => {
                let admitted = self.admission.admit(policy.clone());
                return admitted.map_err(Refusal::NotAllowed);
            }
            Err(errors) => errors,
        };
        let known = known.cloned().map(Policy::while_invalid);
        let admitted = known.and_then(|known| self.admission.admit(known).ok());
        admitted.ok_or_else(|| Refusal::Invalid(errors.clone()))
    }

    /// Takes the guardrails of new settings.
    pub(super) fn take_guardrails(&mut self, settings: &Settings) {
        if self.admission.guardrails == settings.guardrails {
            return;
        }
        self.admission.guardrails = settings.guardrails.clone();
        // Which devices are protected may have changed.
        self.dirty.plan_all(self.devices.keys().cloned());
        let all: Vec<PolicyKey> = self.policies.keys().cloned().collect();
        for key in &all {
            self.admit_again(key);
        }
    }

    /// Takes the labels of a namespace; `None` if it is gone.
    pub(super) fn take_labels(&mut self, namespace: String, labels: Option<Labels>) {
        if self.admission.namespaces.get(&namespace) == labels.as_ref() {
            return;
        }
        let affected = self.policies.keys();
        let affected = affected.filter(|key| key.namespace == namespace);
        let affected: Vec<PolicyKey> = affected.cloned().collect();
        match labels {
            Some(labels) => self.admission.namespaces.insert(namespace, labels),
            None => self.admission.namespaces.remove(&namespace),
        };
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
        let policy = self.admit(&entry.declared, known);
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
