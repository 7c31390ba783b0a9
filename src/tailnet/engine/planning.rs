//! Third phase: from devices to plans, until no plan changes another one.

use std::{collections::BTreeSet, time::Duration};

use super::Engine;
use crate::{
    model::{Attributes, NodeId},
    plan::{ApprovalStates, PlanContext, Policy, PolicyKey, PolicyRecord, plan_device},
    tailnet::{Notification, Now, Settings, device_state::DeviceState, mutants::mutant},
};

impl Engine {
    /// Plans the dirty devices, and holds what exceeds the change limit.
    pub(super) fn plan(&mut self, now: Now) {
        // First, so that the plans contain what was approved.
        self.use_approvals();
        self.plan_dirty(now);
        self.share_reads();
        self.apply_limit(now);
        self.manage_fields();
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
    fn plan_again(&mut self, id: &NodeId, now: Now) {
        self.confirm_deletions(id, now);
        let Some(node) = self.devices.get(id) else {
            return;
        };
        if node.all_policies().next().is_none() {
            self.change_budget.note(id, &BTreeSet::new());
            let busy = node.is_busy();
            self.drop_claims(id);
            if !busy {
                self.forget(id);
            } else if let Some(node) = self.devices.get_mut(id) {
                node.drop_plan();
            }
            return;
        }
        self.dirty.report_all(node.all_policies().cloned());
        self.dirty.step(id);
        // The plan needs the owned keys and the turns; the keys to adopt come from the plan.
        self.update_ownership(id, now);
        self.update_actions(id, now);
        self.plan_one(id, now);
        self.adopt_keys(id, now);
        self.dirty.manage_fields(id);
        self.begin_expiries(id);
        if self.drop_cleared(id, now) {
            self.plan_again(id, now);
        }
    }

    fn plan_one(&mut self, id: &NodeId, now: Now) {
        let (Some(device), Some(node)) = (self.observed.index().get(id), self.devices.get(id))
        else {
            self.change_budget.note(id, &BTreeSet::new());
            if let Some(node) = self.devices.get_mut(id) {
                node.drop_actions();
            }
            return;
        };
        let attributes = node.attributes();
        let attributes =
            attributes.or(mutant!(UnknownIsEmpty).then_some(const { &Attributes::new() }));
        let policies: Vec<(&Policy, &PolicyRecord)> = node
            .policies()
            .iter()
            .filter_map(|key| self.policies.get(key))
            .filter(|entry| !entry.targets().has_too_many())
            .filter_map(|entry| Some((entry.policy().as_ref().ok()?, entry.needed_record())))
            .collect();
        let released = self.due(node, id);
        let turns = node.policies().iter().filter(|key| {
            let entry = self.policies.get(key);
            entry.is_some_and(|entry| entry.deletion_queue().has_turn(id))
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
                entry.approval_mut().drop_changed(key, id, &plan);
            }
        }
        if let Some(node) = self.devices.get_mut(id) {
            node.set_plan(plan);
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
            let limited = match &self.gate.approved_plan() {
                Some(approved) => approved.limited.contains(key),
                None => self.change_budget.holds(id, key),
            };
            Some((key, entry.approval().state(id, limited)))
        });
        let approved = self.gate.approved_plan().map(|approved| &approved.changes);
        let approval_states = approval_states.collect::<ApprovalStates<'_>>();
        approval_states
            .only(approved)
            .with_clock_skew(self.observed.clock_skew())
    }

    pub(super) fn forget(&mut self, id: &NodeId) {
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

    /// Uses the approvals that match a frozen plan. The record of a used approval must be durable before the
    /// first request for it ([`crate::plan::PolicyRecord::covers`]).
    fn use_approvals(&mut self) {
        // Only the leader can record that an approval was used.
        if !self.gate.leads() {
            return;
        }
        for key in self.dirty.take_approvals() {
            let Some(entry) = self.policies.get_mut(&key) else {
                continue;
            };
            let Some(plan) = entry.use_approval(self.change_budget.approvals()) else {
                continue;
            };
            self.dirty.plan_all(plan.open().nodes().cloned());
            let held_plan = self.held_plan(&key, &plan);
            self.notify(&key, Notification::Approved(held_plan));
            self.dirty.report(&key);
        }
    }

    /// Computes the intervals of reads again, if the devices to read have changed.
    fn share_reads(&mut self) {
        let Settings {
            attributes_interval,
            requests_per_second,
            ..
        } = self.settings;
        self.observed
            .share_reads(attributes_interval, requests_per_second);
    }
}
