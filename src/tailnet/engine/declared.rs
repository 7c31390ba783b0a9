//! Intake of what people declare: policies, settings, guardrails, labels of namespaces, and approvals; and of
//! the terms of leadership.

use super::{
    claims::redeclare, deleting::begin_cleanup, evaluation::end_evaluation,
    release::forget_released, send::drop_halves, targeting::release_binding,
};
use crate::{
    model::NodeId,
    plan::{Labels, PolicyInput, PolicyKey, TailnetWide},
    tailnet::{
        Now, Settings, Term,
        change_budget::{ChangeBudget, TailnetDeclared},
        devices::Devices,
        dirty::Dirty,
        gate::Gate,
        matching::Matching,
        mutants::mutant,
        observed::Observed,
        outbox::Outbox,
        policy_entry::PolicyEntry,
        policy_set::PolicySet,
        read_shares::ReadShares,
        status_book::StatusBook,
    },
};

/// What people can change.
pub(super) struct Declarations<'e> {
    pub settings: &'e mut Settings,
    pub gate: &'e mut Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e mut PolicySet,
    pub matching: &'e mut Matching,
    pub tailnet_wide: &'e mut TailnetWide,
    pub devices: &'e mut Devices,
    pub change_budget: &'e mut ChangeBudget,
    pub dirty: &'e mut Dirty,
    pub statuses: &'e mut StatusBook,
    pub outbox: &'e mut Outbox,
}

