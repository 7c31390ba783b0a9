use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    fn all_fields_of_the_schema_are_listed() {
        let schema = schemars::schema_for!(PolicyField).to_value();
        let variants = schema["oneOf"].as_array().unwrap();
        assert_eq!(variants.len(), PolicyField::ALL.len(), "{schema}");
    }
}
