//! Reads the settings that a spec declares.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{policy::ownership, spec_errors::SpecErrors};
use crate::{
    api::{self, KeyExpiry, PostureAttribute, TailscaleDevicePolicySpec},
    model::{
        AttributeKey, AttributeString, AttributeValue, DesiredAttribute, ListSetting, ListValue,
        PolicyField, Route, SafeInteger, Setting, SettingValue, Tag,
    },
    plan::{DeleteInactive, DesiredSettings, ListOwnership},
};

impl SpecErrors {
    pub(super) fn desired(&mut self, spec: &TailscaleDevicePolicySpec) -> DesiredSettings {
        // The API answers `tagged nodes cannot be untagged without reauth`, so the spec is refused
        // first.
        let all_tags = ownership(spec).tags == ListOwnership::Exact;
        if all_tags && spec.tags.as_ref().is_some_and(Vec::is_empty) {
            self.add(
                "tags",
                "the API cannot remove the last tag of a device: remove the field, or write \
                 ownership: {tags: AtLeast}",
            );
        }
        let deauthorizes = spec.authorized == Some(false);
        if deauthorizes
            && !spec
                .allow_disruption
                .contains(&api::Disruption::Deauthorize)
        {
            self.add(
                "authorized",
                "false cuts the device off: add allowDisruption: [Deauthorize]",
            );
        }
        let (expire_key_at, delete_inactive) = self.actions(spec);
        let mut desired = DesiredSettings {
            expire_key_at,
            delete_inactive,
            ..DesiredSettings::default()
        };
        for list in ListSetting::ALL {
            if let Some(value) = self.list(list, spec) {
                desired.set_list(value);
            }
        }
        let attributes = spec.posture_attributes.as_ref();
        desired.attributes = attributes.map(|declared| self.attributes(declared));
        for setting in Setting::ALL {
            if let Some(value) = self.setting(setting, spec) {
                desired.settings.set(value);
            }
        }
        desired
    }

    fn setting(
        &mut self,
        setting: Setting,
        spec: &TailscaleDevicePolicySpec,
    ) -> Option<SettingValue> {
        match setting {
            Setting::Authorized => spec.authorized.map(SettingValue::Authorized),
            Setting::KeyExpiry => {
                // The API's field is the opposite: keyExpiryDisabled.
                let disabled = spec.key_expiry? == KeyExpiry::Disabled;
                Some(SettingValue::KeyExpiryDisabled(disabled))
            }
            Setting::Name => {
                let name = self.one("name", spec.name.as_ref());
                name.map(SettingValue::Name)
            }
            Setting::Ipv4 => {
                let ipv4 = self.one("ipv4", spec.ipv4.as_ref());
                ipv4.map(SettingValue::Ipv4)
            }
        }
    }

    fn list(&mut self, list: ListSetting, spec: &TailscaleDevicePolicySpec) -> Option<ListValue> {
        match list {
            ListSetting::Tags => {
                let tags = spec.tags.as_ref()?;
                Some(ListValue::Tags(self.set("tags", tags).into()))
            }
            ListSetting::EnabledRoutes => {
                let routes = spec.enabled_routes.as_ref()?;
                Some(ListValue::EnabledRoutes(self.set("enabledRoutes", routes)))
            }
            ListSetting::ExitNode => spec.exit_node.map(ListValue::exit_node),
        }
    }

    /// Refuses settings that no two devices can have, for a policy with a selector.
    pub(super) fn refuse_unique(&mut self, spec: &TailscaleDevicePolicySpec) {
        let unique = Setting::ALL.into_iter().filter(|it| it.is_tailnet_wide());
        for setting in unique.filter(|setting| is_declared(setting.field(), spec)) {
            self.add(
                setting.field().as_str(),
                "two devices cannot have the same value: write device instead of deviceSelector, or remove \
                 the field",
            );
        }
    }

    fn actions(
        &mut self,
        spec: &TailscaleDevicePolicySpec,
    ) -> (Option<Timestamp>, Option<DeleteInactive>) {
        let at = self.time("expireKeyAt", spec.expire_key_at.as_ref());
        if at.is_some() && spec.key_expiry == Some(KeyExpiry::Disabled) {
            self.add("expireKeyAt", api::KEY_NEVER_EXPIRES);
        }
        let Some(delete_inactive) = &spec.delete_inactive else {
            return (at, None);
        };
        if spec.device_selector.is_none() {
            self.add(
                "deleteInactive",
                "write deviceSelector instead of device, or remove deleteInactive",
            );
        }
        let inactive_for = self
            .value_of("deleteInactive.inactiveFor", delete_inactive.inactive_for())
            .and_then(|length| SignedDuration::try_from(length).ok());
        let max_per_day = self.value_of("deleteInactive.maxPerDay", delete_inactive.max_per_day());
        let desired = inactive_for
            .zip(max_per_day)
            .map(|(inactive_for, max_per_day)| DeleteInactive {
                inactive_for,
                max_per_day,
            });
        (at, desired)
    }

