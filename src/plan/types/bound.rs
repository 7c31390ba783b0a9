//! The device that a policy is bound to, or why it is bound to none.

use std::collections::BTreeSet;

use super::{DeviceTarget, Owner};
use crate::model::{Device, DeviceField, NodeId, UnreadableFields};

impl DeviceTarget {
    /// The unreadable fields of a device that keep it unknown whether it has the tags and the user that the
    /// policy requires.
    pub(in crate::plan) fn undecided_by(&self, device: &Device) -> UnreadableFields {
        let mut needed = Vec::new();
        if !(self.tags.is_empty() && self.users.is_empty()) {
            needed.push(DeviceField::Tags);
        }
        if !self.users.is_empty() {
            needed.push(DeviceField::User);
        }
        device.unreadable.among(&needed)
    }
}

/// The device that a policy is bound to, as it was when last seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bound {
    /// The device.
    pub node: NodeId,
    /// Its owner then.
    pub owner: Owner,
    /// How the manifest named it: a policy that names another device releases this one.
    pub named: String,
}

/// The devices that have one name, while a policy is bound to none of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rivals {
    /// How the manifest names the device.
    pub named: String,
    /// The devices; the first ones of many.
    pub nodes: BTreeSet<NodeId>,
}

impl Rivals {
    /// The number of devices in a record.
    const MAX: usize = 20;

    /// The rivals of a target that is bound to none.
    #[must_use]
    pub fn of(target: &DeviceTarget, nodes: &[NodeId]) -> Self {
        Self {
            named: target.identity.to_string(),
            nodes: nodes.iter().take(Self::MAX).cloned().collect(),
        }
    }
}
