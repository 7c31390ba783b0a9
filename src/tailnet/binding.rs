//! From policies and the list of devices to the devices that policies manage, each with its plan.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Engine, Now, device_state::DeviceState, policy_entry::PolicyEntry};
use crate::{
    model::NodeId,
    plan::{
        ApprovalState, ApprovalStates, Binding, Bound, DeviceIndex, DevicePlan, PlanContext,
        Policy, PolicyKey, PolicyRecord, Target, bind_policy, may_change, plan_device, recorded,
    },
};

impl PolicyEntry {
    /// The record of the bound device. It stays as before while no device is found; selectors have none.
    fn record_of(&self, binding: Option<&Binding>, index: &DeviceIndex) -> Option<Bound> {
        let before = self.needed_record.bound.clone();
        let Ok(policy) = self.policy.as_ref() else {
            return before;
        };
        if self.is_invalid() {
            return before;
        }
        match (&policy.target, binding) {
            (Target::Selector(_), _) => None,
            (Target::Device(target), Some(Binding::Device(id))) => {
                let device = index.get(id);
                device.map(|device| recorded(target, device)).or(before)
            }
            _ => before,
        }
    }
}

impl Engine {
    /// Finds the devices of a policy again.
    pub(super) fn rebind(&mut self, key: &PolicyKey, now: Timestamp) {
        self.retain(key);
        if let Some(entry) = self.policies.get_mut(key) {
            entry.meet_devices(self.observed.index(), self.observed.lists());
            entry.disown_expired(now);
        }
        let Some(entry) = self.policies.get(key) else {
            return;
        };
        let evaluated = entry.evaluated();
        let binding = self.find_devices(entry, evaluated.as_ref().map(|(matching, _)| matching));
        if binding.is_none() && entry.policy.is_ok() && entry.deleting.is_none() {
            self.observed.compare_soon();
        }
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let selector_errors = evaluated.map(|(_, unknown)| unknown).unwrap_or_default();
        entry.take_evaluated();
        if entry.selector_errors != selector_errors {
            entry.selector_errors = selector_errors;
            self.dirty.report(key);
        }
        // Before the engine forgets anything about the released devices.
        let (index, absence) = (self.observed.index(), self.observed.absence());
        let lacking = |id: &NodeId| index.get(id).is_none_or(|device| device.external);
        entry.release_unmatched_devices(binding.as_ref(), |id| lacking(id) && !absence.is_gone(id));
        entry.release_unmatched(
            binding.as_ref(),
            self.observed.index(),
            self.observed.lists(),
        );
        let recorded = entry.record_of(binding.as_ref(), self.observed.index());
        if entry.needed_record.bound != recorded {
            entry.needed_record.bound = recorded;
            self.dirty.report(key);
        }
        let too_many = entry.hold(binding.as_ref());
        let selects = entry.deleting.is_none() && entry.selector().is_some();
        self.policies.note_selector(key, selects);
        self.refuse_many(key, too_many);
        self.track_released(key);
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        if entry.binding == binding {
            return;
        }
        let before = std::mem::replace(&mut entry.binding, binding.clone());
        self.dirty.report(key);
        let targets = |binding: &Option<Binding>, id: &NodeId| {
            binding.as_ref().is_some_and(|binding| binding.holds(id))
        };
        for id in before.iter().flat_map(Binding::nodes) {
            if !targets(&binding, id) {
                self.release_binding(id, key);
            }
        }
        for id in binding.iter().flat_map(Binding::nodes) {
            if !targets(&before, id) {
                self.adopt_device(id, key);
            }
        }
    }

    /// The devices that a policy targets now; `None` while that cannot be decided.
    fn find_devices(
        &self,
        entry: &PolicyEntry,
        matching: Option<&BTreeSet<NodeId>>,
    ) -> Option<Binding> {
        let policy = entry.policy.as_ref().ok()?;
        if entry.deleting.is_some() {
            return None;
        }
        if policy.selector().is_some() {
            return matching.cloned().map(Binding::Selector);
        }
        // No other device takes the place of the bound one before that is proven gone.
        let lacking = |id: &&NodeId| {
            self.observed
                .index()
                .get(id)
                .is_none_or(|device| device.external)
        };
        let bound = entry.bound_node();
        let lost = bound
            .filter(lacking)
            .filter(|id| !self.observed.absence().is_gone(id));
        if let Some(id) = lost {
            let is_reported = self
                .observed
                .absence()
                .is_reported(id, self.observed.lists());
            return is_reported.then(|| Binding::Missing(id.clone()));
        }
        let binding = bind_policy(
            policy,
            &entry.needed_record,
            &entry.approvals,
            self.observed.index(),
        );
        let claimed = matches!(
            &policy.target,
            Target::Device(target) if may_change(&target.identity)
        );
        // Another device may have the name too, and be missing from the first list.
        let found = match &binding {
            Binding::Device(id) | Binding::Unmet { node: id, .. } => Some(id),
            _ => None,
        };
        let new = found.filter(|id| bound != Some(*id) && !entry.approvals.nodes.contains(*id));
        (!claimed || new.is_none() || self.can_compare_lists()).then_some(binding)
    }

