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
        .filter(|difference| matches!(difference.hold, None | Some(Hold::Limit(_))))
        .collect();
    let is_open = |field: &Field, policy: &PolicyKey| {
        let mut open = open.iter();
        open.any(|open| open.change.field() == *field && open.concerns(policy))
    };
    wanted
        .iter()
        .filter(|(field, policy)| is_open(field, policy))
        .map(|(_, policy)| policy.clone())
        .collect()
}
