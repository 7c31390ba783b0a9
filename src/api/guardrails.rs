//! The guardrails of a `TailscaleTailnet`: which policies are allowed, and on which devices.
//!
//! The doc comments become `kubectl explain`: they address the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments verbatim"
)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::model::PolicyField;

/// Policies that are allowed, and what they may change. A rule allows what matches all of its
/// parts. A change is allowed if any one rule allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedPolicies {
    /// The namespaces of the policies: those that match all given parts. Absent: every namespace.
    ///
    /// Example: {names: [network]}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AllowedNamespaces")]
    pub namespaces: Option<AllowedNamespaces>,

    /// The fields of spec that a policy may declare. Absent: all.
    ///
    /// Example: [tags, enabledRoutes]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_fields")]
    pub fields: Option<Vec<PolicyField>>,

    /// The tags that a policy may add and remove, as patterns: * matches any characters, ? matches
    /// any one. A policy that owns all tags (Exact) owns only these, and leaves others on the
    /// device as they are. Absent: any.
    ///
    /// Example: ["tag:net-*"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_tags")]
    pub tags: Option<Vec<String>>,

    /// The networks in which a policy may approve and withdraw routes, whole networks or parts of
    /// them. A policy that owns all routes (Exact) owns only those inside, and leaves others as
    /// they are. exitNode needs both "0.0.0.0/0" and "::/0" here. Absent: any.
    ///
    /// Example: ["10.0.0.0/8"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_routes")]
    pub routes: Option<Vec<String>>,

    /// The devices that a policy may change: those that match one of these. Absent: any.
    ///
    /// Example: [{tags: ["tag:net-*"]}]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::allowed_devices")]
    pub devices: Option<Vec<GuardedDevices>>,
}

/// The namespaces of policies: those that match all given parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::allowed_namespaces()))]
pub struct AllowedNamespaces {
    /// The name of the namespace must be one of these. Absent: any.
    ///
    /// Example: [network]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::namespace_names")]
    pub names: Option<Vec<String>>,

    /// The namespace must have all of these labels. Anyone who can label a namespace can then allow
    /// its policies. Absent: any.
    ///
    /// Example: {team: network}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::match_labels")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// The devices of a guardrail: those that match every given part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::guarded_devices()))]
pub struct GuardedDevices {
    /// The device must have a tag for each of these patterns: * matches any characters, ? matches
    /// any one. Absent: any.
    ///
    /// Example: ["tag:net-*"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::guarded_tags")]
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

    /// A condition in CEL over the device, as in deviceSelector of a policy. If it cannot be
    /// evaluated for a device, protectedDevices protects the device, and allowedPolicies does not
    /// allow it. Absent: any.
    ///
    /// Example: "device.isEphemeral"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::selected_expression")]
    pub expression: Option<String>,

    /// Matches devices only by what their machines report, which anyone who runs a machine can
    /// change. Must be true if neither tags nor users are given. Absent: false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_claims: Option<bool>,
}
