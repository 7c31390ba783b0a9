//! The device that a policy is bound to, or why it is bound to none.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::DeviceTarget;
use crate::model::{Device, DeviceField, NodeId, Refused, UnreadableFields};

/// The owner of a device, as the control server reports it. A policy follows another machine under a known
/// name only if the owner is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Its user.
    User(String),
    /// Its tags: a tagged device no longer has a user.
    Tagged,
}

impl Owner {
    /// The owner of a device now.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        if device.tags.is_empty() {
            Self::User(device.user.clone())
        } else {
            Self::Tagged
        }
    }

    /// The fields that keep it unknown who owns a device.
    #[must_use]
    pub fn unknown(device: &Device) -> UnreadableFields {
        // The user of a tagged device does not matter.
        if !device.tags.is_empty() {
            return UnreadableFields::default();
        }
        let needed = [DeviceField::Tags, DeviceField::User];
        device.unreadable.among(&needed)
    }
}

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

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(login) => f.write_str(login),
            Self::Tagged => f.write_str("tagged"),
        }
    }
}

impl FromStr for Owner {
    type Err = Refused;

    /// As [`Owner`] displays it; a login name always has an `@` or is not `tagged`.
    fn from_str(text: &str) -> Result<Self, Refused> {
        Ok(match text {
            "tagged" => Self::Tagged,
            login => Self::User(login.to_owned()),
        })
    }
}

/// The device that a policy is bound to, as it was when last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The device.
    pub node: NodeId,
    /// Its owner then.
    pub owner: Owner,
    /// How the manifest named it: a policy that names another device releases this one.
    pub named: String,
}

/// The devices that have one name, while a policy is bound to none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
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
