//! The values of the settings that a policy declares.
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
use crate::model::{AttributesOwnership, ListOwnership};

/// Whether a device's key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyExpiry {
    /// The key expires.
    Enabled,
    /// The key never expires.
    Disabled,
}

/// The value of a posture attribute: exactly one of string, integer and boolean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::posture_attribute()))]
pub struct PostureAttribute {
    /// A string of at most 50 letters, digits, _ and . characters. Quote it if YAML could read it
    /// as another type (yes, no, on, off, 007).
    ///
    /// Example: gold
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::attribute_string")]
    pub string: Option<String>,

    /// An integer from -9007199254740991 to 9007199254740991 (2^53 - 1).
    ///
    /// Example: 3
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::attribute_integer")]
    pub integer: Option<i64>,

    /// A boolean: true or false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boolean: Option<bool>,

    /// The RFC 3339 time at which the tailnet removes the attribute by itself. Once it has passed,
    /// the policy no longer declares the attribute: the controller neither sets nor deletes it.
    /// Absent: never removed; the controller removes an expiry that the attribute has.
    ///
    /// Example: "2027-01-01T00:00:00Z"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::time")]
    pub expiry: Option<String>,
}

/// How much of a list or map the policy owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnershipSpec {
    /// Exact: enabledRoutes is the whole list, except for the routes of an exit node. AtLeast: the
    /// controller approves the routes in it and leaves all others as they are, such as those that
    /// autoApprovers approved. Absent: Exact.
    ///
    /// Example: Exact
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListOwnership")]
    pub enabled_routes: Option<ListOwnership>,

    /// Exact: tags is the whole list. AtLeast: the controller adds the tags in it and leaves all
    /// others as they are. Absent: Exact.
    ///
    /// Example: Exact
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListOwnership")]
    pub tags: Option<ListOwnership>,

    /// Named: the policy owns only the keys that it declares. Exact: the policy owns all custom
    /// keys of the device, and the controller deletes those that no policy declares. Absent: Named.
    ///
    /// Example: Named
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AttributesOwnership")]
    pub posture_attributes: Option<AttributesOwnership>,
}

/// How the controller handles a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// It changes the device.
    #[default]
    Enforce,
    /// It changes the device once the change has been approved.
    Approve,
    /// It only reports the difference in status.
    Observe,
}

/// What happens to the settings of a device that a policy releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay as they are.
    Retain,
    /// The controller deletes its attributes and withdraws its routes.
    Clear,
}

impl Enforcement {
    /// The value in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "Enforce",
            Self::Approve => "Approve",
            Self::Observe => "Observe",
        }
    }
}
