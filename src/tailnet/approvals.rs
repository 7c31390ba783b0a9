//! Changes that are pending approval: they are frozen, shown, and sent once somebody approves them.
//!
//! Only this process knows which changes were approved. If it crashes in the middle, the rest is held again
//! under another hash. So an approval never sends a change that it was not meant for.
use super::{Engine, Notification, policy_entry::PolicyEntry};
use crate::{
    model::NodeId,
    plan::{
        ApprovedOn, Binding, Change, Changes, DevicePlan, Difference, Field, FrozenPlan, Hold,
        Mode, PlanHash, Policy, PolicyKey, Target,
    },
};

/// The number of errors of an annotation that a status reports.
const MAX_NAMED: usize = 20;

/// A frozen plan that is pending approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPlan {
    /// The hash that an approval names.
    pub hash: PlanHash,
    /// Where the approval is written.
    pub on: ApprovedOn,
    /// The number of changes.
    pub changes: usize,
    /// The number of devices.
    pub devices: usize,
    /// The number of changes that are still needed as frozen; only these are sent.
    pub open: usize,
    /// The number of devices that may be changed within an hour, if this limit holds the plan.
    pub limit: Option<usize>,
    /// The share of its namespace in that limit, if the share holds the plan.
    pub share: Option<usize>,
}

impl PolicyEntry {
    /// Discards the frozen plan and the approved changes.
    pub fn discard(&mut self) {
        self.frozen_plan = None;
        self.approved = Changes::default();
        self.approved_over_limit = Changes::default();
    }

    /// Drops changes that are no longer needed or that have become different ones: the approval does not
    /// cover them, not even later, and the frozen plan does not send them. Fields that have not been read
    /// count as unchanged.
    pub fn drop_changed(&mut self, key: &PolicyKey, id: &NodeId, plan: &DevicePlan) {
        let unread = |change: &Change| match change.field() {
            Field::Attribute(_) => plan.attributes_unread,
            Field::EnabledRoutes | Field::ExitNode => plan.routes_unread,
            _ => false,
        };
        let asked = |change: &Change| {
            let mut asked = plan.asked.iter();
            asked.any(|(policy, asked)| policy == key && asked == change)
        };
        let same = |change: &Change| unread(change) || asked(change);
        self.approved.retain(id, same);
        self.approved_over_limit.retain(id, same);
        if let Some(plan) = &mut self.frozen_plan {
            plan.compare(id, asked, unread);
        }
        self.frozen_plan.take_if(|plan| plan.open().is_empty());
    }

    /// An approved change was made. If the field differs again, that is a new difference that needs its own
    /// approval.
    pub fn done(&mut self, difference: &Difference) {
        let other = |change: &Change| change.field() != difference.change.field();
        self.approved.retain(&difference.node, other);
        self.approved_over_limit.retain(&difference.node, other);
    }

    /// Drops the changes of a device that the policy no longer targets.
    pub fn drop_device(&mut self, id: &NodeId) {
        self.approved.retain(id, |_| false);
        self.approved_over_limit.retain(id, |_| false);
        if let Some(plan) = &mut self.frozen_plan {
            plan.compare(id, |_| false, |_| false);
        }
        self.frozen_plan.take_if(|plan| plan.open().is_empty());
    }
}

impl Engine {
    /// Freezes the held changes of a policy, once everything else is sent and all devices are read.
    pub(super) fn freeze(&mut self, key: &PolicyKey) {
        let is_limited = self.change_budget.held.contains(key);
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        entry
            .frozen_plan
            .take_if(|plan| plan.on == ApprovedOn::Tailnet && !is_limited);
        let Some(plan) = self.held_of(key, is_limited) else {
            return;
        };
        // The first list may lack some of the devices, so the plan may be incomplete.
        if !self.can_compare_lists() {
            self.observed.compare_soon();
            return;
        }
        let held_plan = self.held_plan(key, &plan);
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let is_new = entry.needed_record.held.as_ref() != Some(&plan.hash);
        entry.needed_record.held = Some(plan.hash.clone());
        entry.frozen_plan = Some(plan);
        self.dirty.approve(key);
        if is_new {
            self.notify(key, Notification::Held(held_plan));
        }
    }

