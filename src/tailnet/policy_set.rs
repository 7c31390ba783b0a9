//! The policies of a tailnet, with what decides whether they are in force: the guardrails, the labels of
//! namespaces, and deletions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Ticket, policy_entry::PolicyEntry, reconcile_budget::Asks};
use crate::plan::{Admission, Guardrails, Labels, Policy, PolicyKey, Refusal};

/// The policies of the engine.
#[derive(Debug, Default)]
pub(super) struct PolicySet {
    /// Boxed, because a half-full node of the tree is common, and an entry is large.
    all: BTreeMap<PolicyKey, Box<PolicyEntry>>,
    /// The guardrails, and the labels of namespaces.
    admission: Admission,
    /// The policies with a selector.
    with_selector: BTreeSet<PolicyKey>,
    /// The policies for one device that have none: it is not found, or is not what they say.
    without_device: BTreeSet<PolicyKey>,
    /// Policies that are being deleted and whose cleanup is not finished.
    deleting: BTreeSet<PolicyKey>,
    /// Policies whose annotation requests a reconcile, with the last ticket before the request.
    reconcile_requests: BTreeMap<PolicyKey, Ticket>,
    /// How many such requests were granted at once.
    granted: Asks,
}

impl PolicySet {
    /// No policies, under these guardrails.
    pub fn new(guardrails: Guardrails) -> Self {
        Self {
            admission: Admission {
                guardrails,
                ..Admission::default()
            },
            ..Self::default()
        }
    }

    pub fn get(&self, key: &PolicyKey) -> Option<&PolicyEntry> {
        self.all.get(key).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, key: &PolicyKey) -> Option<&mut PolicyEntry> {
        self.all.get_mut(key).map(Box::as_mut)
    }

    pub fn contains(&self, key: &PolicyKey) -> bool {
        self.all.contains_key(key)
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The policies, sorted by namespace and name.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&PolicyKey, &PolicyEntry)> {
        self.all.iter().map(|(key, entry)| (key, &**entry))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&PolicyKey, &mut PolicyEntry)> {
        self.all.iter_mut().map(|(key, entry)| (key, &mut **entry))
    }

    pub fn keys(&self) -> impl Iterator<Item = &PolicyKey> {
        self.all.keys()
    }

