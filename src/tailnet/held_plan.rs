//! What is reported of a plan that is pending approval.

use std::sync::Arc;

use crate::plan::{ApprovedOn, PlanHash, Summary};

/// A frozen plan that is pending approval.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// The changes by kind, as the author of the policy may see them.
    pub summary: Arc<Summary>,
}
