use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    Abandoned, ActionReport, ClearReport, Effect, Engine, Failure, HeldPlan, LimitedPolicy,
    RecentChanges, RecentDeletions, ReservedDevices, SelectorReport,
};
use crate::{
    model::{AttributeKey, NodeId, Reason},
    plan::{
        Binding, Conflict, Difference, Field, Forbidden, Mode, OwnedRecord, PolicyKey,
        PolicyRecord, Refusal, Target,
    },
    tailscale::Ability,
};

/// The state of a policy; its status is derived from it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyReport {
    /// The uid of the object: not a later object of the same name.
    pub uid: String,
    /// The generation of the spec.
    pub generation: i64,
    /// The record that must survive a restart.
    pub record: PolicyRecord,
    /// The keys that it owns, as its status records them.
    pub owned: Arc<OwnedRecord>,
    /// The number of devices for which the record of keys has no capacity.
    pub unrecorded: usize,
    /// When this process last made a change for it.
    pub changed_at: Option<Timestamp>,
    /// The mode: what the controller does about a difference.
    pub mode: Mode,
    /// The plan that is pending approval.
    pub held: Option<HeldPlan>,
    /// The errors of the approval annotation.
    pub approval_errors: Vec<String>,
    /// The progress of clearing released devices.
    pub clearing: Option<ClearReport>,
    /// The progress of its one-shot actions.
    pub actions: ActionReport,
    /// The devices to which the tailnet's rules limit its namespace, if they do: other devices are not
    /// reported.
    pub within: Option<String>,
    /// The state.
    pub state: State,
}

/// The state of a policy.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Its spec is invalid; all errors.
    Invalid(Vec<String>),
    /// The tailnet does not allow it.
    NotAllowed(Box<Forbidden>),
    /// The first list has not arrived yet.
    Starting,
    /// The API does not answer, or there is no connection.
    Unavailable(Failure),
    /// It targets no device now.
    Unbound {
        /// The identity in the spec.
        named: String,
        /// The result of the lookup.
        binding: Binding,
    },
    /// It manages a device.
    Bound(Box<DeviceReport>),
    /// It selects devices.
    Selector(Box<SelectorReport>),
    /// It targets more devices than can be recorded for clearing.
    TooMany(usize),
    /// It is being deleted. Once its record has no managed devices, the finalizer can be removed. The
    /// settings that it leaves behind, if any.
    Deleting(Option<Box<Abandoned>>),
}

/// The state of a policy's device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    /// The device.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
    /// Work is in progress.
    pub working: bool,
    /// Declared attributes or routes have not been read yet.
    pub unread: bool,
    /// The differences of this policy.
    pub differences: Vec<Difference>,
    /// The fields that other policies override.
    pub conflicts: Vec<Conflict>,
    /// Attributes that are no longer desired, as their expiry has passed.
    pub expired: Vec<AttributeKey>,
    /// The failures by field; failed reads have no field.
    pub failures: Vec<(Option<Field>, Failure)>,
}

