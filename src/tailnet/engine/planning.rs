//! Third phase: from devices to plans, until no plan changes another one.

use std::collections::BTreeSet;

use super::{
    actions::{Actions, begin_expiries},
    claims::Claims,
    limit::ChangeLimit,
    notify::notify,
    ownership::{adopt_keys, manage_fields, update_ownership},
    release::{drop_cleared, due},
    writes::Outcomes,
};
use crate::{
    model::{Attributes, NodeId},
    plan::{
        ApprovalStates, ChangeCause, PlanContext, Policy, PolicyKey, PolicyRecord, TailnetWide,
        plan_device,
    },
    tailnet::{
        Notification, Now, Settings, change_budget::ChangeBudget, device_state::DeviceState,
        devices::Devices, dirty::Dirty, gate::Gate, lanes::Queues, mutants::mutant,
        observed::Observed, outbox::Outbox, policy_entry::PolicyEntry, policy_set::PolicySet,
        records::Records,
    },
};

/// How often one step applies the limit at most.
const ROUNDS: u32 = 3;

/// What this phase reads and changes.
pub(super) struct Planning<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e mut PolicySet,
    pub tailnet_wide: &'e mut TailnetWide,
    pub devices: &'e mut Devices,
    pub queues: &'e mut Queues,
    pub change_budget: &'e mut ChangeBudget,
    pub records: &'e mut Records,
    pub dirty: &'e mut Dirty,
    pub outbox: &'e mut Outbox,
    pub rng: &'e mut fastrand::Rng,
}

