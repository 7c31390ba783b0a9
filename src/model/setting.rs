//! The table of the settings that are one value, each written by one request, with the fields of a spec that
//! declare them, and the order of their requests.
//!
//! A new setting of that kind is a variant of each enum here, and a field of [`Device`]. The compiler, or a test
//! that walks [`Setting::ALL`], then names every other place that must know it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Device, DeviceField, DeviceLabel, Refused, TailnetIpv4};

/// A field of a policy's spec that declares a setting or a one-shot action.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum PolicyField {
    /// Whether the device is authorized.
    Authorized,
    /// Its tags.
    Tags,
    /// Whether its key expires.
    KeyExpiry,
    /// Its subnet routes.
    EnabledRoutes,
    /// Whether it is an exit node.
    ExitNode,
    /// Its posture attributes.
    PostureAttributes,
    /// Its name.
    Name,
    /// Its IPv4 address.
    Ipv4,
    /// When its key is expired.
    ExpireKeyAt,
    /// Whether it is deleted when it is inactive.
    DeleteInactive,
}

impl PolicyField {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Authorized,
        Self::Tags,
        Self::KeyExpiry,
        Self::EnabledRoutes,
        Self::ExitNode,
        Self::PostureAttributes,
        Self::Name,
        Self::Ipv4,
        Self::ExpireKeyAt,
        Self::DeleteInactive,
    ];

    /// The field's name in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorized => "authorized",
            Self::Tags => "tags",
            Self::KeyExpiry => "keyExpiry",
            Self::EnabledRoutes => "enabledRoutes",
            Self::ExitNode => "exitNode",
            Self::PostureAttributes => "postureAttributes",
            Self::Name => "name",
            Self::Ipv4 => "ipv4",
            Self::ExpireKeyAt => "expireKeyAt",
            Self::DeleteInactive => "deleteInactive",
        }
    }
}

impl fmt::Display for PolicyField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The requests of one device, in the order in which they are sent. Changes with the same step share a request.
///
/// No device is authorized before its restrictions are in place, and tags change before the settings that depend
/// on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A device that is deleted gets no other request.
    Delete,
    /// Takes it out of the tailnet.
    Deauthorize,
    /// Its tags.
    Tags,
    /// Whether its key expires.
    // The API may disable key expiry when it tags a device, so tags go first.
    KeyExpiry,
    /// Its posture attributes.
    Attributes,
    /// Its routes, of both kinds.
    Routes,
    /// Its name.
    Name,
    /// Its address.
    Ipv4,
    /// Expires its key.
    ExpireKey,
    /// Lets it into the tailnet.
    Authorize,
    /// It is never sent.
    Never,
}

/// A setting that is one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Whether the device may take part in the tailnet.
    Authorized,
    /// Whether its key expires.
    KeyExpiry,
    /// Its MagicDNS label.
    Name,
    /// Its IPv4 address.
    Ipv4,
}

/// The value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Hash)]
#[serde(untagged)]
pub enum SettingValue {
    /// Whether the device may take part in the tailnet.
    Authorized(bool),
    /// Whether its key never expires.
    // As in the API, whose field is the opposite of keyExpiry.
    KeyExpiryDisabled(bool),
    /// Its MagicDNS label.
    Name(DeviceLabel),
    /// Its IPv4 address.
    Ipv4(TailnetIpv4),
}

/// A value that no two devices of a tailnet can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UniqueValue {
    /// A MagicDNS label.
    Name(DeviceLabel),
    /// An IPv4 address.
    Ipv4(TailnetIpv4),
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Authorized, Self::KeyExpiry, Self::Name, Self::Ipv4];

    /// The field of a policy's spec that declares it.
    #[must_use]
    pub fn field(self) -> PolicyField {
        match self {
            Self::Authorized => PolicyField::Authorized,
            Self::KeyExpiry => PolicyField::KeyExpiry,
            Self::Name => PolicyField::Name,
            Self::Ipv4 => PolicyField::Ipv4,
        }
    }

    /// Whether no two devices of a tailnet can have the same value, so that a claim on it counts on other
    /// devices too.
    #[must_use]
    pub const fn is_tailnet_wide(self) -> bool {
        match self {
            Self::Name | Self::Ipv4 => true,
            Self::Authorized | Self::KeyExpiry => false,
        }
    }

    /// The request that writes it: `POST /device/{id}/PATH`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Authorized => "authorized",
            Self::KeyExpiry => "key",
            Self::Name => "name",
            Self::Ipv4 => "ip",
        }
    }

    /// The name of that request in a metric.
    #[must_use]
    pub fn request(self) -> &'static str {
        match self {
            Self::Authorized => "set_authorized",
            Self::KeyExpiry => "set_key_expiry_disabled",
            Self::Name => "set_name",
            Self::Ipv4 => "set_ipv4",
        }
    }

    /// The field of a device in which the API reports it.
    #[must_use]
    pub fn reported_in(self) -> DeviceField {
        match self {
            Self::Authorized => DeviceField::Authorized,
            Self::KeyExpiry => DeviceField::KeyExpiryDisabled,
            Self::Name => DeviceField::Name,
            // One field has the addresses of both families.
            Self::Ipv4 => DeviceField::Addresses,
        }
    }

    /// The observed value; `None` if the device has none, or if it cannot be read.
    #[must_use]
    pub fn of(self, device: &Device) -> Option<SettingValue> {
        // A guess in its place could change a device (docs/decisions/0027).
        if device.is_unknown(self.reported_in()) {
            return None;
        }
        match self {
            Self::Authorized => Some(SettingValue::Authorized(device.authorized)),
            Self::KeyExpiry => Some(SettingValue::KeyExpiryDisabled(device.key_expiry_disabled)),
            Self::Name => Some(SettingValue::Name(device.label())),
            Self::Ipv4 => {
                let ipv4 = device.ipv4.map(TailnetIpv4::reported);
                ipv4.map(SettingValue::Ipv4)
            }
        }
    }
}

