//! Last phase: emits what has changed. Decides nothing.

use std::sync::Arc;

use super::Engine;
use crate::{
    model::{NodeId, Reason},
    plan::{ApprovedOn, Binding, PolicyKey, Refusal, Target, may_change},
    tailnet::{
        DETAILS, DeviceReport, Effect, Notification, PolicyReport, State, Successor, TailnetReport,
        change_budget::LimitedPolicy, policy_entry::PolicyEntry,
    },
};

impl Engine {
    /// Emits those of the due reports that have changed. While stopping too, as the last requests must be reported.
    pub(super) fn publish(&mut self, due: Vec<PolicyKey>) {
        if !self.gate.leads() {
            return;
        }
        for key in due {
            self.report_missed(&key);
            let Some(report) = self.report(&key) else {
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
        self.statuses.note_list(self.observed.lists());
        let report = self.tailnet_report();
        if let Some(report) = self.statuses.offer_tailnet(report) {
            self.outbox.report(Effect::Tailnet(report));
        }
    }

    /// The report of a policy; `None` if the last one still holds: before the first list, and while work is
    /// in progress and no record is needed for it.
    pub(super) fn report(&self, key: &PolicyKey) -> Option<PolicyReport> {
        let entry = self.policies.get(key)?;
        let state = match entry.policy() {
            // A status of a newer version is left as it is (docs/decisions/0024).
            _ if entry.is_left_alone() || entry.targets().is_set_aside() => return None,
            _ if entry.is_deleting() => {
                State::Deleting(entry.cleanup().abandoned().cloned().map(Box::new))
            }
            _ if let Err(errors) = entry.declared() => State::Invalid(errors.clone()),
            Err(refusal) if self.may_be_allowed_yet(refusal) => return None,
            Err(Refusal::Invalid(errors)) => State::Invalid(errors.clone()),
            Err(Refusal::NotAllowed(forbidden)) => State::NotAllowed(Box::new(forbidden.clone())),
            Ok(_) if entry.targets().has_too_many() => State::TooMany(entry.nodes().count()),
            Ok(policy) => match (self.gate.outage(&self.observed), entry.targets().binding()) {
                // In a moment there is a connection, or the reason why there is none.
                (Some(failure), _) if failure.reason == Reason::Progressing => return None,
                (Some(failure), _) => State::Unavailable(failure.clone()),
                (None, None) if entry.needed_record().bound.is_none() => State::Starting,
                (None, Some(binding)) if self.observed.lists() > 0 => {
                    self.binding_state(key, &policy.target, binding)?
                }
                _ => return None,
            },
        };
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
            });
        }
        let bound = bound.filter(|_| binding.taken_over().is_none());
        let Some(mut report) = bound.and_then(|id| self.device_report(key, id)) else {
            return Some(State::Unbound {
                named: identity.to_string(),
                binding: binding.clone(),
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
        let conflicts = claims.conflicts.iter().filter(|c| c.overridden == *key);
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
            differences,
            conflicts: conflicts.cloned().collect(),
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
        }
    }

    /// Emits the Event about a missed expiry.
    fn report_missed(&mut self, key: &PolicyKey) {
        let entry = self.policies.get_mut(key);
        if let Some(missed) = entry.and_then(PolicyEntry::take_missed) {
            self.notify(key, Notification::Missed(missed));
        }
    }

    /// Some of the policies that the limit holds.
    fn limited_policies(&self) -> Vec<LimitedPolicy> {
        let limited = self.change_budget.held().iter().take(DETAILS).map(|key| {
            let held = self.policies.get(key);
            let plan = held.and_then(|held| held.approval().frozen_plan());
            let plan = plan.filter(|plan| plan.on == ApprovedOn::Tailnet);
            LimitedPolicy {
                policy: key.clone(),
                devices: plan.map_or_else(
                    || self.change_budget.wanted_by(key).len(),
                    |plan| plan.changes().devices(),
                ),
                hash: plan.map(|plan| plan.hash.clone()),
            }
        });
        limited.collect()
    }
}
