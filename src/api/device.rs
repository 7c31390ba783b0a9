//! Which devices a policy or an invite means.
//!
//! The doc comments become `kubectl explain`: they speak to the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments as they stand"
)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Which device is meant.
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

    /// What the machine calls itself. Anyone who runs a machine can choose it: add tags or users
    /// where that matters.
    ///
    /// Example: fra-router
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::hostname")]
    pub hostname: Option<String>,

    /// The device must have all of these tags too, else it is not the one that is meant. Absent:
    /// any.
    ///
    /// Example: ["tag:router"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::required_tags")]
    pub tags: Option<Vec<String>>,

    /// The device must have been registered by one of these users too, named by their login in full.
    /// Absent: by anyone.
    ///
    /// Example: ["amelie@example.com"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::required_users")]
    pub users: Option<Vec<String>>,
}

/// Which devices are meant.
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

    /// A device must belong to a user whose login fits one of these: * stands for any characters, ?
    /// for any one. A device with tags belongs to no user and never fits. Absent: anyone's.
    ///
    /// Example: ["*@example.com"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_users")]
    pub users: Option<Vec<String>>,

    /// What the machine calls itself must fit one of these, whatever the case: * stands for any
    /// characters, ? for any one. Anyone who runs a machine can choose it. Absent: any.
    ///
    /// Example: ["fra-*"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_hostnames")]
    pub hostnames: Option<Vec<String>>,

    /// What the machine says of its operating system must be one of these, whatever the case, such
    /// as linux, windows, macOS, iOS, android. Absent: any.
    ///
    /// Example: [linux]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_os")]
    pub os: Option<Vec<String>>,

    /// A condition in CEL over the device as the list reports it, at most 512 characters. Fields:
    /// device.nodeId, name, hostname, user, os, clientVersion, tags, isEphemeral, updateAvailable, and
    /// created, expires and lastSeen, which a device may lack. A device of which it cannot tell is not
    /// meant. Absent: any.
    ///
    /// Example: "device.clientVersion.startsWith('1.9') && !device.isEphemeral"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_expression")]
    pub expression: Option<String>,

    /// Selects by what machines say of themselves alone, which whoever runs one can change. Needed
    /// where neither tags nor users are given. Absent: false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_claims: Option<bool>,
}
