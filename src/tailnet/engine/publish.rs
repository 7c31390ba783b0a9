//! Last phase: emits what has changed. Decides nothing.

use super::{notify::notify, policy_report::Reports};
use crate::{
    plan::{PolicyKey, Refusal},
    tailnet::{
        Effect, Notification, Settings, State, change_budget::ChangeBudget, devices::Devices,
        dirty::Dirty, gate::Gate, lanes::Queues, matching::Matching, observed::Observed,
        outbox::Outbox, policy_entry::PolicyEntry, policy_set::PolicySet, records::Records,
        status_book::StatusBook,
    },
};

/// What this phase reads and changes.
pub(super) struct Publishing<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e Observed,
    pub policies: &'e mut PolicySet,
    pub matching: &'e Matching,
    pub devices: &'e Devices,
    pub queues: &'e Queues,
    pub change_budget: &'e ChangeBudget,
    pub records: &'e Records,
    pub dirty: &'e Dirty,
    pub statuses: &'e mut StatusBook,
    pub outbox: &'e mut Outbox,
}

impl Publishing<'_> {
    /// Emits those of the due reports that have changed. While stopping too, as the last requests must be reported.
    pub(super) fn publish(&mut self, due: Vec<PolicyKey>) {
        if !self.gate.leads() {
            return;
        }
        for key in due {
            // Before the report, whose record says that the Event was emitted.
            self.report_missed(&key);
            let Some(report) = self.reports().report(&key) else {
                continue;
            };
            let is_refused = matches!(report.state, State::NotAllowed(_));
            let Some(offered) = self.statuses.offer(&key, report) else {
                continue;
            };
            if is_refused && offered.is_new_state {
                self.notify_refusal(&key);
            }
            self.outbox.report(Effect::Report(key, offered.report));
        }
        // After all reports: the next list begins another round of corrections.
        self.statuses.note_list(self.observed.lists());
        let report = self.reports().tailnet_report();
        if let Some(report) = self.statuses.offer_tailnet(report) {
            self.outbox.report(Effect::Tailnet(report));
        }
    }

    /// Emits the Event that a policy is not allowed.
    fn notify_refusal(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get(key) else {
            return;
        };
<<<<<<< HEAD
        if let Err(Refusal::NotAllowed(forbidden)) = entry.policy() {
            let notification = Notification::Refused(forbidden.clone());
            notify(self.gate, self.outbox, key, notification);
=======
        let released = || entry.needed_record().managed.released_devices();
        let at_rest = match &state {
            State::Bound(device) => !device.working,
            State::Selector(fleet) => fleet.working == 0,
            State::Deleting(_) => true,
            _ => false,
        } && !released().into_iter().any(|id| self.is_working(id));
        Some(PolicyReport {
            uid: entry.uid().to_owned(),
            held: self.held_plan_of(key),
            approval_errors: self.approval_errors(key, at_rest && self.can_compare_lists()),
            generation: entry.generation(),
            record: entry.needed_record().clone(),
            owned: Arc::clone(entry.owned_record()),
            unrecorded: entry.unrecorded(),
            changed_at: entry.changed_at(),
            mode: entry
                .policy()
                .as_ref()
                .map(|policy| policy.mode)
                .unwrap_or_default(),
            clearing: self.clear_report(key),
            actions: self.action_report(key),
            within: entry
                .policy()
                .as_ref()
                .ok()
                .and_then(|policy| policy.allowance.devices()),
            state,
        })
    }

    fn binding_state(&self, key: &PolicyKey, target: &Target, binding: &Binding) -> Option<State> {
        let identity = match target {
            Target::Device(target) => &target.identity,
            Target::Selector(_) => {
                return Some(State::Selector(Box::new(
                    self.selector_report(key, binding),
                )));
            }
        };
        let bound = binding.nodes().next();
        if let Some(missing) = bound.filter(|id| {
            self.observed
                .absence()
                .is_reported(id, self.observed.lists())
        }) {
            return Some(State::Unbound {
                named: identity.to_string(),
                binding: Binding::Missing(missing.clone()),
                differences: Vec::new(),
            });
        }
        let bound = bound.filter(|_| binding.taken_over().is_none());
        let Some(mut report) = bound.and_then(|id| self.device_report(key, id)) else {
            let taken_over = binding.taken_over().and_then(|id| self.devices.get(id));
            let differences = taken_over.map(|node| node.plan().disclosed(key).collect());
            return Some(State::Unbound {
                named: identity.to_string(),
                binding: binding.clone(),
                differences: differences.unwrap_or_default(),
            });
        };
        report.successor = self.matching.successor(key).map(|node| Successor {
            node: node.clone(),
            can_be_approved: may_change(identity),
        });
        let can_wait = report.working && !self.must_record(key) && !self.gate.is_stopping();
        (!can_wait).then(|| State::Bound(Box::new(report)))
    }

    pub(super) fn device_report(&self, key: &PolicyKey, id: &NodeId) -> Option<DeviceReport> {
        let node = self.devices.get(id)?;
        let device = self.observed.index().get(id)?;
        let plan = node.plan();
        let claims = plan.owners.observed.get(key).unwrap_or(&plan.owners);
        let expired = claims.expired.iter().filter(|(_, of)| of == key);
        let mut differences: Vec<_> = plan.disclosed(key).collect();
        self.name_frozen_plan(key, &mut differences);
        Some(DeviceReport {
            successor: None,
            node: id.clone(),
            label: device.label().to_string(),
            working: !self.queues.is_idle(id)
                || self.dirty.awaits_step(id)
                || node.retries_quietly(),
            unread: !plan.complete(),
            waits: self.unsent(key, id),
            differences,
            conflicts: plan.conflicts_of(key).cloned().collect(),
            expired: expired.map(|(attribute, _)| attribute.clone()).collect(),
            failures: node.failures(key).collect(),
        })
    }

    fn tailnet_report(&self) -> TailnetReport {
        let failure = self
            .gate
            .disconnected()
            .or(self.observed.polling().failure());
        TailnetReport {
            failure: failure.cloned(),
            domain: self.observed.index().domain(),
            devices: (self.observed.lists() > 0).then(|| self.observed.index().own_count()),
            unreadable: self.observed.unreadable(),
            suspended: self.policies.guardrails().suspended(),
            policies: self.policies.len(),
            flapping: self.matching.flapping().count(),
            missing_scopes: self.gate.missing_scopes().clone(),
            attributes_interval: self.refresh(),
            limited: self.limited_policies(),
            limited_total: self.change_budget.held().len(),
            recent: self.change_budget.recent().cloned(),
            reserved: self.change_budget.reservations().devices(),
            deletions: self.change_budget.deletions().recent(),
            revision: self.change_budget.reservations().revision(),
            clock_skew: self.observed.clock_skew(),
            approval_errors: self.tailnet_approval_errors(),
>>>>>>> a77bba2 (Report each value that does not hold with its cause)
        }
    }

    /// Emits the Event about a missed expiry.
    fn report_missed(&mut self, key: &PolicyKey) {
        let entry = self.policies.get_mut(key);
        if let Some(missed) = entry.and_then(PolicyEntry::take_missed) {
            notify(self.gate, self.outbox, key, Notification::Missed(missed));
        }
    }

    const fn reports(&self) -> Reports<'_> {
        Reports {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            matching: self.matching,
            devices: self.devices,
            queues: self.queues,
            change_budget: self.change_budget,
            records: self.records,
            dirty: self.dirty,
        }
    }
}
