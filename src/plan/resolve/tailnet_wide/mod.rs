//! Tailnet-wide conflicts: between policies of different devices.
//!
//! | unique in the tailnet        | between policies         | with the observed state            |
//! |------------------------------|--------------------------|------------------------------------|
//! | the type of an attribute key | [`super::ConflictKind::Type`]   | [`super::Hold::AttributeConflict`] |
//! | an IPv4 address              | [`super::ConflictKind::Device`] | `AddressInUse` and `AddressSwap`   |
//! | a name                       | [`super::ConflictKind::Device`] | `NameTaken`                        |
//!
//! Kept up to date one policy and one device at a time. Each update returns what must be compared again.

mod attribute_type;
mod overridden;
#[cfg(test)]
mod tests;
mod types;
mod unique;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub use attribute_type::AttributeType;
pub use types::AttributeTypes;
pub use unique::{UniqueSetting, UniqueSettings};

use crate::model::{Attributes, NodeId};
use crate::plan::{ApprovalStates, FieldOwners, Policy, PolicyPermissions, PolicyRecord};

/// The claims of a tailnet's policies on settings that are unique in the tailnet.
#[derive(Debug, Clone, Default)]
pub struct TailnetWide {
    /// The spelling and type of attribute keys.
    pub types: AttributeTypes,
    /// Addresses and names.
    pub unique: UniqueSettings,
}

impl TailnetWide {
    /// Computes the claims of a whole tailnet: `held` has the policies of each device, with their allowed
    /// settings; `attributes` has what was read, also for policies that only observe a device.
    #[must_use]
    pub fn among<'a>(
        held: &BTreeMap<NodeId, Vec<(&'a Policy, &'a PolicyRecord)>>,
        attributes: &BTreeMap<NodeId, Attributes>,
        now: Timestamp,
    ) -> Self {
        let mut tailnet_wide = Self::default();
        // All claims on types first, because a policy of any device may own the type of a key.
        for (policy, _) in held.values().flatten() {
            if AttributeTypes::is_set_by(policy) {
                tailnet_wide.types.gain_device(policy);
            }
        }
        for (node, policies) in held {
            let field_owners = FieldOwners::resolve(
                policies,
                &[],
                &tailnet_wide.types,
                // A policy keeps its claims while it waits for an approval or for the limit.
                &ApprovalStates::default(),
                // The denied settings are gone already.
                PolicyPermissions::default(),
                node,
                now,
            );
            let read = attributes.get(node);
            let types = read.map(AttributeType::all).unwrap_or_default();
            tailnet_wide.types.note(node, &BTreeSet::new(), &types);
            tailnet_wide
                .unique
                .put(node, UniqueSetting::of(&field_owners, policies));
        }
        tailnet_wide
    }
}