impl Declarations<'_> {
    /// Takes other settings of the tailnet.
    pub(super) fn take_settings(&mut self, settings: Settings, now: Now) {
        if settings == *self.settings {
            return;
        }
        self.take_guardrails(&settings);
        *self.settings = settings;
        // The ages at which things are read again may have changed.
        self.dirty.step_all(self.devices.ids().cloned());
        self.observed.poll_now(now.monotonic);
    }

    /// Takes a policy that is new or was edited.
    pub(super) fn take_policy(&mut self, mut declared: PolicyInput, now: Now) {
        let key = declared.key.clone();
        let known = self.policies.get_mut(&key);
        // Another uid is another object with the same name: it inherits nothing.
        let Some(entry) = known.filter(|entry| entry.uid() == declared.uid) else {
            self.take_new_policy(declared, now);
            return;
        };
        // Only an edited spec raises the generation: annotations and the status leave it as it is.
        let is_edited = entry.generation() != declared.generation;
        let redeclared = entry.redeclare(&mut declared);
        if redeclared.has_lost_finalizer {
            self.statuses.forget(&key);
            self.dirty.report(&key);
        }
        if redeclared.has_other_approvals {
            self.dirty.approve(&key);
            self.dirty.rebind(&key);
            self.dirty.report(&key);
        }
        if is_edited {
            self.take_edited_policy(declared);
        }
        if redeclared.asks {
            self.request_reconcile(&key, now);
        }
    }

    fn take_new_policy(&mut self, declared: PolicyInput, now: Now) {
        let (key, deleting) = (declared.key.clone(), declared.deleting);
        self.drop_policy(&key);
        self.dirty.rebind(&key);
        self.dirty.report(&key);
        let known = declared.status_state.readable.as_ref();
        let policy = self.policies.admit(&declared.policy, known);
        let entry = PolicyEntry::new(declared, policy);
        let asks = entry.asks_for_reconcile();
        redeclare(
            self.tailnet_wide,
            self.policies,
            self.dirty,
            None,
            entry.policy().as_deref().ok(),
        );
        self.policies.insert(key.clone(), entry);
        begin_cleanup(self.policies, self.dirty, &key, deleting);
        if asks {
            self.request_reconcile(&key, now);
        }
    }

    fn take_edited_policy(&mut self, declared: PolicyInput) {
        let key = declared.key;
        let known = self.policies.get(&key).and_then(PolicyEntry::last_valid);
        let policy = self.policies.admit(&declared.policy, known);
        let after = policy.as_ref().ok().cloned();
        let entry = self.policies.get_mut(&key);
        let before = entry
            .map(|entry| entry.edit(declared.generation, declared.policy, policy))
            .and_then(Result::ok);
        redeclare(
            self.tailnet_wide,
            self.policies,
            self.dirty,
            before.as_deref(),
            after.as_deref(),
        );
        self.take_edit(&key);
        begin_cleanup(self.policies, self.dirty, &key, declared.deleting);
    }

    fn take_edit(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        entry.set_urgent(true);
        self.matching.forget_moves(key);
        // The frozen plan and the approved changes belong to the previous spec.
        entry.approval_mut().discard();
        // What cannot be read answers no earlier failure: what the API has refused must not take precedence again.
        let is_answer = entry.policy().as_ref().is_ok_and(|it| !it.is_invalid());
        for id in entry
            .nodes()
            .chain(entry.needed_record().managed.released_devices())
        {
            if let Some(node) = self.devices.get_mut(id) {
                if is_answer {
                    node.note_edit(key);
                }
                self.dirty.plan(id);
            }
        }
        self.dirty.report(key);
        self.dirty.rebind(key);
    }

    /// Forgets a policy that is gone.
    pub(super) fn drop_policy(&mut self, key: &PolicyKey) {
        end_evaluation(self.matching, self.policies, self.devices, self.dirty, key);
        if let Some(entry) = self.policies.remove(key) {
            redeclare(
                self.tailnet_wide,
                self.policies,
                self.dirty,
                entry.policy().as_deref().ok(),
                None,
            );
            for id in entry.nodes() {
                release_binding(self.policies, self.devices, self.dirty, id, key);
            }
            forget_released(
                self.devices,
                self.dirty,
                key,
                &entry.needed_record().managed,
            );
        }
        self.matching.forget_moves(key);
        self.dirty.forget_policy(key);
        self.statuses.forget(key);
    }

    /// Starts a term of leadership, or ends one. A new leader reads everything again before the first write,
    /// as the previous leader may have changed something a moment ago. Only stored statuses count as records:
    /// neither what this process found while it only watched, nor what it recorded in an earlier term, as
    /// another leader may have released it since.
    pub(super) fn take_term(&mut self, term: Option<Term>, now: Now) {
        if !self.gate.set_term(term) {
            return;
        }
        self.statuses.forget_tailnet();
        self.start_counting(now);
        if term.is_none() {
            return;
        }
        self.policies.restart_cleanup();
        self.statuses.forget_policies();
        for entry in self
            .policies
            .values_mut()
            .filter(|_| !mutant!(RecordsOutliveTheirTerm))
        {
            entry.start_term();
        }
        let asking: Vec<PolicyKey> = self
            .policies
            .iter()
            .filter(|(_, entry)| entry.asks_for_reconcile())
            .map(|(key, _)| key.clone())
            .collect();
        for key in asking {
            self.request_reconcile(&key, now);
        }
        self.start_over(now);
        // No list will arrive, so nothing else would trigger the reports of the failure.
        if !self.gate.is_connected() {
            self.dirty.report_all(self.policies.keys().cloned());
        }
    }

    /// Forgets everything that was read, and reads it again.
    pub(super) fn start_over(&mut self, now: Now) {
        // They were decided from what is forgotten now.
        drop_halves(self.devices, self.dirty, self.outbox);
        self.observed.restart(now.monotonic);
        self.devices.forget_reads();
        self.dirty.plan_all(self.devices.ids().cloned());
        self.dirty.rebind_all(self.policies.keys().cloned());
    }

    /// Takes the guardrails of new settings.
    fn take_guardrails(&mut self, settings: &Settings) {
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
        let policy = self.policies.admit(entry.declared(), entry.last_valid());
        // An edit discards the frozen plan, so a policy that stays as it was must not count as edited.
        if policy == *entry.intended() {
            return;
        }
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let after = policy.as_ref().ok().cloned();
        let before = entry.replace(policy);
        redeclare(
            self.tailnet_wide,
            self.policies,
            self.dirty,
            before.as_deref().ok(),
            after.as_deref(),
        );
        self.take_edit(key);
    }

    /// Takes the approvals and the record of the tailnet's object.
    pub(super) fn take_tailnet(&mut self, declared: TailnetDeclared, now: Now) {
        let budget = &mut *self.change_budget;
        if budget.declare(declared) {
            self.dirty.approve_all(budget.held().iter().cloned());
        }
        if self.gate.leads() {
            budget.take_over(now);
        }
    }

    /// A new leader counts the changes of the previous one.
    fn start_counting(&mut self, now: Now) {
        self.change_budget.start_term();
        if self.gate.leads() {
            self.change_budget.take_over(now);
        }
    }

    /// Polls at once for a policy, and reads the attributes of its devices. The next poll answers policies
    /// that request too often, and policies that are not allowed.
    pub(super) fn request_reconcile(&mut self, key: &PolicyKey, now: Now) {
        self.policies
            .request_reconcile(key, self.outbox.last_ticket());
        let Some(entry) = self
            .policies
            .get(key)
            .filter(|entry| entry.policy().is_ok())
        else {
            return;
        };
        let to_read: Vec<NodeId> = entry
            .nodes()
            .filter(|id| {
                let node = self.devices.get(id);
                node.is_some_and(|node| node.plan().owners.need_attributes())
            })
            .cloned()
            .collect();
        let reads = ReadShares::share_of(to_read.len(), self.settings.requests_per_second);
        let is_due = self.observed.polling().comes_at_once(now.monotonic);
        let given = (self.settings.poll_interval, reads, is_due);
        if !self.policies.grant_reconcile(key, given, now.monotonic) {
            return;
        }
        for id in to_read {
            if let Some(node) = self.devices.get_mut(&id) {
                node.require_attributes();
                self.dirty.step(&id);
            }
        }
        // While the list fails, its own backoff counts.
        if self.observed.polling().failure().is_none() {
            self.observed.poll_now(now.monotonic);
        }
    }
}
