//! What is pending approval on a policy, and what is approved.
//!
//! Only this process knows which changes were approved. If it crashes in the middle, the rest is held again
//! under another hash. So an approval never sends a change that it was not meant for.

use crate::{
    model::NodeId,
    plan::{
        ApprovalState, Approvals, ApprovedOn, Change, Changes, DevicePlan, Difference, Field,
        FrozenPlan, PolicyKey,
    },
};

/// The approvals of a policy.
#[derive(Debug, Default)]
pub(in crate::tailnet) struct Approval {
    /// Those in its annotation.
    given: Approvals,
    /// The plan that is pending approval.
    frozen: Option<Box<FrozenPlan>>,
    /// Changes that are approved on the policy and not made yet.
    approved: Changes,
    /// Changes that are approved over the change limit and not made yet.
    over_limit: Changes,
}

impl Approval {
    pub fn new(given: Approvals) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    /// Drops the approvals of changes that are not `kept` on a device.
    fn retain(&mut self, id: &NodeId, kept: impl Fn(&Change) -> bool) {
        self.approved.retain(id, &kept);
        self.over_limit.retain(id, &kept);
    }

    /// Compares the frozen plan with what is still needed on a device, and drops it once nothing is.
    fn compare(
        &mut self,
        id: &NodeId,
        needed: impl Fn(&Change) -> bool,
        unread: impl Fn(&Change) -> bool,
    ) {
        if let Some(plan) = &mut self.frozen {
            plan.compare(id, needed, unread);
        }
        // Nothing is left that an approval of this hash could release.
        self.frozen.take_if(|plan| plan.open().is_empty());
    }

    /// The approvals in its annotation.
    pub const fn given(&self) -> &Approvals {
        &self.given
    }

    /// Takes the approvals of its annotation. Returns whether they differ.
    pub fn set_given(&mut self, given: Approvals) -> bool {
        let differ = self.given != given;
        self.given = given;
        differ
    }

    /// The plan that is pending approval.
    pub fn frozen_plan(&self) -> Option<&FrozenPlan> {
        self.frozen.as_deref()
    }

    /// What is approved on a device. `limited`: the change limit holds the policy there.
    pub fn state(&self, id: &NodeId, limited: bool) -> ApprovalState<'_> {
        ApprovalState {
            limited,
            approved: self.approved.of(id),
            exempt_from_limit: self.over_limit.of(id),
        }
    }

    /// Freezes a plan.
    pub fn freeze(&mut self, plan: FrozenPlan) {
        self.frozen = Some(Box::new(plan));
    }

    /// Drops a plan that the tailnet would approve, once the limit no longer holds the policy: nothing is
    /// left to approve there.
    pub fn unfreeze_limited(&mut self) {
        let frozen = &mut self.frozen;
        frozen.take_if(|plan| plan.on == ApprovedOn::Tailnet);
    }

    /// Takes the frozen plan, if the annotation of the policy or of the tailnet (`on_tailnet`) approves it. Its
    /// changes are approved from now on.
    pub fn take_approved(&mut self, on_tailnet: &Approvals) -> Option<FrozenPlan> {
        let given = &self.given;
        let plan = self.frozen.take_if(|plan| match plan.on {
            ApprovedOn::Policy => given.plans.contains(&plan.hash),
            ApprovedOn::Tailnet => on_tailnet.plans.contains(&plan.hash),
        })?;
        let approved = match plan.on {
            ApprovedOn::Policy => &mut self.approved,
            ApprovedOn::Tailnet => &mut self.over_limit,
        };
        // Not what the plan has lost since it was shown: nobody needs that any longer.
        approved.extend(plan.open().clone());
        Some(*plan)
    }

    /// Discards the frozen plan and the approved changes.
    pub fn discard(&mut self) {
        // The annotation stays: it may name the hash of the plan that is frozen next.
        *self = Self::new(std::mem::take(&mut self.given));
    }

    /// Drops changes that are no longer needed or that have become different ones: the approval does not
    /// cover them, not even later, and the frozen plan does not send them. Fields that have not been read
    /// count as unchanged.
    pub fn drop_changed(&mut self, key: &PolicyKey, id: &NodeId, plan: &DevicePlan) {
        let unread = |change: &Change| match change.field() {
            Field::Attribute(_) => plan.attributes_unread,
            Field::List(list) => list.is_of_routes() && plan.routes_unread,
            Field::Setting(_) | Field::ExpireKeyAt | Field::DeleteInactive => false,
        };
        let asked = |change: &Change| {
            let mut asked = plan.asked.iter();
            asked.any(|(policy, asked)| policy == key && asked == change)
        };
        // As long as it is unread, the change may still be needed: an approval must not be lost for that.
        self.retain(id, |change| unread(change) || asked(change));
        self.compare(id, asked, unread);
    }

    /// An approved change was made. If the field differs again, that is a new difference that needs its own
    /// approval.
    pub fn done(&mut self, difference: &Difference) {
        let field = difference.change.field();
        self.retain(&difference.node, |change| change.field() != field);
    }

    /// Drops the changes of a device that the policy no longer targets.
    pub fn drop_device(&mut self, id: &NodeId) {
        self.retain(id, |_| false);
        self.compare(id, |_| false, |_| false);
    }
}
