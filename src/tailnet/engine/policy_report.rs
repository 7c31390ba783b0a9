//! The report of a policy.

use std::sync::Arc;

use super::{
    activity::{is_working, must_record},
    limit::ChangeLimit,
    reports::{action_report, approval_errors, clear_report, name_frozen_plan},
};
use crate::{
    model::{NodeId, Reason},
    plan::{Binding, Difference, Field, Impact, PolicyKey, Refusal, Target, may_change},
    tailnet::{
        DeviceReport, PolicyReport, Settings, State, Successor, change_budget::ChangeBudget,
        devices::Devices, dirty::Dirty, gate::Gate, held_plan::HeldPlan, lanes::Queues,
        matching::Matching, observed::Observed, policy_entry::PolicyEntry, policy_set::PolicySet,
        records::Records,
    },
};

/// What reports are made of.
pub(super) struct Reports<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e Observed,
    pub policies: &'e PolicySet,
    pub matching: &'e Matching,
    pub devices: &'e Devices,
    pub queues: &'e Queues,
    pub change_budget: &'e ChangeBudget,
    pub records: &'e Records,
    pub dirty: &'e Dirty,
}

impl Reports<'_> {
    /// The report of a policy; `None` if the last one still holds: before the first list, and while work is
    /// in progress and no record is needed for it.
    pub(super) fn report(&self, key: &PolicyKey) -> Option<PolicyReport> {
        let entry = self.policies.get(key)?;
        let state = self.state(key, entry)?;
        let policy = entry.policy().as_deref().ok();
        let at_rest = self.is_at_rest(entry, &state) && self.gate.can_compare_lists(self.observed);
        Some(PolicyReport {
            uid: entry.uid().to_owned(),
            held: self.held_plan_of(key),
            approval_errors: approval_errors(self.policies, key, at_rest),
            generation: entry.generation(),
            record: entry.record_to_report(),
            owned: Arc::clone(entry.owned_record()),
            unrecorded: entry.unrecorded(),
            changed_at: entry.changed_at(),
            mode: policy.map(|policy| policy.mode).unwrap_or_default(),
            clearing: clear_report(&self.limit(), self.devices, key),
            actions: action_report(self.observed, self.policies, self.devices, key),
            within: policy.and_then(|policy| policy.allowance.devices()),
            state,
        })
    }

    fn state(&self, key: &PolicyKey, entry: &PolicyEntry) -> Option<State> {
        Some(match entry.policy() {
            // A status of a newer version is left as it is (docs/decisions/0024).
            _ if entry.is_left_alone() || entry.targets().is_set_aside() => return None,
            _ if entry.is_deleting() => {
                State::Deleting(entry.cleanup().abandoned().cloned().map(Box::new))
            }
            _ if let Err(errors) = entry.declared() => State::Invalid(errors.clone()),
            Err(refusal) if self.gate.may_be_allowed_yet(refusal) => return None,
            Err(Refusal::Invalid(errors)) => State::Invalid(errors.clone()),
            Err(Refusal::NotAllowed(forbidden)) => State::NotAllowed(Box::new(forbidden.clone())),
            Ok(_) if entry.targets().has_too_many() => State::TooMany(entry.nodes().count()),
            Ok(policy) => match (self.gate.outage(self.observed), entry.targets().binding()) {
                // In a moment there is a connection, or the reason why there is none.
                (Some(failure), _) if failure.reason == Reason::Progressing => return None,
                (Some(failure), _) => State::Unavailable(failure.clone()),
                (None, None) if entry.needed_record().bound.is_none() => State::Starting,
                (None, Some(binding)) if self.observed.lists() > 0 => {
                    self.binding_state(key, &policy.target, binding)?
                }
                _ => return None,
            },
        })
    }

    /// Whether nothing happens on any device that the policy targets or clears.
    fn is_at_rest(&self, entry: &PolicyEntry, state: &State) -> bool {
        let is_quiet = match state {
            State::Bound(device) => !device.working,
            State::Selector(fleet) => fleet.working == 0,
            State::Deleting(_) => true,
            _ => false,
        };
        let mut released = entry.needed_record().managed.released_devices().into_iter();
        is_quiet && !released.any(|id| is_working(self.devices, self.queues, self.dirty, id))
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
        // A single list that lacks the device is not worth a report.
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
        // More happens in a moment, and each report costs a write of the status.
        let can_wait = report.working
            && !must_record(self.policies, self.records, key)
            && !self.gate.is_stopping();
        (!can_wait).then(|| State::Bound(Box::new(report)))
    }

    /// The words for the differences that are disruptive, by device and field.
    pub(super) fn impacts(
        &self,
        differences: &[Difference],
    ) -> impl Iterator<Item = (NodeId, Field, String)> {
        // A key that expires between two polls is reported with the next one.
        let polled_at = self.observed.polling().polled_at();
        differences.iter().filter_map(move |it| {
            let device = self.observed.index().get(&it.node)?;
            let impact = Impact::of(&it.change, device, polled_at?)?;
            Some((it.node.clone(), it.change.field(), impact.to_string()))
        })
    }

    pub(super) fn device_report(&self, key: &PolicyKey, id: &NodeId) -> Option<DeviceReport> {
        let node = self.devices.get(id)?;
        let device = self.observed.index().get(id)?;
        let plan = node.plan();
        let claims = plan.owners.observed.get(key).unwrap_or(&plan.owners);
        let expired = claims.expired.iter().filter(|(_, of)| of == key);
        let mut differences: Vec<_> = plan.disclosed(key).collect();
        name_frozen_plan(&self.limit(), key, &mut differences);
        let impacts = self.impacts(&differences);
        let impacts = impacts.map(|(_, field, words)| (field, words)).collect();
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
            impacts,
            conflicts: plan.conflicts_of(key).cloned().collect(),
            expired: expired.map(|(attribute, _)| attribute.clone()).collect(),
            failures: node.failures(key).collect(),
        })
    }

    /// The plan of a policy that is pending approval.
    pub(super) fn held_plan_of(&self, key: &PolicyKey) -> Option<HeldPlan> {
        let plan = self.policies.get(key)?.approval().frozen_plan()?;
        Some(self.limit().held_plan(key, plan))
    }

    pub(super) const fn limit(&self) -> ChangeLimit<'_> {
        ChangeLimit {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            change_budget: self.change_budget,
        }
    }
}
