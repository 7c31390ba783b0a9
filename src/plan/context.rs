use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::model::NodeId;

use super::{ApprovalStates, DeviceIndex, Guardrails, PolicyKey, Released, TailnetWide};

/// What decides about a device besides itself and its policies.
#[derive(Debug, Clone, Copy)]
pub struct PlanContext<'a> {
    /// All devices: who has an address or a name that is wished for.
    pub index: &'a DeviceIndex,
    /// What was approved, and what the limit of changed devices holds.
    pub approvals: &'a ApprovalStates<'a>,
    /// What policies of other devices claim, and what other devices have, of what a tailnet has once.
    pub tailnet_wide: &'a TailnetWide,
    /// The time, for expiries.
    pub now: Timestamp,
    /// What policies take from it that have let it go.
    pub released: &'a [Released],
    /// The policies whose turn it is to delete it, should it have been away for long enough: how
    /// many a policy deletes in a day is decided among all of its devices.
    pub turns: &'a BTreeSet<PolicyKey>,
    /// What the tailnet permits.
    pub guardrails: &'a Guardrails,
}

impl PlanContext<'_> {
    /// What people call another device, for those who are told of it.
    pub(super) fn called_where(&self, reported: bool, id: &NodeId) -> String {
        if reported {
            self.index.called(id)
        } else {
            ANOTHER.to_owned()
        }
    }
}

/// A device that is not one of a policy's.
pub(super) const ANOTHER: &str = "another device";
