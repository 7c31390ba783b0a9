//! What is reported of the devices of a policy with a selector.

use std::collections::{BTreeMap, BTreeSet};

use super::{DeviceReport, PendingChanges};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Conflict, Difference, ExpressionError, Field, Unmatched},
};

/// The number of devices and differences that a report details; its totals are exact.
pub const DETAILS: usize = 20;

/// The state of the devices of a policy with a selector.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct SelectorReport {
    /// The number of matching devices.
    pub matched: usize,
    /// Those of them that are in sync.
    pub in_sync: usize,
    /// Those with work in progress.
    pub working: usize,
    /// Those that have not been read completely.
    pub unread: usize,
    /// Those with a field that another policy overrides.
    pub conflicted: usize,
    /// Those with a held change.
    pub held: usize,
    /// The number of held changes.
    pub held_changes: usize,
    /// What is pending, by reason.
    pub pending: PendingChanges,
    /// Those with a failure.
    pub failed: usize,
    /// Some devices; those that need attention most come first.
    pub details: Vec<DeviceReport>,
    /// Some differences, in the order of the devices.
    pub differences: Vec<Difference>,
    /// Why some of these are not sent although nothing holds them, by device and field.
    pub waits: BTreeMap<(NodeId, Field), String>,
    /// What those of them that are disruptive take from a device, by device and field.
    pub impacts: BTreeMap<(NodeId, Field), String>,
    /// Some overridden fields, each with its device and the name of the device.
    pub overridden: Vec<(NodeId, String, Conflict)>,
    /// The number of overridden fields.
    pub overridden_total: usize,
    /// The number of differences.
    pub out_of_sync: usize,
    /// Attributes that are no longer desired, as their expiry has passed.
    pub expired: BTreeSet<AttributeKey>,
    /// The devices on which its expression fails.
    pub selector_errors: Option<SelectorErrors>,
    /// The criteria that no device meets, if it matches none.
    pub unmatched: Vec<Unmatched>,
    /// The devices that keep joining and leaving it by what they report about themselves.
    pub flapping: Option<FlappingDevices>,
}

/// Devices that keep joining and leaving a selector by what they report about themselves: for now they stay
/// in or out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FlappingDevices {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
}

/// Devices on which the expression of a selector fails; the policy does not target them.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct SelectorErrors {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
    /// The error of the expression on that device.
    pub error: ExpressionError,
}
