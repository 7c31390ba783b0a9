//! What is reported of a policy's device.

use super::Failure;
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Conflict, Difference, Field},
};

/// The state of a policy's device.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct DeviceReport {
    /// The device.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
    /// The connected device that has probably replaced it, while it is not connected itself.
    pub successor: Option<Successor>,
    /// Work is in progress.
    pub working: bool,
    /// Declared attributes or routes have not been read yet.
    pub unread: bool,
    /// The differences of this policy.
    pub differences: Vec<Difference>,
    /// What those of them that are disruptive take from the device, by field.
    pub impacts: Vec<(Field, String)>,
    /// Why differences that nothing holds are not sent, by field. Without an entry, the change is under way.
    pub waits: Vec<(Field, String)>,
    /// The fields that other policies override.
    pub conflicts: Vec<Conflict>,
    /// Attributes that are no longer desired, as their expiry has passed.
    pub expired: Vec<AttributeKey>,
    /// The failures by field; failed reads have no field.
    pub failures: Vec<(Option<Field>, Failure)>,
}

/// The device that has probably replaced a bound one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Successor {
    /// Its nodeId.
    pub node: NodeId,
    /// Whether an approval can bind the policy to it: not if the spec names the device by an id.
    pub can_be_approved: bool,
}