#[cfg(test)]
impl Setting {
    /// Two values, the first of which a new device does not have.
    pub(crate) fn examples(self) -> [SettingValue; 2] {
        match self {
            Self::Authorized => [false, true].map(SettingValue::Authorized),
            Self::KeyExpiry => [true, false].map(SettingValue::KeyExpiryDisabled),
            Self::Name => ["paris", "rome"].map(|name| SettingValue::Name(name.parse().unwrap())),
            Self::Ipv4 => {
                ["100.80.0.1", "100.80.0.2"].map(|addr| SettingValue::Ipv4(addr.parse().unwrap()))
            }
        }
    }
}

impl SettingValue {
    /// The setting that it is a value of.
    #[must_use]
    pub fn setting(&self) -> Setting {
        match self {
            Self::Authorized(_) => Setting::Authorized,
            Self::KeyExpiryDisabled(_) => Setting::KeyExpiry,
            Self::Name(_) => Setting::Name,
            Self::Ipv4(_) => Setting::Ipv4,
        }
    }

    /// The value, if it can be that of one device only.
    #[must_use]
    pub fn as_unique(&self) -> Option<UniqueValue> {
        match self {
            Self::Name(name) => Some(UniqueValue::Name(name.clone())),
            Self::Ipv4(ipv4) => Some(UniqueValue::Ipv4(*ipv4)),
            Self::Authorized(_) | Self::KeyExpiryDisabled(_) => None,
        }
    }

    /// The observed value as one that a manifest can declare, or why none can.
    pub fn as_desired(&self) -> Result<Self, Refused> {
        match self {
            Self::Authorized(_) | Self::KeyExpiryDisabled(_) => Ok(self.clone()),
            Self::Name(label) => label.as_str().parse().map(Self::Name),
            Self::Ipv4(ipv4) => ipv4.to_string().parse().map(Self::Ipv4),
        }
    }

    /// Sets it on a device, as the API does.
    pub fn apply(&self, device: &mut Device) {
        match self {
            Self::Authorized(authorized) => device.authorized = *authorized,
            Self::KeyExpiryDisabled(disabled) => device.key_expiry_disabled = *disabled,
            Self::Name(label) => {
                // A rename keeps the tailnet's domain.
                let domain = device.name.split_once('.');
                device.name = match domain {
                    Some((_, domain)) => format!("{label}.{domain}"),
                    None => label.to_string(),
                };
            }
            Self::Ipv4(ipv4) => device.ipv4 = Some(ipv4.addr()),
        }
    }

    /// When it is sent.
    #[must_use]
    pub fn step(&self) -> Step {
        match self {
            // First to go, last to come: a device is never in the tailnet with half of its
            // restrictions.
            Self::Authorized(false) => Step::Deauthorize,
            Self::Authorized(true) => Step::Authorize,
            Self::KeyExpiryDisabled(_) => Step::KeyExpiry,
            Self::Name(_) => Step::Name,
            Self::Ipv4(_) => Step::Ipv4,
        }
    }

    /// The reason of the Event that reports that it was set.
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::Authorized(true) => "Authorized",
            Self::Authorized(false) => "Deauthorized",
            Self::KeyExpiryDisabled(_) => "KeyExpiryChanged",
            Self::Name(_) => "NameChanged",
            Self::Ipv4(_) => "Ipv4Changed",
        }
    }
}

/// The value, for people.
impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorized(authorized) => authorized.fmt(f),
            Self::KeyExpiryDisabled(true) => f.write_str("Disabled"),
            Self::KeyExpiryDisabled(false) => f.write_str("Enabled"),
            Self::Name(label) => label.fmt(f),
            Self::Ipv4(ipv4) => ipv4.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_has_the_name_of_the_manifest() {
        for field in PolicyField::ALL {
            assert_eq!(serde_json::to_value(field).unwrap(), field.as_str());
        }
    }

    #[test]
    fn a_value_is_unique_where_its_setting_is_tailnet_wide() {
        for setting in Setting::ALL {
            for value in setting.examples() {
                let is_unique = value.as_unique().is_some();
                assert_eq!(is_unique, setting.is_tailnet_wide(), "{value}");
            }
        }
    }

    #[test]
    fn all_fields_of_the_schema_are_listed() {
        let schema = schemars::schema_for!(PolicyField).to_value();
        let variants = schema["oneOf"].as_array().unwrap();
        assert_eq!(variants.len(), PolicyField::ALL.len(), "{schema}");
    }
}