/// The state of a tailnet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TailnetReport {
    /// Why the API does not answer or there is no connection, if so.
    pub failure: Option<Failure>,
    /// The domain of its devices' names, once the list has been read: it tells which tailnet this is.
    pub domain: Option<String>,
    /// The number of its own devices, once the list has been read.
    pub devices: Option<usize>,
    /// Nothing is sent for any policy.
    pub suspended: bool,
    /// The policies that name it.
    pub policies: usize,
    /// The number of devices that keep joining and leaving policies, each counted once for each policy.
    pub flapping: usize,
    /// The scopes that the credential is known to lack.
    pub missing_scopes: BTreeSet<Ability>,
    /// How often attributes are read, as the request budget allows.
    pub attributes_interval: Duration,
    /// Some of the policies that the change limit holds.
    pub limited: Vec<LimitedPolicy>,
    /// How many it holds.
    pub limited_total: usize,
    /// The recent changes, once they are known.
    pub recent: Option<Vec<RecentChanges>>,
    /// The devices that may be changed next: another process counts them as changed.
    pub reserved: ReservedDevices,
    /// The deletions of the last day.
    pub deletions: Vec<RecentDeletions>,
    /// The revision of the record; requests wait until it is durable.
    pub revision: u64,
    /// How far the local clock is ahead of the API's, if that is too far.
    pub clock_skew: Option<SignedDuration>,
    /// The errors of the approval annotation.
    pub approval_errors: Vec<String>,
}

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

    /// The record in a report of this object is durable.
    pub(super) fn recorded(&mut self, key: &PolicyKey, uid: &str, record: PolicyRecord) {
        let entry = self.policies.get_mut(key);
        if let Some(entry) = entry.filter(|entry| entry.uid == uid) {
            entry.durable_record = record;
            self.dirty.step_all(entry.nodes().cloned());
            self.dirty.step_all(
                entry
                    .needed_record
                    .managed
                    .released_devices()
                    .into_iter()
                    .cloned(),
            );
        }
    }

    /// The report of a policy; `None` if the last one still holds: before the first list, and while work is
    /// in progress and no record is needed for it.
    pub(super) fn report(&self, key: &PolicyKey) -> Option<PolicyReport> {
        let entry = self.policies.get(key)?;
        let state = match &entry.policy {
            _ if entry.status_state.left_alone || entry.is_set_aside() => return None,
            _ if entry.deleting.is_some() => State::Deleting(entry.abandoned.clone().map(Box::new)),
            _ if let Err(errors) = &entry.declared => State::Invalid(errors.clone()),
            Err(refusal) if self.may_be_allowed_yet(refusal) => return None,
            Err(Refusal::Invalid(errors)) => State::Invalid(errors.clone()),
            Err(Refusal::NotAllowed(forbidden)) => State::NotAllowed(Box::new(forbidden.clone())),
            Ok(_) if entry.too_many => State::TooMany(entry.nodes().count()),
            Ok(policy) => match (self.gate.outage(&self.observed), &entry.binding) {
                // In a moment there is a connection, or the reason why there is none.
                (Some(failure), _) if failure.reason == Reason::Progressing => return None,
                (Some(failure), _) => State::Unavailable(failure.clone()),
                (None, None) if entry.needed_record.bound.is_none() => State::Starting,
                (None, Some(binding)) if self.observed.lists() > 0 => {
                    self.binding_state(key, &policy.target, binding)?
                }
                _ => return None,
            },
        };
        let released = || entry.needed_record.managed.released_devices();
        let at_rest = match &state {
            State::Bound(device) => !device.working,
            State::Selector(fleet) => fleet.working == 0,
            State::Deleting(_) => true,
            _ => false,
        } && !released().into_iter().any(|id| self.is_working(id));
        Some(PolicyReport {
            uid: entry.uid.clone(),
            held: self.held_plan_of(key),
            approval_errors: self.approval_errors(key, at_rest && self.can_compare_lists()),
            generation: entry.generation,
            record: entry.needed_record.clone(),
            owned: Arc::clone(&entry.keys.record),
            unrecorded: entry.keys.unrecorded.len(),
            changed_at: entry.changed_at,
            mode: entry
                .policy
                .as_ref()
                .map(|policy| policy.mode)
                .unwrap_or_default(),
            clearing: self.clear_report(key),
            actions: self.action_report(key),
            within: entry
                .policy
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
        let Some(report) = bound.and_then(|id| self.device_report(key, id)) else {
            return Some(State::Unbound {
                named: identity.to_string(),
                binding: binding.clone(),
            });
        };
        let can_wait = report.working && !self.must_record(key) && !self.gate.is_stopping();
        (!can_wait).then(|| State::Bound(Box::new(report)))
    }

    pub(super) fn device_report(&self, key: &PolicyKey, id: &NodeId) -> Option<DeviceReport> {
        let node = self.devices.get(id)?;
        let device = self.observed.index().get(id)?;
        let plan = &node.plan;
        let claims = plan.owners.observed.get(key).unwrap_or(&plan.owners);
        let conflicts = claims.conflicts.iter().filter(|c| c.overridden == *key);
        let expired = claims.expired.iter().filter(|(_, of)| of == key);
        let mut differences: Vec<_> = plan.disclosed(key).collect();
        self.name_frozen_plan(key, &mut differences);
        Some(DeviceReport {
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

    pub(super) fn tailnet_report(&self) -> TailnetReport {
        let failure = self
            .gate
            .disconnected()
            .or(self.observed.polling().failure());
        TailnetReport {
            failure: failure.cloned(),
            domain: self.observed.index().domain(),
            devices: (self.observed.lists() > 0).then(|| self.observed.index().own_count()),
            suspended: self.policies.guardrails().suspended(),
            policies: self.policies.len(),
            flapping: self.matching.flapping().count(),
            missing_scopes: self.gate.missing_scopes().clone(),
            attributes_interval: self.refresh(),
            limited: self.limited_policies(),
            limited_total: self.change_budget.held.len(),
            recent: self.recent_changes(),
            reserved: self.change_budget.reservations.devices(),
            deletions: self.change_budget.deletions.recent(),
            revision: self.change_budget.reservations.revision(),
            clock_skew: self.observed.clock_skew(),
            approval_errors: self.tailnet_approval_errors(),
        }
    }
}
