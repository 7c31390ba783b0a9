//! Policies with a selector: their devices, and one short report of all.
//!
//! A change of one device costs no walk over the others: each is matched alone. A report does walk over all
//! devices, so it is made once the devices are idle, when a record is needed, and otherwise once for each
//! list.

use std::collections::BTreeSet;

use super::{DeviceReport, device_state::DeviceState};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{Difference, ExpressionError, PolicyKey, Unmatched},
};

/// The number of devices and differences that a report details; its totals are exact.
pub const DETAILS: usize = 20;

/// The state of the devices of a policy with a selector.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Those with a failure.
    pub failed: usize,
    /// Some devices; those that need attention most come first.
    pub details: Vec<DeviceReport>,
    /// Some differences, in the order of the devices.
    pub differences: Vec<Difference>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlappingDevices {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub node: NodeId,
    /// Its display name.
    pub label: String,
}

/// Devices on which the expression of a selector fails; the policy does not target them.
#[derive(Debug, Clone, PartialEq)]
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

/// How much attention a device needs, in descending order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DeviceOutcome {
    Conflicted,
    Failed,
    Held,
    OutOfSync,
    InSync,
}

impl SelectorReport {
    /// Counts a device.
    pub(super) fn add(&mut self, key: &PolicyKey, node: &DeviceState) -> DeviceOutcome {
        let plan = node.plan();
        let own = || plan.of(key);
        let conflicted = plan
            .owners
            .conflicts
            .iter()
            .any(|conflict| conflict.overridden == *key);
        let failed = node.failures(key).next().is_some();
        let room = DETAILS - self.differences.len();
        self.differences.extend(plan.disclosed(key).take(room));
        self.out_of_sync += own().count();
        let claims = plan.owners.observed.get(key).unwrap_or(&plan.owners);
        let expired = claims.expired.iter().filter(|(_, of)| of == key);
        self.expired
            .extend(expired.map(|(attribute, _)| attribute.clone()));
        self.matched += 1;
        self.unread += usize::from(!plan.complete());
        self.conflicted += usize::from(conflicted);
        let held = own().any(|difference| difference.hold.is_some());
        self.held += usize::from(held);
        self.failed += usize::from(failed);
        if conflicted {
            DeviceOutcome::Conflicted
        } else if failed {
            DeviceOutcome::Failed
        } else if held {
            DeviceOutcome::Held
        } else if own().next().is_some() || !plan.complete() {
            DeviceOutcome::OutOfSync
        } else {
            self.in_sync += 1;
            DeviceOutcome::InSync
        }
    }
}
