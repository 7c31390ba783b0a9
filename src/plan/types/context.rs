use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::model::NodeId;

use crate::plan::{
    ApprovalStates, DeviceIndex, Guardrails, Policy, PolicyKey, Released, TailnetWide,
};

/// Everything that a device's plan depends on besides the device and its policies.
#[derive(Debug, Clone, Copy)]
pub struct PlanContext<'a> {
    /// All devices: one may have a desired address or name.
    pub index: &'a DeviceIndex,
    /// The approved changes, and the policies that the limit of changed devices holds.
    pub approvals: &'a ApprovalStates<'a>,
    /// The settings that only one device of a tailnet can have: what policies claim, and what devices have.
    pub tailnet_wide: &'a TailnetWide,
    /// The time, for expiries.
    pub now: Timestamp,
    /// The policies that have released the device, and what each clears on it.
    pub released: &'a [Released],
    /// The policies that may delete the device today if it is inactive: which devices a policy deletes in
    /// a day is decided among all of its devices.
    pub turns: &'a BTreeSet<PolicyKey>,
    /// The guardrails of the tailnet.
    pub guardrails: &'a Guardrails,
}

impl PlanContext<'_> {
    /// Whether a message to the authors of these policies may name another device.
    pub(in crate::plan) fn discloses<'p>(
        &self,
        id: &NodeId,
        mut to: impl Iterator<Item = &'p Policy>,
    ) -> bool {
        let device = self.index.get(id);
        // All of them, because one message goes into the status of each.
        to.all(|policy| policy.allowance.discloses(device))
    }

    /// The name of another device, or a placeholder if the reader may not learn of that device.
    pub(in crate::plan) fn disclosed_name(&self, reported: bool, id: &NodeId) -> String {
        if reported {
            self.index.called(id)
        } else {
            ANOTHER.to_owned()
        }
    }
}

/// A device that its reader may not learn of.
pub(in crate::plan) const ANOTHER: &str = "another device";