    pub fn values(&self) -> impl Iterator<Item = &PolicyEntry> {
        self.all.values().map(Box::as_ref)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut PolicyEntry> {
        self.all.values_mut().map(Box::as_mut)
    }

    /// Adds a policy.
    pub fn insert(&mut self, key: PolicyKey, entry: PolicyEntry) {
        self.all.insert(key, Box::new(entry));
    }

    /// Removes a policy, and everything that is known of it.
    pub fn remove(&mut self, key: &PolicyKey) -> Option<PolicyEntry> {
        self.with_selector.remove(key);
        self.without_device.remove(key);
        self.deleting.remove(key);
        self.reconcile_requests.remove(key);
        self.all.remove(key).map(|entry| *entry)
    }

    /// The policy that a status reports as it was declared, or why none is in force. An invalid policy keeps
    /// its precedence for what it last validly declared (`known`), if the guardrails allow that.
    pub fn admit(
        &self,
        declared: &Result<Arc<Policy>, Vec<String>>,
        known: Option<&Arc<Policy>>,
    ) -> Result<Arc<Policy>, Refusal> {
        let errors = match declared {
            Ok(policy) => {
                let admitted = self.admission.admit(Policy::clone(policy));
                let admitted = admitted.map_err(Refusal::NotAllowed)?;
                // Most policies are in force as they are declared, and one copy is enough.
                let is_same = admitted == **policy;
                return Ok(if is_same {
                    Arc::clone(policy)
                } else {
                    Arc::new(admitted)
                });
            }
            Err(errors) => errors,
        };
        // An invalid policy keeps its last valid spec, as far as the guardrails allow it now.
        let known = known.map(|known| Policy::clone(known).while_invalid());
        let admitted = known.and_then(|known| self.admission.admit(known).ok());
        admitted
            .map(Arc::new)
            .ok_or_else(|| Refusal::Invalid(errors.clone()))
    }

    pub const fn guardrails(&self) -> &Guardrails {
        &self.admission.guardrails
    }

    /// Takes other guardrails. Returns whether they differ.
    pub fn set_guardrails(&mut self, guardrails: &Guardrails) -> bool {
        let differ = self.admission.guardrails != *guardrails;
        if differ {
            self.admission.guardrails = guardrails.clone();
        }
        differ
    }

    /// Takes the labels of a namespace; `None` if it is gone. Returns the policies that this concerns.
    pub fn set_labels(&mut self, namespace: String, labels: Option<Labels>) -> Vec<PolicyKey> {
        // Each change checks all policies of the namespace again, and watches repeat what they have told.
        if self.admission.namespaces.get(&namespace) == labels.as_ref() {
            return Vec::new();
        }
        let affected = self
            .all
            .keys()
            .filter(|key| key.namespace == namespace)
            .cloned()
            .collect();
        match labels {
            Some(labels) => self.admission.namespaces.insert(namespace, labels),
            None => self.admission.namespaces.remove(&namespace),
        };
        affected
    }

    /// Notes whether a policy selects its devices.
    pub fn note_selector(&mut self, key: &PolicyKey, selects: bool) {
        if selects {
            self.with_selector.insert(key.clone());
        } else {
            self.with_selector.remove(key);
        }
    }

    /// Notes whether a policy for one device waits for it.
    pub fn note_waiting(&mut self, key: &PolicyKey, waits: bool) {
        if waits {
            self.without_device.insert(key.clone());
        } else {
            self.without_device.remove(key);
        }
    }

    /// The policies for one device that wait for it.
    pub fn waiting(&self) -> impl Iterator<Item = &PolicyKey> {
        self.without_device.iter()
    }

    /// Whether a policy selects its devices, and was bound since it does.
    pub fn has_selector(&self, key: &PolicyKey) -> bool {
        self.with_selector.contains(key)
    }

    /// The cleanup after a policy that is being deleted begins.
    pub fn begin_cleanup(&mut self, key: &PolicyKey) {
        self.deleting.insert(key.clone());
    }

    /// Restarts the cleanup of all policies that are being deleted.
    pub fn restart_cleanup(&mut self) {
        for (key, entry) in &mut self.all {
            // How long the previous leader has waited is unknown, so each cleanup starts again.
            if entry.cleanup_mut().restart() {
                self.deleting.insert(key.clone());
            }
        }
    }

    /// The cleanup after a policy is finished.
    pub fn end_cleanup(&mut self, key: &PolicyKey) {
        self.deleting.remove(key);
    }

    /// The policies that are being deleted and whose cleanup is not finished.
    pub fn deleting(&self) -> impl Iterator<Item = &PolicyKey> {
        self.deleting.iter()
    }

    /// The annotation of a policy requests a reconcile. `after`: the last ticket before the request.
    pub fn request_reconcile(&mut self, key: &PolicyKey, after: Ticket) {
        self.reconcile_requests.insert(key.clone(), after);
    }

    /// Whether the request of a policy is granted at once: see [`Asks::grant`].
    pub fn grant_reconcile(
        &mut self,
        key: &PolicyKey,
        costs: (Duration, Duration, bool),
        now: Duration,
    ) -> bool {
        self.granted.grant(key, costs, now)
    }

    /// Completes the requests that were made before this list was requested. Returns their policies.
    pub fn complete_reconcile_requests(&mut self, list: Ticket) -> Vec<PolicyKey> {
        let requests = &mut self.reconcile_requests;
        // A list that was requested before may not show what the person has just changed.
        let granted: Vec<PolicyKey> = requests
            .extract_if(.., |_, asked_after| *asked_after < list)
            .map(|(key, _)| key)
            .collect();
        for key in &granted {
            if let Some(entry) = self.all.get_mut(key) {
                entry.finish_request();
            }
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str) -> PolicyKey {
        PolicyKey::new(namespace, "routers")
    }

    fn labels(value: &str) -> Labels {
        [("team".to_owned(), value.to_owned())].into()
    }

    #[test]
    fn a_reconcile_request_is_completed_by_a_list_that_was_requested_later() {
        let mut policies = PolicySet::default();
        policies.request_reconcile(&key("a"), Ticket(3));
        policies.request_reconcile(&key("b"), Ticket(4));
        assert_eq!(policies.complete_reconcile_requests(Ticket(4)), [key("a")]);
        policies.remove(&key("b"));
        assert!(policies.complete_reconcile_requests(Ticket(9)).is_empty());
    }

    #[test]
    fn equal_guardrails_and_labels_change_nothing() {
        let mut policies = PolicySet::default();
        assert!(!policies.set_guardrails(&Guardrails::default()));
        assert!(
            policies
                .set_labels("a".to_owned(), Some(labels("x")))
                .is_empty()
        );
        assert!(policies.set_labels("a".to_owned(), None).is_empty());
    }

    #[test]
    fn a_policy_that_is_gone_leaves_nothing_behind() {
        let mut policies = PolicySet::default();
        policies.note_selector(&key("a"), true);
        policies.begin_cleanup(&key("a"));
        assert!(policies.has_selector(&key("a")));
        assert!(policies.remove(&key("a")).is_none());
        assert!(!policies.has_selector(&key("a")) && policies.deleting().next().is_none());
    }
}
