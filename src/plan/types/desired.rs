//! What a policy desires of its devices.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use litemap::LiteMap;

use super::{Change, Field};
use crate::{
    model::{
        AttributeKey, DesiredAttribute, ListSetting, ListValue, PolicyField, RouteSet, Setting,
        SettingValue, TagSet,
    },
    plan::DeleteInactive,
};

/// The desired settings of a device. A setting that is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredSettings {
    /// Those that are one value.
    pub settings: DeclaredSettings,
    /// Its tags. Under `Exact` never empty, as the API cannot take the last tag from a device.
    pub tags: Option<TagSet>,
    /// Its approved subnet routes, without those of an exit node.
    pub enabled_routes: Option<RouteSet>,
    /// Whether it is approved as an exit node.
    pub exit_node: Option<bool>,
    /// Its posture attributes, by key.
    pub attributes: Option<BTreeMap<AttributeKey, DesiredAttribute>>,
    /// When to expire its key, once.
    pub expire_key_at: Option<Timestamp>,
    /// Whether to delete it when it is inactive.
    pub delete_inactive: Option<DeleteInactive>,
    /// The unreadable fields of an invalid spec: they stay as they are.
    pub unreadable: BTreeSet<PolicyField>,
}

/// The declared settings that are one value each, by setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredSettings(LiteMap<Setting, SettingValue>);

impl DeclaredSettings {
    /// The declared value of a setting.
    #[must_use]
    pub fn get(&self, setting: Setting) -> Option<&SettingValue> {
        self.0.get(&setting)
    }

    /// The declared values.
    pub fn values(&self) -> impl Iterator<Item = &SettingValue> {
        self.0.values()
    }

    /// Declares a setting.
    pub fn set(&mut self, value: SettingValue) {
        self.0.insert(value.setting(), value);
    }

    /// Declares nothing for a setting.
    pub fn unset(&mut self, setting: Setting) {
        self.0.remove(&setting);
    }
}

impl<const N: usize> From<[SettingValue; N]> for DeclaredSettings {
    fn from(values: [SettingValue; N]) -> Self {
        let mut settings = Self::default();
        for value in values {
            settings.set(value);
        }
        settings
    }
}

impl DesiredSettings {
    /// Whether a one-shot action is declared.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        self.expire_key_at.is_some() || self.delete_inactive.is_some()
    }

    /// Whether a declared value claims something in the whole tailnet ([`Setting::is_tailnet_wide`]).
    #[must_use]
    pub fn has_tailnet_wide(&self) -> bool {
        let mut settings = self.settings.values();
        // The API keeps one type for each key in a whole tailnet (docs/decisions/0007).
        self.attributes.is_some() || settings.any(|value| value.setting().is_tailnet_wide())
    }

    /// The declared settings that are entries of a list.
    pub fn lists(&self) -> impl Iterator<Item = ListValue> {
        let all = ListSetting::ALL.into_iter();
        all.filter_map(|list| self.list(list))
    }

    /// The declared entries of a list.
    #[must_use]
    pub fn list(&self, list: ListSetting) -> Option<ListValue> {
        match list {
            ListSetting::Tags => self.tags.clone().map(ListValue::Tags),
            ListSetting::EnabledRoutes => self.enabled_routes.clone().map(ListValue::EnabledRoutes),
            ListSetting::ExitNode => self.exit_node.map(ListValue::exit_node),
        }
    }

    /// Declares the entries of a list.
    pub fn set_list(&mut self, value: ListValue) {
        match value {
            ListValue::Tags(tags) => self.tags = Some(tags),
            ListValue::EnabledRoutes(routes) => self.enabled_routes = Some(routes),
            ListValue::ExitNode(routes) => self.exit_node = Some(!routes.is_empty()),
        }
    }

    /// Declares nothing for a list.
    fn unset_list(&mut self, list: ListSetting) {
        match list {
            ListSetting::Tags => self.tags = None,
            ListSetting::EnabledRoutes => self.enabled_routes = None,
            ListSetting::ExitNode => self.exit_node = None,
        }
    }

    /// The settings of these fields only.
    pub(in crate::plan) fn only(&self, wanted: impl Fn(PolicyField) -> bool) -> Self {
        let mut only = self.clone();
        for setting in Setting::ALL {
            if !wanted(setting.field()) {
                only.settings.unset(setting);
            }
        }
        for list in ListSetting::ALL {
            if !wanted(list.field()) {
                only.unset_list(list);
            }
        }
        only.attributes
            .take_if(|_| !wanted(PolicyField::PostureAttributes));
        only.expire_key_at
            .take_if(|_| !wanted(PolicyField::ExpireKeyAt));
        only.delete_inactive
            .take_if(|_| !wanted(PolicyField::DeleteInactive));
        // A field that cannot be read is kept as it is, but only as far as the policy may change it.
        only.unreadable.retain(|field| wanted(*field));
        only
    }

    /// The declared settings, to be shown without a comparison with any device. Unreadable fields are left
    /// out.
    #[must_use]
    pub fn uncompared(&self) -> Vec<Change> {
        let mut declared: Vec<(Field, String)> = Vec::new();
        for value in self.settings.values() {
            declared.push((Field::Setting(value.setting()), value.to_string()));
        }
        for value in self.lists() {
            declared.push((Field::List(value.setting()), value.to_string()));
        }
        for (key, desired) in self.attributes.iter().flatten() {
            declared.push((Field::Attribute(key.clone()), desired.to_string()));
        }
        if let Some(at) = self.expire_key_at {
            declared.push((Field::ExpireKeyAt, format!("expired as of {at}")));
        }
        if self.delete_inactive.is_some() {
            declared.push((Field::DeleteInactive, "deleted".to_owned()));
        }
        declared.sort();
        declared
            .into_iter()
            .map(|(field, after)| Change::NotCompared { field, after })
            .collect()
    }

    /// The declared fields.
    #[must_use]
    pub fn fields(&self) -> Vec<PolicyField> {
        let others = [
            (self.attributes.is_some(), PolicyField::PostureAttributes),
            (self.expire_key_at.is_some(), PolicyField::ExpireKeyAt),
            (self.delete_inactive.is_some(), PolicyField::DeleteInactive),
        ];
        let settings = self.settings.values().map(|value| value.setting().field());
        let mut fields: Vec<PolicyField> = settings
            .chain(self.lists().map(|value| value.setting().field()))
            .chain(
                others
                    .into_iter()
                    .filter_map(|(is_declared, field)| is_declared.then_some(field)),
            )
            .collect();
        fields.sort();
        // An unreadable field is declared too: a rule must allow it.
        fields.extend(&self.unreadable);
        fields
    }
}
