//! Makes the plan of a device from its differences.

use super::{
    DevicePlan,
    compare::Found,
    desired_by::{desired_by, is_known},
};
use crate::{
    model::{Attributes, Device},
    plan::{Change, Difference, FieldOwners, Mode, UniqueSetting, release::declared_keys},
};

/// The plan of a device, without its one-shot actions. `only_shown` differences count for nothing else.
pub(in crate::plan) fn finish(
    found: Found,
    only_shown: Vec<Difference>,
    device: &Device,
    attributes: Option<&Attributes>,
    owners: FieldOwners,
    unique: UniqueSetting,
) -> DevicePlan {
    let mut desired_by = desired_by(&found.wanted, found.all());
    if !is_known(device, attributes, &owners) {
        // A release is known before all of its devices are read. The limit must count it as a whole, or it
        // would begin with the devices that are read first. A release that needs an approval counts once it is
        // approved.
        for policy in &owners.releasing {
            if owners.mode(policy) == Mode::Enforce {
                desired_by.insert(policy.clone());
            }
        }
    }
    // Before any attribute is read, nobody knows what a policy would set.
    let managed = attributes.map(|_| declared_keys::keys(&owners, &found.acting, &found.all()));
    let Found {
        mut differences,
        mut shown,
        asked,
        ..
    } = found;
    shown.extend(only_shown);
    // A device that is being deleted gets no other change.
    let is_deleted = |difference: &Difference| {
        difference.hold.is_none() && matches!(difference.change, Change::Delete { .. })
    };
    if differences.iter().any(is_deleted) {
        differences.retain(is_deleted);
    }
    differences.sort_by_key(|difference| difference.change.field());
    shown.sort_by_key(|difference| difference.change.field());
    DevicePlan {
        differences,
        shown,
        desired_by,
        asked,
        attributes_unread: owners.need_attributes() && attributes.is_none(),
        enabled_routes: device.enabled_routes.clone().unwrap_or_default(),
        routes_unread: owners.need_routes() && device.enabled_routes.is_none(),
        unique,
        managed: managed.unwrap_or_default(),
        owners,
        ..DevicePlan::default()
    }
}
