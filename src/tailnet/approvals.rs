//! What is held until somebody approves it: frozen, shown, and sent once it is approved.
//!
//! What was approved is known to this process alone: after a crash in the middle of it the rest is
//! held again, under another hash. So nothing is ever sent for an approval that was not meant for it.
use super::{Engine, Notification, policy_entry::PolicyEntry};
use crate::{
    model::NodeId,
    plan::{
        ApprovedOn, Binding, Change, Changes, DevicePlan, Difference, Field, FrozenPlan, Hold,
        Mode, PlanHash, Policy, PolicyKey, Target,
    },
};

/// Faults of an annotation that are told.
const MAX_NAMED: usize = 20;

/// A frozen plan that waits for an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPlan {
    /// What an approval names.
    pub hash: PlanHash,
    /// Where the approval is written.
    pub on: ApprovedOn,
    /// How many changes it has.
    pub changes: usize,
    /// On how many devices.
    pub devices: usize,
    /// How many of the changes still differ just so: the others are not sent.
    pub open: usize,
    /// How many devices may be changed within an hour, where that is what holds it.
    pub limit: Option<usize>,
    /// How many of those its namespace may change, where that is what holds it.
    pub share: Option<usize>,
}

impl PolicyEntry {
    /// Forgets what is frozen and what was approved.
    pub fn discard(&mut self) {
        self.frozen_plan = None;
        self.approved = Changes::default();
        self.approved_over_limit = Changes::default();
    }

    /// What no longer differs, or differs in another way, is no part of what was approved, and never
    /// will be again; of what is frozen it is not sent. What has not been read is taken to be as it was.
    pub fn drop_what_changed(&mut self, key: &PolicyKey, id: &NodeId, plan: &DevicePlan) {
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
        if let Some(batch) = &mut self.frozen_plan {
            batch.compare(id, asked, unread);
        }
        self.frozen_plan.take_if(|batch| batch.open().is_empty());
    }

    /// What was approved has been done: should it differ again, that is another difference.
    pub fn done(&mut self, difference: &Difference) {
        let other = |change: &Change| change.field() != difference.change.field();
        self.approved.retain(&difference.node, other);
        self.approved_over_limit.retain(&difference.node, other);
    }

    /// Lets go what concerns a device that the policy means no more.
    pub fn drop_device(&mut self, id: &NodeId) {
        self.approved.retain(id, |_| false);
        self.approved_over_limit.retain(id, |_| false);
        if let Some(batch) = &mut self.frozen_plan {
            batch.compare(id, |_| false, |_| false);
        }
        self.frozen_plan.take_if(|batch| batch.open().is_empty());
    }
}

impl Engine {
    /// Freezes what is held of a policy, once all that can be done for it is done and all is known.
    pub(super) fn freeze(&mut self, key: &PolicyKey) {
        let is_limited = self.change_budget.held.contains(key);
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        held.frozen_plan
            .take_if(|batch| batch.on == ApprovedOn::Tailnet && !is_limited);
        let Some(batch) = self.held_of(key, is_limited) else {
            return;
        };
        // The first list may lack some of the devices.
        if !self.can_compare_lists() {
            self.polling.compare_soon();
            return;
        }
        let plan = self.held_plan(key, &batch);
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        let is_new = held.needed_record.held.as_ref() != Some(&batch.hash);
        held.needed_record.held = Some(batch.hash.clone());
        held.frozen_plan = Some(batch);
        self.dirty_approvals.insert(key.clone());
        if is_new {
            self.notify(key, Notification::Held(plan));
        }
    }

