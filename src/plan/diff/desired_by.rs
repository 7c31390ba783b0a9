//! The policies that want to change a device, for the limit of changed devices.

use std::collections::BTreeSet;

use crate::{
    model::{Attributes, Device},
    plan::{Difference, Field, FieldOwners, Hold, PolicyKey},
};

/// Whether everything that must be compared has been read.
pub(super) fn is_known(
    device: &Device,
    attributes: Option<&Attributes>,
    field_owners: &FieldOwners,
) -> bool {
    (!field_owners.need_attributes() || attributes.is_some())
        && (!field_owners.need_routes() || device.enabled_routes.is_some())
}

/// The policies with a wanted change that no guard holds.
pub(super) fn desired_by<'a>(
    wanted: &[(Field, PolicyKey)],
    differences: impl Iterator<Item = &'a Difference>,
) -> BTreeSet<PolicyKey> {
    let open: Vec<&Difference> = differences
        // The limit itself must not take a change out of its own count.
        .filter(|difference| matches!(difference.hold, None | Some(Hold::Limit(_))))
        .collect();
    wanted
        .iter()
        .filter(|(field, policy)| {
            open.iter()
                .any(|open| open.change.field() == *field && open.concerns(policy))
        })
        .map(|(_, policy)| policy.clone())
        .collect()
}