    /// Adopts a device that a policy targets now.
    pub(super) fn adopt_device(&mut self, id: &NodeId, key: &PolicyKey) {
        let node = self.devices.get_or_add(id);
        node.policies.insert(key.clone());
        if let Some(entry) = self.policies.get_mut(key) {
            entry.reclaim(id);
        }
        self.dirty.plan(id);
    }

    /// Releases a device that a policy no longer targets.
    pub(super) fn release_binding(&mut self, id: &NodeId, key: &PolicyKey) {
        if let Some(entry) = self.policies.get_mut(key) {
            entry.drop_device(id);
            let next = entry.end_turn(id);
            self.dirty.plan_all(next);
        }
        if let Some(node) = self.devices.get_mut(id) {
            node.policies.remove(key);
            self.dirty.plan(id);
        }
    }

    /// Plans all dirty devices. The plan of one device may make others dirty.
    pub(super) fn plan_dirty(&mut self, now: Now) {
        while self.dirty.has_plans() {
            for id in self.dirty.take_plans() {
                self.plan_again(&id, now);
            }
        }
    }

    /// Plans a device: compares it with everything that its policies declare.
    pub(super) fn plan_again(&mut self, id: &NodeId, now: Now) {
        self.confirm_deletions(id, now);
        let Some(node) = self.devices.get(id) else {
            return;
        };
        if node.all_policies().next().is_none() {
            self.change_budget.note(id, &BTreeSet::new());
            let busy = node.busy > 0;
            self.drop_claims(id);
            if !busy {
                self.forget(id);
            } else if let Some(node) = self.devices.get_mut(id) {
                // No policy targets it any longer, so nothing more is sent to it.
                node.plan = DevicePlan::default();
            }
            return;
        }
        self.dirty.report_all(node.all_policies().cloned());
        self.dirty.step(id);
        self.update_ownership(id, now);
        self.update_actions(id, now);
        self.plan_one(id, now);
        self.adopt_keys(id, now);
        self.dirty.manage_routes(id);
        self.begin_expiries(id);
        if self.drop_cleared(id, now) {
            self.plan_again(id, now);
        }
    }

    fn plan_one(&mut self, id: &NodeId, now: Now) {
        let (Some(device), Some(node)) = (self.observed.index().get(id), self.devices.get(id))
        else {
            self.change_budget.note(id, &BTreeSet::new());
            // A missing device gets no one-shot action.
            if let Some(node) = self.devices.get_mut(id) {
                node.plan
                    .differences
                    .retain(|difference| !difference.is_action());
            }
            return;
        };
        let attributes = node.attributes.as_ref().map(|reading| &reading.values);
        let policies: Vec<(&Policy, &PolicyRecord)> = node
            .policies
            .iter()
            .filter_map(|key| self.policies.get(key))
            .filter(|entry| !entry.too_many)
            .filter_map(|entry| Some((entry.policy.as_ref().ok()?, &entry.needed_record)))
            .collect();
        let released = self.due(node, id);
        let turns = node.policies.iter().filter(|key| {
            let entry = self.policies.get(key);
            entry.is_some_and(|entry| entry.actions.has_turn(id))
        });
        let turns: BTreeSet<PolicyKey> = turns.cloned().collect();
        let context = PlanContext {
            index: self.observed.index(),
            approvals: &self.approval_states(id, node),
            tailnet_wide: &self.tailnet_wide,
            now: now.wall,
            released: &released,
            turns: &turns,
            guardrails: self.policies.guardrails(),
        };
        let plan = plan_device(device, attributes, &policies, &context);
        self.change_budget.note(id, &plan.desired_by);
        for key in node.all_policies() {
            if let Some(entry) = self.policies.get_mut(key) {
                entry.drop_changed(key, id, &plan);
            }
        }
        if let Some(node) = self.devices.get_mut(id) {
            node.plan = plan;
            self.observed.set_readers(id, node.reading_namespaces());
        }
        self.note_claims(id);
        self.check_effect(id, now);
    }

    /// The approved changes of a device's policies, and which policies the change limit holds there.
    fn approval_states<'a>(&'a self, id: &NodeId, node: &'a DeviceState) -> ApprovalStates<'a> {
        let policies = node.all_policies();
        let approval_states = policies.filter_map(|key| {
            let entry = self.policies.get(key)?;
            let state = ApprovalState {
                limited: match &self.gate.approved_plan() {
                    Some(approved) => approved.limited.contains(key),
                    None => self.change_budget.holds(id, key),
                },
                approved: entry.approved.of(id),
                exempt_from_limit: entry.approved_over_limit.of(id),
            };
            Some((key, state))
        });
        let approved = self.gate.approved_plan().map(|approved| &approved.changes);
        let approval_states = approval_states.collect::<ApprovalStates<'_>>();
        approval_states
            .only(approved)
            .with_clock_skew(self.observed.clock_skew())
    }

    fn forget(&mut self, id: &NodeId) {
        self.devices.remove(id);
        self.observed.set_readers(id, BTreeSet::new());
        self.dirty.forget_device(id);
        self.queues.remove(id);
    }

    /// Plans the devices whose time has come: an expiry may have passed meanwhile.
    pub(super) fn fire_timers(&mut self, now: Duration) {
        let fired = self.devices.take_fired(now);
        self.dirty.plan_all(fired);
    }
}
