//! The settings of a policy by name, as tests read them.

use crate::{
    model::{DeviceLabel, Setting, SettingValue, TailnetIpv4},
    plan::{DeclaredSettings, DesiredSettings},
};

/// Those of the settings that a generator chose.
pub(crate) fn declared<const N: usize>(chosen: [Option<SettingValue>; N]) -> DeclaredSettings {
    let mut settings = DeclaredSettings::default();
    for value in chosen.into_iter().flatten() {
        settings.set(value);
    }
    settings
}

impl DesiredSettings {
    pub(crate) fn authorized(&self) -> Option<bool> {
        self.settings
            .get(Setting::Authorized)
            .map(|value| *value == SettingValue::Authorized(true))
    }

    pub(crate) fn key_expiry_disabled(&self) -> Option<bool> {
        self.settings
            .get(Setting::KeyExpiry)
            .map(|value| *value == SettingValue::KeyExpiryDisabled(true))
    }

    pub(crate) fn name(&self) -> Option<DeviceLabel> {
        match self.settings.get(Setting::Name)? {
            SettingValue::Name(name) => Some(name.clone()),
            other => unreachable!("{other} is not a name"),
        }
    }

    pub(crate) fn ipv4(&self) -> Option<TailnetIpv4> {
        match self.settings.get(Setting::Ipv4)? {
            SettingValue::Ipv4(ipv4) => Some(*ipv4),
            other => unreachable!("{other} is not an address"),
        }
    }
}
