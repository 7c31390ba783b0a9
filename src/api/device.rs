//! The devices that a policy or an invite targets.
//!
//! The doc comments become `kubectl explain`: they address the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments verbatim"
)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Names one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::device_reference()))]
pub struct DeviceReference {
    /// The device's nodeId, the preferred id of the API.
    ///
    /// Example: n292kg92CNTRL
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::node_id")]
    pub node_id: Option<String>,

    /// The device's older, numeric id, in quotes.
    ///
    /// Example: "92960230385"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::legacy_id")]
    pub id: Option<String>,

    /// The device's name in MagicDNS, with or without the tailnet's domain.
    ///
    /// Example: pangolin, or pangolin.tailfe8c.ts.net
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::magic_dns_name")]
    pub name: Option<String>,

    /// The hostname that the machine reports. Anyone who runs a machine can choose it: add tags or
    /// users if that matters.
    ///
    /// Example: fra-router
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::hostname")]
    pub hostname: Option<String>,

    /// The device must also have all of these tags; otherwise it does not match. Absent: any.
    ///
    /// Example: ["tag:router"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::required_tags")]
    pub tags: Option<Vec<String>>,

    /// One of these users (full logins) must have registered the device; otherwise it does not
    /// match. Absent: any.
    ///
    /// Example: ["amelie@example.com"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::required_users")]
    pub users: Option<Vec<String>>,
}

/// Selects devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::device_selector()))]
pub struct DeviceSelector {
    /// A device must have all of these tags. Absent: any.
    ///
    /// Example: ["tag:router"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_tags")]
    pub tags: Option<Vec<String>>,

    /// The device must belong to a user whose login matches one of these patterns: * matches any
    /// characters, ? matches any one. A device with tags belongs to no user and never matches.
    /// Absent: anyone's.
    ///
    /// Example: ["*@example.com"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_users")]
    pub users: Option<Vec<String>>,

    /// The hostname that the machine reports must match one of these patterns, regardless of case.
    /// In a pattern, * matches any characters, and ? matches any one. Anyone who runs a machine can choose its
    /// hostname. Absent: any.
    ///
    /// Example: ["fra-*"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_hostnames")]
    pub hostnames: Option<Vec<String>>,

    /// The operating system that the machine reports must be one of these, regardless of case, such
    /// as linux, windows, macOS, iOS, android. Absent: any.
    ///
    /// Example: [linux]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_os")]
    pub os: Option<Vec<String>>,

    /// A condition in CEL over the device as the list reports it, at most 512 characters. Fields:
    /// device.nodeId, name, hostname, user, os, clientVersion, tags, isEphemeral, updateAvailable,
    /// and the optional fields created, expires and lastSeen. A device for which the condition
    /// cannot be evaluated does not match. Absent: any.
    ///
    /// Example: "device.clientVersion.startsWith('1.9') && !device.isEphemeral"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_expression")]
    pub expression: Option<String>,

    /// Selects devices only by what their machines report, which anyone who runs a machine can
    /// change. Must be true if neither tags nor users are given. Absent: false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_claims: Option<bool>,
}
