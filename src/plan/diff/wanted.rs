//! Who wants to change a device: what the limit of changed devices asks.

use std::collections::BTreeSet;

use crate::{
    model::{Attributes, Device},
    plan::{Difference, Field, FieldOwners, Hold, PolicyKey},
};

/// Whether all has been read that is to be compared.
pub(super) fn is_known(
    device: &Device,
    attributes: Option<&Attributes>,
    claims: &FieldOwners,
) -> bool {
    (!claims.need_attributes() || attributes.is_some())
        && (!claims.need_routes() || device.enabled_routes.is_some())
}

/// The policies among these that wish for something that no guard holds.
pub(super) fn desired_by<'a>(
    unique: Vec<(Field, PolicyKey)>,
    differences: impl Iterator<Item = &'a Difference>,
) -> BTreeSet<PolicyKey> {
    let may_be_made =
        |difference: &&Difference| matches!(difference.hold, None | Some(Hold::Limit(_)));
    let open: Vec<&Difference> = differences.filter(may_be_made).collect();
    let may_be_made = |field: &Field, policy: &PolicyKey| {
        let mut open = open.iter();
        open.any(|open| open.change.field() == *field && open.concerns(policy))
    };
    let unique = unique.into_iter();
    let wanted = unique.filter(|(field, policy)| may_be_made(field, policy));
    wanted.map(|(_, policy)| policy).collect()
}