    /// The held changes of a policy that are not frozen yet; `None` while they may still change.
    fn held_of(&self, key: &PolicyKey, is_limited: bool) -> Option<FrozenPlan> {
        let entry = self.policies.get(key)?;
        let policy = entry.policy.as_ref().ok()?;
        if entry.frozen_plan.is_some() || !(policy.mode == Mode::Approve || is_limited) {
            return None;
        }
        let (mut on_policy, mut on_tailnet) = (Changes::default(), Changes::default());
        for id in entry.managed() {
            if self.is_working(id) {
                return None;
            }
            let shown = self
                .devices
                .get(id)
                .into_iter()
                .flat_map(|node| &node.plan.shown);
            for difference in shown.filter(|difference| difference.concerns(key)) {
                let changes = match difference.hold.as_ref().and_then(ApprovedOn::releases) {
                    Some(ApprovedOn::Policy) => &mut on_policy,
                    Some(ApprovedOn::Tailnet) => &mut on_tailnet,
                    None => continue,
                };
                changes.insert(id.clone(), difference.change.clone());
            }
        }
        let used = entry.needed_record.approvals_used;
        let freeze = |on, changes| FrozenPlan::freeze(policy, used, on, changes);
        freeze(ApprovedOn::Tailnet, on_tailnet).or_else(|| freeze(ApprovedOn::Policy, on_policy))
    }

    fn held_plan(&self, key: &PolicyKey, plan: &FrozenPlan) -> HeldPlan {
        let limit = self.most_changes();
        let is_beyond_share = self.change_budget.beyond_share.contains(key);
        let share = self.namespace_share().filter(|_| is_beyond_share);
        HeldPlan {
            hash: plan.hash.clone(),
            on: plan.on,
            changes: plan.changes().count(),
            devices: plan.changes().devices(),
            open: plan.open().count(),
            limit: limit.filter(|_| plan.on == ApprovedOn::Tailnet),
            share: share.filter(|_| plan.on == ApprovedOn::Tailnet),
        }
    }

    /// The plan of a policy that is pending approval.
    pub(super) fn held_plan_of(&self, key: &PolicyKey) -> Option<HeldPlan> {
        let plan = self.policies.get(key)?.frozen_plan.as_ref()?;
        Some(self.held_plan(key, plan))
    }

    /// Uses the approvals that match a frozen plan. The record of a used approval must be durable before the
    /// first request for it ([`crate::plan::PolicyRecord::covers`]).
    pub(super) fn use_approvals(&mut self) {
        if !self.gate.leads() {
            return;
        }
        for key in self.dirty.take_approvals() {
            let Some(entry) = self.policies.get_mut(&key) else {
                continue;
            };
            let (policy, tailnet) = (&entry.approvals.plans, &self.change_budget.approvals.plans);
            let Some(plan) = entry.frozen_plan.take_if(|plan| match plan.on {
                ApprovedOn::Policy => policy.contains(&plan.hash),
                ApprovedOn::Tailnet => tailnet.contains(&plan.hash),
            }) else {
                continue;
            };
            entry.needed_record.approvals_used =
                entry.needed_record.approvals_used.saturating_add(1);
            entry.needed_record.approved = Some(plan.hash.clone());
            self.dirty.plan_all(plan.open().nodes().cloned());
            let held_plan = self.held_plan(&key, &plan);
            if let Some(entry) = self.policies.get_mut(&key) {
                match plan.on {
                    ApprovedOn::Policy => entry.approved.extend(plan.open().clone()),
                    ApprovedOn::Tailnet => entry.approved_over_limit.extend(plan.open().clone()),
                }
            }
            self.notify(&key, Notification::Approved(held_plan));
            self.dirty.report(&key);
        }
    }

    /// Adds the hash of the frozen plan to each difference in it, so that the status names the approval.
    pub(super) fn name_frozen_plan(&self, key: &PolicyKey, differences: &mut [Difference]) {
        let entry = self.policies.get(key);
        let Some(plan) = entry.and_then(|entry| entry.frozen_plan.as_ref()) else {
            return;
        };
        for difference in differences {
            if plan.holds(difference)
                && let Some(Hold::Approval(hash) | Hold::Limit(hash)) = &mut difference.hold
            {
                *hash = Some(plan.hash.clone());
            }
        }
    }

