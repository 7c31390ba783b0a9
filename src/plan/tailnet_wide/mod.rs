//! What no single device shows: where policies of different devices get in each other's way.
//!
//! | what the tailnet has once    | between policies                | with what is there already        |
//! |------------------------------|---------------------------------|-----------------------------------|
//! | the form of an attribute key | [`ConflictKind::Form`], a conflict   | [`super::Hold::AttributeConflict`]   |
//! | an IPv4 address              | [`ConflictKind::Device`], a conflict | `AddressInUse`, and `AddressSwap` |
//! | a name                       | [`ConflictKind::Device`], a conflict | `NameTaken`                       |
//!
//! Kept up to date one policy and one device at a time; each change says what is to be compared anew.

#[cfg(test)]
mod tests;
mod types;
mod unique;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

pub use types::{AttributeType, AttributeTypes};
pub use unique::{UniqueSetting, UniqueSettings};

use super::{ApprovalStates, FieldOwners, Policy, PolicyPermissions, PolicyRecord};
use crate::model::{Attributes, NodeId};

/// What the policies of a tailnet claim of what it has only once.
#[derive(Debug, Clone, Default)]
pub struct TailnetWide {
    /// How the keys of attributes are written and typed.
    pub types: AttributeTypes,
    /// Addresses and names.
    pub unique: UniqueSettings,
}

impl TailnetWide {
    /// All at once, for a whole tailnet: `held` has the policies of each device, as they count there.
    /// Counts the attributes of those devices whose policies name some, as nobody reads those of others.
    #[must_use]
    pub fn among<'a>(
        held: &BTreeMap<NodeId, Vec<(&'a Policy, &'a PolicyRecord)>>,
        attributes: &BTreeMap<NodeId, Attributes>,
        now: Timestamp,
    ) -> Self {
        let mut tailnet_wide = Self::default();
        for (policy, _) in held.values().flatten() {
            if AttributeTypes::is_set_by(policy) {
                tailnet_wide.types.gain_device(policy);
            }
        }
        for (node, policies) in held {
            let claims = FieldOwners::resolve(
                policies,
                &[],
                &tailnet_wide.types,
                &ApprovalStates::default(),
                PolicyPermissions::default(),
                node,
                now,
            );
            let read = attributes.get(node).filter(|_| claims.need_attributes());
            let types = read.map(AttributeType::all).unwrap_or_default();
            tailnet_wide.types.note(node, &BTreeSet::new(), &types);
            tailnet_wide
                .unique
                .put(node, UniqueSetting::of(&claims, policies));
        }
        tailnet_wide
    }
}

/// What two policies cannot both have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConflictKind {
    /// A field of one device.
    #[default]
    Field,
    /// An attribute key, which has one spelling and one type in the whole tailnet: the winner's.
    Type(AttributeType),
    /// What only one device can have: the winner wishes it for this one.
    Device(String),
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field => Ok(()),
            Self::Type(attribute_type) => write!(
                f,
                ", which wishes for {attribute_type} (a key has one spelling and one type in the whole tailnet)"
            ),
            Self::Device(device) => write!(f, ", which wishes for it on {device}"),
        }
    }
}
