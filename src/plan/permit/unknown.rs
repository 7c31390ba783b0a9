//! What depends on a field of a device that cannot be read. All of it waits.

use crate::{
    model::{Device, DeviceField, ListSetting, UnreadableFields},
    plan::{AllowedRules, Field, Guardrails, Policy, Target},
};

/// The fields of a device that a setting or an action depends on.
pub(super) fn needed(field: &Field) -> Vec<DeviceField> {
    match field {
        Field::Setting(setting) => vec![setting.reported_in()],
        Field::List(ListSetting::Tags) => vec![DeviceField::Tags],
        // Whether the device had joined by then, and whether its key can expire or has.
        Field::ExpireKeyAt => vec![
            DeviceField::Created,
            DeviceField::KeyExpiryDisabled,
            DeviceField::Expires,
        ],
        // Routes and attributes have requests of their own. An unreadable device is never inactive.
        Field::List(ListSetting::EnabledRoutes | ListSetting::ExitNode)
        | Field::Attribute(_)
        | Field::DeleteInactive => Vec::new(),
    }
}

impl Policy {
    /// The unreadable fields of a device that keep it unknown whether the policy targets the device, and
    /// whether a rule lets it. A policy that may target a device counts among its policies and sends nothing.
    #[must_use]
    pub fn undecided_by(&self, device: &Device) -> UnreadableFields {
        let mut fields = match &self.target {
            Target::Selector(selector) => selector.undecided_by(device),
            Target::Device(target) => target.undecided_by(device),
        };
        fields.extend(self.allowance.undecided_by(device));
        fields
    }
}

impl AllowedRules {
    /// The unreadable fields of a device that keep it unknown which rules are for it.
    pub(super) fn undecided_by(&self, device: &Device) -> UnreadableFields {
        let mut fields = UnreadableFields::default();
        if device.unreadable.is_empty() {
            return fields;
        }
        let rules = self.0.iter().flat_map(|rules| rules.iter());
        for guarded in rules.filter_map(|rule| rule.devices.as_ref()).flatten() {
            fields.extend(guarded.selector.undecided_by(device));
        }
        fields
    }
}

impl Guardrails {
    /// The unreadable fields of a device that keep it unknown whether the device is protected, or anybody's
    /// to change.
    pub(super) fn undecided_by(&self, device: &Device) -> UnreadableFields {
        let mut fields = device.unreadable.among(&[DeviceField::IsExternal]);
        if device.unreadable.is_empty() {
            return fields;
        }
        for guarded in &self.protected {
            fields.extend(guarded.selector.undecided_by(device));
        }
        fields
    }
}
