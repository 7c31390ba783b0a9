//! The readable part of an invalid spec.
//!
//! An error in a manifest must not give its fields to a policy that ranks later, because that policy could
//! remove settings. Until the error is corrected, an invalid policy keeps its precedence and sends nothing: for
//! the last valid spec while the process that knows it runs, and otherwise for the readable part. An
//! unreadable field stays on the devices as it is ([`DesiredSettings::unreadable`]); for an unreadable device,
//! the recorded one counts.

use std::collections::BTreeMap;

use crate::model::{
    AttributeKey, AttributeValue, Attributes, DesiredAttribute, Device, FieldKind, PolicyField,
    TagSet,
};
use crate::plan::{
    DesiredSettings, DeviceTarget, Identity, Mode, Ownership, Policy, PolicyRecord, Selector,
    Suspender, Target,
};

impl Policy {
    /// The policy as it is in effect while its spec is invalid.
    #[must_use]
    pub fn while_invalid(self) -> Self {
        let mode = match self.mode {
            // It has no precedence that it could keep.
            Mode::Observe => Mode::Observe,
            _ => Mode::Suspended(Suspender::Invalid),
        };
        Self { mode, ..self }
    }

    /// Whether its spec is invalid, so that its records must not change.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.mode == Mode::Suspended(Suspender::Invalid)
    }

    /// The readable part of an invalid spec; `None` if its devices are unknown. Each error begins with the
    /// path of its field.
    #[must_use]
    pub fn readable_part(mut self, errors: &[String], record: &PolicyRecord) -> Option<Self> {
        for error in errors {
            let path = error.strip_prefix("spec.").unwrap_or(error);
            let end = path.find(['.', '[', ':']).unwrap_or(path.len());
            match &path[..end] {
                // The recorded device, by its id: a guess at the name could hold up another device.
                "device" => {
                    self.target = Target::Device(DeviceTarget {
                        identity: Identity::NodeId(record.bound.as_ref()?.node.clone()),
                        tags: TagSet::new(),
                        users: Vec::new(),
                    });
                }
                // Of a selector that cannot be read nothing is known, so nothing is held for it.
                "deviceSelector" if self.target == Target::Selector(Selector::default()) => {
                    return None;
                }
                field => self.desired.leave_unreadable(field),
            }
        }
        Some(self.while_invalid())
    }

    /// The policy for one device, with the observed state in place of unreadable fields.
    #[must_use]
    pub fn with_observed(&self, device: &Device, attributes: Option<&Attributes>) -> Self {
        let mut policy = self.clone();
        // Taken, as what is observed now counts as declared from here on.
        let unreadable = std::mem::take(&mut policy.desired.unreadable);
        let (desired, ownership) = (&mut policy.desired, &mut policy.ownership);
        for field in unreadable {
            observe(desired, ownership, field, device, attributes);
        }
        policy
    }
}

impl DesiredSettings {
    /// Marks a field as unreadable, so that it stays as it is.
    fn leave_unreadable(&mut self, field: &str) {
        let mut all = PolicyField::ALL.into_iter();
        let Some(field) = all.find(|known| known.as_str() == field) else {
            // An error elsewhere, for example in `ownership`, leaves the settings readable.
            return;
        };
        self.unreadable.insert(field);
    }
}

fn observe(
    desired: &mut DesiredSettings,
    ownership: &mut Ownership,
    field: PolicyField,
    device: &Device,
    attributes: Option<&Attributes>,
) {
    match field.kind() {
        FieldKind::Setting(setting) => match setting.of(device) {
            Some(value) => desired.settings.set(value),
            None => desired.settings.unset(setting),
        },
        FieldKind::List(list) => {
            desired.set_list(list.of(device).unwrap_or_else(|| list.empty()));
            // As `Exact` it overrides each policy that would add or remove an entry.
            ownership.own_all(list);
        }
        FieldKind::PostureAttributes => {
            let declared = desired.attributes.get_or_insert_default();
            declared.extend(observed(attributes));
        }
        FieldKind::ExpireKeyAt => desired.expire_key_at = None,
        FieldKind::DeleteInactive => desired.delete_inactive = None,
    }
}

/// The attributes of a device, as a policy would declare them.
fn observed(attributes: Option<&Attributes>) -> BTreeMap<AttributeKey, DesiredAttribute> {
    let attributes = attributes.into_iter().flatten();
    let desired = attributes.filter_map(|(key, reported)| {
        let value = match &reported.value {
            serde_json::Value::String(text) => AttributeValue::String(text.parse().ok()?),
            serde_json::Value::Bool(flag) => AttributeValue::Boolean(*flag),
            number => AttributeValue::Integer(number.as_i64()?.try_into().ok()?),
        };
        let expiry = reported.expiry;
        Some((key.clone(), DesiredAttribute { value, expiry }))
    });
    desired.collect()
}

/// The policies with unreadable fields, with the observed state in place of those fields; `None` for all others.
pub(in crate::plan) fn with_observed(
    device: &Device,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &PolicyRecord)],
) -> Vec<Option<Policy>> {
    let replaced = policies.iter().map(|(policy, _)| {
        let unreadable = !policy.desired.unreadable.is_empty();
        unreadable.then(|| policy.with_observed(device, attributes))
    });
    replaced.collect()
}
