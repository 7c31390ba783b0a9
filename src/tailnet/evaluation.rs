//! Matches selectors with devices in shares, so that no step takes long and no namespace waits for the
//! selectors of another one.
//!
//! A step does a share of the work and leaves the rest to the next steps, which follow at once. Namespaces
//! take turns. While a policy has devices left to match, nothing is decided from a part. A new policy targets
//! no device. An edited policy keeps its devices and its precedence, and sends nothing. A device whose facts
//! have changed waits if such a policy targets it. At the start of a process or term, another process may
//! have acted for the policies already: until their devices are known, every device that they may target
//! waits. Results are kept: only a device with a changed fact, and an edited selector, are matched again.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    model::NodeId,
    plan::{AllowedRules, DeviceIndex, Policy, Refusal, Selector},
};

/// The cost of a device besides its evaluation steps.
const DEVICE: usize = 20;

/// Whether a selector matches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Matches,
    DoesNotMatch,
    /// The expression fails on this device.
    Unknown,
}

/// The progress of matching a policy's selector with the devices.
#[derive(Debug)]
pub(super) struct Evaluation {
    selector: Selector,
    /// The devices that the policy may target.
    allowance: AllowedRules,
    /// No result takes effect before all devices have been matched.
    is_first: bool,
    left: BTreeSet<NodeId>,
    /// Results that have not taken effect yet. The first evaluation leaves out devices that do not match.
    found: BTreeMap<NodeId, Comparison>,
    /// The edited policy, which takes effect once the evaluation is complete; until then the policy sends
    /// nothing.
    next: Option<Result<Arc<Policy>, Refusal>>,
}

impl Evaluation {
    /// Evaluates all devices.
    pub fn new(selector: Selector, allowance: AllowedRules, fleet: &DeviceIndex) -> Self {
        let all = fleet.devices().map(|device| device.node_id.clone());
        Self {
            selector,
            allowance,
            is_first: true,
            left: all.collect(),
            found: BTreeMap::new(),
            next: None,
        }
    }

    /// Whether this selector is matched, among these devices.
    pub fn is_of(&self, selector: &Selector, allowance: &AllowedRules) -> bool {
        self.selector == *selector && self.allowance == *allowance
    }

    /// Whether no result takes effect before all devices have been matched.
    pub const fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether devices are left to match.
    pub fn has_devices_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Whether a new result for a device is pending while the previous one is in force.
    pub fn is_pending(&self, id: &NodeId) -> bool {
        // During the first evaluation the policy sends nothing, whatever the result will be.
        !self.is_first && (self.left.contains(id) || self.found.contains_key(id))
    }

    /// Devices must be matched again.
    pub fn rematch(&mut self, devices: &BTreeSet<NodeId>) {
        self.left.extend(devices.iter().cloned());
    }

    /// Sets the edited policy aside until its devices are known.
    pub fn set_aside(&mut self, edited: Result<Arc<Policy>, Refusal>) {
        self.next = Some(edited);
    }

    /// Takes the edited policy that was set aside.
    pub fn take_next(&mut self) -> Option<Result<Arc<Policy>, Refusal>> {
        self.next.take()
    }

    /// Takes the results that have not taken effect yet.
    pub fn take_found(&mut self) -> BTreeMap<NodeId, Comparison> {
        std::mem::take(&mut self.found)
    }

    /// Matches devices until these steps are used up. Returns the steps that are left.
    pub fn advance(&mut self, fleet: &DeviceIndex, mut steps: usize) -> usize {
        while steps > 0
            && let Some(id) = self.left.pop_first()
        {
            // A device costs something even if its selector takes no step.
            steps = steps.saturating_sub(DEVICE);
            // A device that the policy may not change does not exist for it (docs/decisions/0015).
            let device = fleet.get(&id).filter(|it| self.allowance.is_about(it));
            let comparison = match device.map(|device| self.selector.evaluate(device)) {
                None => Comparison::DoesNotMatch,
                Some((result, taken)) => {
                    steps = steps.saturating_sub(taken);
                    match result {
                        Ok(true) => Comparison::Matches,
                        Ok(false) => Comparison::DoesNotMatch,
                        Err(_) => Comparison::Unknown,
                    }
                }
            };
            // Most devices do not match: the first result is a set of those that do.
            if self.is_first && comparison == Comparison::DoesNotMatch {
                self.found.remove(&id);
            } else {
                self.found.insert(id, comparison);
            }
        }
        steps
    }

    /// The edited policy that was set aside.
    pub const fn next(&self) -> Option<&Result<Arc<Policy>, Refusal>> {
        self.next.as_ref()
    }

    /// From now on, results are about single devices.
    pub fn take_effect(&mut self) {
        // Later results are about single devices, and have not taken effect yet.
        if std::mem::take(&mut self.is_first) {
            self.found.clear();
        }
    }

    /// The devices with this result that has not taken effect yet.
    pub fn with(&self, comparison: Comparison) -> BTreeSet<NodeId> {
        let found = self.found.iter().filter(|(_, it)| **it == comparison);
        found.map(|(id, _)| id.clone()).collect()
    }
}