    /// Errors of the approval annotation of a policy. `at_rest`: all held changes are frozen.
    pub(super) fn approval_errors(&self, key: &PolicyKey, at_rest: bool) -> Vec<String> {
        let Some(entry) = self.policies.get(key) else {
            return Vec::new();
        };
        let approvals = &entry.approvals;
        let mut errors = approvals.errors.clone();
        let plan = entry.frozen_plan.as_ref();
        let mismatched = approvals.plans.iter().filter_map(|hash| {
            let used = entry.needed_record.approved.as_ref() == Some(hash);
            match plan {
                Some(plan) if plan.hash == *hash => (plan.on == ApprovedOn::Tailnet).then(|| {
                    format!("plan:{hash}: approve it on the TailscaleTailnet, not on the policy")
                }),
                Some(plan) if used => Some(format!(
                    "plan:{hash} was used before and approves nothing again; plan:{} is held now",
                    plan.hash
                )),
                Some(plan) => Some(format!(
                    "plan:{hash} matches no held plan; plan:{} is held now",
                    plan.hash
                )),
                None if used || !at_rest => None,
                None => Some(format!("plan:{hash} matches no held plan")),
            }
        });
        errors.extend(mismatched);
        errors.extend(node_approval_errors(entry));
        errors.truncate(MAX_NAMED);
        errors
    }

    /// Errors of the approval annotation of the tailnet.
    pub(super) fn tailnet_approval_errors(&self) -> Vec<String> {
        let approvals = &self.change_budget.approvals;
        let mut errors = approvals.errors.clone();
        let nodes = approvals.nodes.iter();
        errors.extend(
            nodes.map(|id| {
                format!("node:{id}: approve it on a policy, not on the TailscaleTailnet")
            }),
        );
        if !approvals.plans.is_empty() && self.observed.lists() > 0 {
            let limited = self.change_budget.held.iter();
            let mut limited = limited.filter_map(|key| self.policies.get(key));
            // A plan that is not frozen yet may match.
            if limited.all(|entry| entry.frozen_plan.is_some()) {
                let mismatched = approvals
                    .plans
                    .iter()
                    .filter(|hash| !self.is_known_plan(hash));
                errors.extend(mismatched.map(|hash| format!("plan:{hash} matches no held plan")));
            }
        }
        errors.truncate(MAX_NAMED);
        errors
    }

    fn is_known_plan(&self, hash: &PlanHash) -> bool {
        self.policies.values().any(|entry| {
            let plan = entry.frozen_plan.as_ref();
            plan.is_some_and(|plan| plan.on == ApprovedOn::Tailnet && plan.hash == *hash)
                || entry.needed_record.approved.as_ref() == Some(hash)
        })
    }
}

/// Errors of approved devices: those that do not settle which device the policy targets.
fn node_approval_errors(entry: &PolicyEntry) -> Vec<String> {
    let Ok(Policy {
        target: Target::Device(target),
        ..
    }) = &entry.policy
    else {
        let nodes = entry.approvals.nodes.iter();
        return nodes
            .map(|id| format!("node:{id} approves nothing: the policy selects its devices"))
            .collect();
    };
    let named = &target.identity;
    let holders: Vec<&NodeId> = match &entry.binding {
        Some(Binding::Ambiguous(nodes)) => nodes.iter().collect(),
        Some(Binding::IdentityChanged { found, .. }) => vec![found],
        _ => return Vec::new(),
    };
    let (matching, mismatched): (Vec<_>, Vec<_>) = entry
        .approvals
        .nodes
        .iter()
        .partition(|id| holders.contains(id));
    let mut errors: Vec<String> = mismatched
        .iter()
        .map(|id| format!("node:{id} does not have the {named}"))
        .collect();
    if matching.len() > 1 {
        let message = "several devices that have the";
        errors.push(format!("{message} {named} are approved: keep one of them"));
    }
    errors
}