impl Planning<'_> {
    /// Plans the dirty devices, and holds what exceeds the change limit.
    pub(super) fn plan(&mut self, now: Now) {
        // First, so that the plans contain what was approved.
        self.use_approvals();
        if self.dirty.has_plans() {
            self.change_budget.hold_unsettled(BTreeSet::new());
        }
        self.plan_dirty(now);
        // After the plans, which decide which devices need reads of their own.
        self.share_reads();
        self.apply_limit(now);
        // Last, as a policy manages no field of a change that the limit holds.
        manage_fields(
            self.policies,
            self.devices,
            self.observed,
            self.change_budget,
            self.dirty,
        );
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
            for id in plan.open().nodes() {
                if let Some(node) = self.devices.get_mut(id) {
                    // An approval is a person's answer to every earlier failure, as an edit is.
                    node.forget_backoffs_of(&key);
                }
                self.dirty.plan(id);
            }
            let held_plan = self.limit().held_plan(&key, &plan);
            notify(
                self.gate,
                self.outbox,
                &key,
                Notification::Approved(held_plan),
            );
            self.dirty.report(&key);
        }
    }

    /// Plans all dirty devices. The plan of one device may make others dirty.
    fn plan_dirty(&mut self, now: Now) {
        while self.dirty.has_plans() {
            for id in self.dirty.take_plans() {
                self.plan_again(&id, now);
            }
        }
    }

    /// Plans a device: compares it with everything that its policies declare.
    fn plan_again(&mut self, id: &NodeId, now: Now) {
        self.actions().confirm_deletions(id, now);
        let Some(node) = self.devices.get(id) else {
            return;
        };
        if node.all_policies().next().is_none() {
            self.change_budget.note(id, &BTreeSet::new());
            // The answer of a request in flight must find the device, or its change is counted for no policy.
            // And a policy that comes back must not repeat a write whose answer was lost before a read. A device
            // that is gone is never read.
            let is_there = self.observed.index().get(id).is_some();
            let is_open = node.is_busy() || node.must_be_read() && is_there;
            self.claims().drop_claims(id);
            if !is_open {
                self.forget(id);
            } else if let Some(node) = self.devices.get_mut(id) {
                node.drop_plan();
            }
            return;
        }
        self.dirty.report_all(node.all_policies().cloned());
        self.dirty.step(id);
        // The plan needs the owned keys and the turns; the keys to adopt come from the plan.
        update_ownership(
            self.policies,
            self.devices,
            self.observed,
            self.tailnet_wide,
            self.dirty,
            id,
            now,
        );
        self.actions().update_actions(id, now);
        self.plan_one(id, now);
        adopt_keys(self.policies, self.devices, self.records, id, now);
        self.dirty.manage_fields(id);
        begin_expiries(self.gate, self.policies, self.devices, self.dirty, id);
        if drop_cleared(
            self.policies,
            self.devices,
            self.observed,
            self.dirty,
            id,
            now,
        ) {
            // The device may have no policy left, or its settings another owner.
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
            // Its status cannot record them all, so a crash would leave devices that nothing clears.
            .filter(|entry| !entry.targets().has_too_many())
            .filter_map(|entry| Some((entry.policy().as_deref().ok()?, entry.needed_record())))
            .collect();
        // A policy that has released the device still sends requests to clear it.
        let released = due(self.policies, node, id);
        let turns: BTreeSet<PolicyKey> = node
            .policies()
            .iter()
            .filter(|key| {
                let entry = self.policies.get(key);
                entry.is_some_and(|entry| entry.deletion_queue().has_turn(id))
            })
            .cloned()
            .collect();
        let context = PlanContext {
            index: self.observed.index(),
            approvals: &self.approval_states(id, node),
            tailnet_wide: self.tailnet_wide,
            now: now.wall,
            released: &released,
            turns: &turns,
            guardrails: self.policies.guardrails(),
        };
        let plan = plan_device(device, attributes, &policies, &context);
        self.change_budget.note(id, &plan.desired_by);
        // An approval covers the change that was shown, and no other one (docs/decisions/0016).
        for key in node.all_policies() {
            if let Some(entry) = self.policies.get_mut(key) {
                entry.approval_mut().drop_changed(key, id, &plan);
            }
        }
        if let Some(node) = self.devices.get_mut(id) {
            node.set_plan(plan, |key| {
                let entry = self.policies.get(key);
                entry.map_or(ChangeCause::Declared, |it| it.history().cause(device))
            });
            self.observed.set_readers(id, node.reading_namespaces());
        }
        self.claims().note_claims(id);
        // Last: the new plan shows which of the written changes have taken effect.
        self.outcomes().check_effect(id, now);
    }

    /// Computes the intervals of reads again, if the devices to read have changed.
    fn share_reads(&mut self) {
        let Settings {
            attributes_interval,
            requests_per_second,
            ..
        } = *self.settings;
        self.observed
            .share_reads(attributes_interval, requests_per_second);
    }

    /// Decides which policies are held, so that no more devices are changed than the limit allows.
    ///
    /// A held policy has no part in shared lists. That changes the plans of devices, and so which policies
    /// need a change at all. Hence a few rounds.
    fn apply_limit(&mut self, now: Now) {
        let mut ever_held: BTreeSet<PolicyKey> = BTreeSet::new();
        for _ in 0..ROUNDS {
            if !self.apply_limit_once(now) {
                return;
            }
            ever_held.extend(self.change_budget.held().iter().cloned());
        }
        // Some policy needs a change only while another one is held, and the reverse. Without a decision, each
        // record and each status would lead to the next one without end.
        self.change_budget.hold_unsettled(ever_held);
        self.apply_limit_once(now);
    }

    /// Returns whether other policies are held than before.
    fn apply_limit_once(&mut self, now: Now) -> bool {
        let (most, share) = (self.limit().most_changes(), self.limit().namespace_share());
        let concerned = self.change_budget.find_large(most);
        self.dirty.plan_all(concerned);
        let policies = &*self.policies;
        let change = self.change_budget.hold(most, share, |key| {
            let policy = policies.get(key)?.policy().as_deref();
            policy.ok().map(Policy::rank)
        });
        self.dirty.report_all(change.beyond_share);
        if change.held.is_empty() && !self.dirty.has_plans() {
            return false;
        }
        for key in &change.held {
            let wanted = self.change_budget.wanted_by(key);
            self.dirty.plan_all(wanted.cloned());
            // Also devices without differences: a policy that is no longer held manages their fields.
            let held = self.policies.get(key);
            let unmanaged = held.map(PolicyEntry::partly_managed).into_iter();
            self.dirty.manage_fields_all(unmanaged.flatten());
            self.dirty.report(key);
        }
        self.plan_dirty(now);
        true
    }

    /// The approved changes of a device's policies, and which policies the change limit holds there.
    fn approval_states<'a>(&'a self, id: &NodeId, node: &'a DeviceState) -> ApprovalStates<'a> {
        let policies = node.all_policies();
        let approval_states = policies.filter_map(|key| {
            let entry = self.policies.get(key)?;
            let limited = match &self.gate.approved_plan() {
                // `apply` has counted the whole plan before it asked, so nothing is counted again here
                // (docs/decisions/0017).
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

    /// Forgets a device that no policy targets or clears.
    fn forget(&mut self, id: &NodeId) {
        self.devices.remove(id);
        self.observed.set_readers(id, BTreeSet::new());
        self.dirty.forget_device(id);
        self.queues.remove(id);
    }

    const fn limit(&self) -> ChangeLimit<'_> {
        ChangeLimit {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            change_budget: self.change_budget,
        }
    }

    const fn claims(&mut self) -> Claims<'_> {
        Claims {
            observed: self.observed,
            policies: self.policies,
            devices: self.devices,
            tailnet_wide: self.tailnet_wide,
            dirty: self.dirty,
        }
    }

    const fn actions(&mut self) -> Actions<'_> {
        Actions {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            devices: self.devices,
            change_budget: self.change_budget,
            dirty: self.dirty,
            outbox: self.outbox,
        }
    }

    const fn outcomes(&mut self) -> Outcomes<'_> {
        Outcomes {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            tailnet_wide: self.tailnet_wide,
            devices: self.devices,
            dirty: self.dirty,
            outbox: self.outbox,
            rng: self.rng,
        }
    }
}
