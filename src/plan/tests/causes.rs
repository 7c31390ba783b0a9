//! Every declared value that does not hold is in the plan with its cause.

use jiff::Timestamp;

use crate::{
    model::{Attributes, Device, ListValue},
    plan::{Change, DevicePlan, Field, Policy},
};

/// The fields that a policy declares and that a device does not have, without a difference and without a policy
/// that takes precedence.
pub fn unexplained(
    policy: &Policy,
    device: &Device,
    attributes: &Attributes,
    plan: &DevicePlan,
    now: Timestamp,
) -> Vec<Field> {
    // A device that is being deleted gets no other change.
    let mut all = plan.differences.iter().chain(&plan.shown);
    if all.any(|it| matches!(it.change, Change::Delete { .. })) {
        return Vec::new();
    }
    let key = &policy.key;
    let is_explained = |field: &Field| {
        let mut own = plan.of(key);
        let mut conflicts = plan.conflicts_of(key);
        own.any(|it| it.change.field() == *field) || conflicts.any(|it| it.field == *field)
    };
    let mut lacking = lacking(policy, device, attributes, now);
    lacking.retain(|field| !is_explained(field));
    lacking
}

/// The fields that a policy declares and that a device does not have.
fn lacking(
    policy: &Policy,
    device: &Device,
    attributes: &Attributes,
    now: Timestamp,
) -> Vec<Field> {
    let desired = &policy.desired;
    let settings = desired.settings.values();
    let settings = settings.filter(|value| value.setting().of(device).as_ref() != Some(value));
    let mut lacking: Vec<Field> = settings.map(|it| Field::Setting(it.setting())).collect();
    for value in desired.lists() {
        let list = value.setting();
        // More entries may be those of other policies.
        let has = match (&value, list.of(device)) {
            (ListValue::Tags(desired), Some(ListValue::Tags(observed))) => {
                desired.is_subset(&observed)
            }
            (ListValue::EnabledRoutes(desired), Some(ListValue::EnabledRoutes(observed))) => {
                desired.is_subset(&observed)
            }
            (desired, observed) => observed.as_ref() == Some(desired),
        };
        if !has {
            lacking.push(Field::List(list));
        }
    }
    for (key, desired) in desired.attributes.iter().flatten() {
        let observed = attributes.get(key);
        let is_met = observed.is_some_and(|observed| desired.is_met_by(observed));
        if !is_met && !desired.has_expired(now) {
            lacking.push(Field::Attribute(key.clone()));
        }
    }
    lacking
}
