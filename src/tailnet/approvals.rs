//! Changes that are pending approval: they are frozen, shown, and sent once someone approves them.
//!
//! Only this process knows which changes were approved. If it crashes in the middle, the rest is held again
//! under another hash. So an approval never sends a change that it was not meant for.
use super::policy_entry::PolicyEntry;
use crate::{
    model::NodeId,
    plan::{ApprovedOn, Change, Changes, DevicePlan, Difference, Field, PlanHash, PolicyKey},
};

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
            Field::List(list) => list.is_of_routes() && plan.routes_unread,
            Field::Setting(_) | Field::ExpireKeyAt | Field::DeleteInactive => false,
        };
        let asked = |change: &Change| {
            let mut asked = plan.asked.iter();
            asked.any(|(policy, asked)| policy == key && asked == change)
        };
        // As long as it is unread, the change may still be needed: an approval must not be lost for that.
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