    fn attributes(
        &mut self,
        desired: &BTreeMap<String, PostureAttribute>,
    ) -> BTreeMap<AttributeKey, DesiredAttribute> {
        let mut parsed: BTreeMap<AttributeKey, DesiredAttribute> = BTreeMap::new();
        for (name, desired) in desired {
            let path = format!("postureAttributes[{name}]");
            let key: Option<AttributeKey> = self.one(&path, Some(name));
            let value = self.value(&path, desired);
            let expiry = self.time(&format!("{path}.expiry"), desired.expiry.as_ref());
            // After all three are parsed, so that each of their errors is reported.
            let (Some(key), Some(value)) = (key, value) else {
                continue;
            };
            // The tailnet treats them as one key, and the last write would win.
            if let Some(other) = parsed.keys().find(|other| other.folded() == key.folded()) {
                let error = format!("differs from {other} only in case: keep one of the two");
                self.add(&path, error);
            }
            parsed.insert(key, DesiredAttribute { value, expiry });
        }
        parsed
    }

    fn value(&mut self, path: &str, desired: &PostureAttribute) -> Option<AttributeValue> {
        match (&desired.string, desired.integer, desired.boolean) {
            (Some(text), None, None) => self
                .one::<AttributeString>(&format!("{path}.string"), Some(text))
                .map(AttributeValue::String),
            (None, Some(number), None) => match SafeInteger::try_from(number) {
                Ok(number) => Some(AttributeValue::Integer(number)),
                Err(error) => {
                    self.add(&format!("{path}.integer"), error);
                    None
                }
            },
            (None, None, Some(flag)) => Some(AttributeValue::Boolean(flag)),
            _ => {
                self.add(path, "write exactly one of string, integer and boolean");
                None
            }
        }
    }
}

/// Declares a setting in a spec.
pub fn declare(spec: &mut TailscaleDevicePolicySpec, value: &SettingValue) {
    match value {
        SettingValue::Authorized(authorized) => spec.authorized = Some(*authorized),
        SettingValue::KeyExpiryDisabled(true) => spec.key_expiry = Some(KeyExpiry::Disabled),
        SettingValue::KeyExpiryDisabled(false) => spec.key_expiry = Some(KeyExpiry::Enabled),
        SettingValue::Name(name) => spec.name = Some(name.to_string()),
        SettingValue::Ipv4(ipv4) => spec.ipv4 = Some(ipv4.to_string()),
    }
}

/// Declares the entries of a list in a spec.
pub fn declare_list(spec: &mut TailscaleDevicePolicySpec, value: &ListValue) {
    match value {
        ListValue::Tags(tags) => spec.tags = Some(tags.iter().map(Tag::to_string).collect()),
        ListValue::EnabledRoutes(routes) => {
            spec.enabled_routes = Some(routes.iter().map(Route::to_string).collect());
        }
        ListValue::ExitNode(routes) => spec.exit_node = Some(!routes.is_empty()),
    }
}

/// Removes a field from a spec.
pub fn undeclare(spec: &mut TailscaleDevicePolicySpec, field: PolicyField) {
    match field {
        PolicyField::Authorized => spec.authorized = None,
        PolicyField::Tags => spec.tags = None,
        PolicyField::KeyExpiry => spec.key_expiry = None,
        PolicyField::EnabledRoutes => spec.enabled_routes = None,
        PolicyField::ExitNode => spec.exit_node = None,
        PolicyField::PostureAttributes => spec.posture_attributes = None,
        PolicyField::Name => spec.name = None,
        PolicyField::Ipv4 => spec.ipv4 = None,
        PolicyField::ExpireKeyAt => spec.expire_key_at = None,
        PolicyField::DeleteInactive => spec.delete_inactive = None,
    }
}

/// Whether two specs declare the same in a field, or both nothing.
#[must_use]
pub fn declares_same(
    field: PolicyField,
    one: &TailscaleDevicePolicySpec,
    other: &TailscaleDevicePolicySpec,
) -> bool {
    match field {
        PolicyField::Authorized => one.authorized == other.authorized,
        PolicyField::Tags => one.tags == other.tags,
        PolicyField::KeyExpiry => one.key_expiry == other.key_expiry,
        PolicyField::EnabledRoutes => one.enabled_routes == other.enabled_routes,
        PolicyField::ExitNode => one.exit_node == other.exit_node,
        PolicyField::PostureAttributes => one.posture_attributes == other.posture_attributes,
        PolicyField::Name => one.name == other.name,
        PolicyField::Ipv4 => one.ipv4 == other.ipv4,
        PolicyField::ExpireKeyAt => one.expire_key_at == other.expire_key_at,
        PolicyField::DeleteInactive => one.delete_inactive == other.delete_inactive,
    }
}

/// Whether a spec has a field, valid or not.
fn is_declared(field: PolicyField, spec: &TailscaleDevicePolicySpec) -> bool {
    !declares_same(field, spec, &TailscaleDevicePolicySpec::default())
}
