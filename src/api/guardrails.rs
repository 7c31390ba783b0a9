//! What may be done through a `TailscaleTailnet`: which policies, and on which devices.
//!
//! The doc comments become `kubectl explain`: they speak to the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments as they stand"
)]

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Policies that are allowed, and what they may change. A rule allows what fits all parts of it that
/// are given; what one rule of several allows is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedPolicies {
    /// The namespaces of the policies: those that fit all parts that are given. Absent: every
    /// namespace.
    ///
    /// Example: {names: [network]}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AllowedNamespaces")]
    pub namespaces: Option<AllowedNamespaces>,

    /// The fields of spec that may be wished for. Absent: all.
    ///
    /// Example: [tags, enabledRoutes]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_fields")]
    pub fields: Option<Vec<PolicyField>>,

    /// The tags that may be given and taken: * stands for any characters, ? for any one. A policy that
    /// owns all tags (Exact) owns only these, and leaves others on the device as they are. Absent: any.
    ///
    /// Example: ["tag:net-*"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_tags")]
    pub tags: Option<Vec<String>>,

    /// The networks of which routes may be approved and withdrawn, as a whole or in part. A policy that
    /// owns all routes (Exact) owns only those inside, and leaves others as they are. exitNode needs
    /// both "0.0.0.0/0" and "::/0" here. Absent: any.
    ///
    /// Example: ["10.0.0.0/8"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_routes")]
    pub routes: Option<Vec<String>>,

    /// The devices that may be changed: those that fit one of these. Absent: any.
    ///
    /// Example: [{tags: ["tag:net-*"]}]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_devices")]
    pub devices: Option<Vec<GuardedDevices>>,
}

/// The namespaces of policies: those that fit all parts that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::allowed_namespaces()))]
pub struct AllowedNamespaces {
    /// The name of the namespace is one of these. Absent: any.
    ///
    /// Example: [network]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::namespace_names")]
    pub names: Option<Vec<String>>,

    /// The namespace has all of these labels. Whoever can label a namespace decides then. Absent: any.
    ///
    /// Example: {team: network}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::match_labels")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// Devices that a guard is about: those that fit every part that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::guarded_devices()))]
pub struct GuardedDevices {
    /// A device has a tag for each of these: * stands for any characters, ? for any one. Absent: any.
    ///
    /// Example: ["tag:net-*"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::guarded_tags")]
    pub tags: Option<Vec<String>>,

    /// A device belongs to a user whose login fits one of these: * stands for any characters, ? for
    /// any one. A device with tags belongs to no user and never fits. Absent: anyone's.
    ///
    /// Example: ["*@example.com"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_users")]
    pub users: Option<Vec<String>>,

    /// What the machine calls itself fits one of these, whatever the case: * stands for any
    /// characters, ? for any one. Anyone who runs a machine can choose it. Absent: any.
    ///
    /// Example: ["fra-*"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_hostnames")]
    pub hostnames: Option<Vec<String>>,

    /// What the machine says of its operating system is one of these, whatever the case, such as
    /// linux, windows, macOS, iOS, android. Absent: any.
    ///
    /// Example: [linux]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_os")]
    pub os: Option<Vec<String>>,

    /// A condition in CEL over the device, as in deviceSelector of a policy. A device of which it cannot
    /// tell is protected by protectedDevices, and not allowed by allowedPolicies. Absent: any.
    ///
    /// Example: "device.isEphemeral"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_expression")]
    pub expression: Option<String>,

    /// Goes by what machines say of themselves alone, which whoever runs one can change. Needed where
    /// neither tags nor users are given. Absent: false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_claims: Option<bool>,
}

/// A field of a policy's spec that is a wish, or an act.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum PolicyField {
    /// Whether the device may take part.
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
    /// That its key expires at a time.
    ExpireKeyAt,
    /// That it is deleted.
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

    /// As a manifest names it.
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
    fn a_field_is_called_as_a_manifest_names_it() {
        for field in PolicyField::ALL {
            assert_eq!(serde_json::to_value(field).unwrap(), field.as_str());
        }
    }
}