    /// What is held of a policy and not frozen yet; `None` while that may change by itself.
    fn held_of(&self, key: &PolicyKey, is_limited: bool) -> Option<FrozenPlan> {
        let held = self.policies.get(key)?;
        let policy = held.policy.as_ref().ok()?;
        if held.frozen_plan.is_some() || !(policy.mode == Mode::Approve || is_limited) {
            return None;
        }
        let (mut on_policy, mut on_tailnet) = (Changes::default(), Changes::default());
        for id in held.managed() {
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
        let used = held.needed_record.approvals_used;
        let freeze = |on, changes| FrozenPlan::freeze(policy, used, on, changes);
        freeze(ApprovedOn::Tailnet, on_tailnet).or_else(|| freeze(ApprovedOn::Policy, on_policy))
    }

    fn held_plan(&self, key: &PolicyKey, batch: &FrozenPlan) -> HeldPlan {
        let limit = self.most_changes();
        let is_beyond_share = self.change_budget.beyond_share.contains(key);
        let share = self.namespace_share().filter(|_| is_beyond_share);
        HeldPlan {
            hash: batch.hash.clone(),
            on: batch.on,
            changes: batch.changes().count(),
            devices: batch.changes().devices(),
            open: batch.open().count(),
            limit: limit.filter(|_| batch.on == ApprovedOn::Tailnet),
            share: share.filter(|_| batch.on == ApprovedOn::Tailnet),
        }
    }

    /// What waits for an approval of a policy.
    pub(super) fn held_plan_of(&self, key: &PolicyKey) -> Option<HeldPlan> {
        let batch = self.policies.get(key)?.frozen_plan.as_ref()?;
        Some(self.held_plan(key, batch))
    }

    /// Uses the approvals that fit what is frozen. That one was used must be kept before the first
    /// call for it ([`crate::plan::PolicyRecord::covers`]).
    pub(super) fn use_approvals(&mut self) {
        if !self.leads() {
            return;
        }
        for key in std::mem::take(&mut self.dirty_approvals) {
            let Some(held) = self.policies.get_mut(&key) else {
                continue;
            };
            let (policy, tailnet) = (&held.approvals.plans, &self.change_budget.approvals.plans);
            let Some(batch) = held.frozen_plan.take_if(|batch| match batch.on {
                ApprovedOn::Policy => policy.contains(&batch.hash),
                ApprovedOn::Tailnet => tailnet.contains(&batch.hash),
            }) else {
                continue;
            };
            held.needed_record.approvals_used = held.needed_record.approvals_used.saturating_add(1);
            held.needed_record.approved = Some(batch.hash.clone());
            self.dirty_plans.extend(batch.open().nodes().cloned());
            let plan = self.held_plan(&key, &batch);
            if let Some(held) = self.policies.get_mut(&key) {
                match batch.on {
                    ApprovedOn::Policy => held.approved.extend(batch.open().clone()),
                    ApprovedOn::Tailnet => held.approved_over_limit.extend(batch.open().clone()),
                }
            }
            self.notify(&key, Notification::Approved(plan));
            self.dirty_statuses.insert(key);
        }
    }

    /// Says with each difference that is part of what is frozen how to approve it.
    pub(super) fn name_frozen_plan(&self, key: &PolicyKey, differences: &mut [Difference]) {
        let held = self.policies.get(key);
        let Some(batch) = held.and_then(|held| held.frozen_plan.as_ref()) else {
            return;
        };
        for difference in differences {
            if batch.holds(difference)
                && let Some(Hold::Approval(hash) | Hold::Limit(hash)) = &mut difference.hold
            {
                *hash = Some(batch.hash.clone());
            }
        }
    }

    /// What is wrong with the annotation of a policy. `at_rest`: all that is held is frozen.
    pub(super) fn approval_errors(&self, key: &PolicyKey, at_rest: bool) -> Vec<String> {
        let Some(held) = self.policies.get(key) else {
            return Vec::new();
        };
        let approvals = &held.approvals;
        let mut faults = approvals.errors.clone();
        let batch = held.frozen_plan.as_ref();
        let unfit = approvals.plans.iter().filter_map(|hash| {
            let used = held.needed_record.approved.as_ref() == Some(hash);
            match batch {
                Some(batch) if batch.hash == *hash => {
                    (batch.on == ApprovedOn::Tailnet).then(|| {
                        format!(
                            "plan:{hash} is approved on the TailscaleTailnet, not on the policy"
                        )
                    })
                }
                Some(batch) if used => Some(format!(
                    "plan:{hash} was approved before and does not work again; plan:{} is held now",
                    batch.hash
                )),
                Some(batch) => Some(format!(
                    "plan:{hash} fits nothing that is held; plan:{} is held now",
                    batch.hash
                )),
                None if used || !at_rest => None,
                None => Some(format!("plan:{hash} fits nothing that is held")),
            }
        });
        faults.extend(unfit);
        faults.extend(changed_nodes(held));
        faults.truncate(MAX_NAMED);
        faults
    }

    /// What is wrong with the annotation of the tailnet.
    pub(super) fn tailnet_approval_errors(&self) -> Vec<String> {
        let approvals = &self.change_budget.approvals;
        let mut faults = approvals.errors.clone();
        let nodes = approvals.nodes.iter();
        faults.extend(nodes.map(|id| format!("node:{id} is approved on a policy, not here")));
        if !approvals.plans.is_empty() && self.polling.seen > 0 {
            let limited = self.change_budget.held.iter();
            let mut limited = limited.filter_map(|key| self.policies.get(key));
            // What is not frozen yet may fit.
            if limited.all(|held| held.frozen_plan.is_some()) {
                let unfit = approvals
                    .plans
                    .iter()
                    .filter(|hash| !self.is_known_plan(hash));
                faults.extend(unfit.map(|hash| format!("plan:{hash} fits nothing that is held")));
            }
        }
        faults.truncate(MAX_NAMED);
        faults
    }

    fn is_known_plan(&self, hash: &PlanHash) -> bool {
        self.policies.values().any(|held| {
            let batch = held.frozen_plan.as_ref();
            batch.is_some_and(|batch| batch.on == ApprovedOn::Tailnet && batch.hash == *hash)
                || held.needed_record.approved.as_ref() == Some(hash)
        })
    }
}

/// Approved devices that do not help to find the one that is meant.
fn changed_nodes(held: &PolicyEntry) -> Vec<String> {
    let Ok(Policy {
        target: Target::Device(target),
        ..
    }) = &held.policy
    else {
        let nodes = held.approvals.nodes.iter();
        return nodes
            .map(|id| format!("node:{id} approves nothing: the policy is about many devices"))
            .collect();
    };
    let named = &target.identity;
    let holders: Vec<&NodeId> = match &held.binding {
        Some(Binding::Ambiguous(nodes)) => nodes.iter().collect(),
        Some(Binding::IdentityChanged { found, .. }) => vec![found],
        _ => return Vec::new(),
    };
    let (fit, unfit): (Vec<_>, Vec<_>) = held
        .approvals
        .nodes
        .iter()
        .partition(|id| holders.contains(id));
    let mut faults: Vec<String> = unfit
        .iter()
        .map(|id| format!("node:{id} does not have the {named}"))
        .collect();
    if fit.len() > 1 {
        let message = "more than one of the devices that have the";
        faults.push(format!("{message} {named} is approved: keep one of them"));
    }
    faults
}
