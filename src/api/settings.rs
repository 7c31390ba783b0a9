//! The values of what a policy wishes.
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

/// Whether a device's key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyExpiry {
    /// It expires.
    Enabled,
    /// It never does.
    Disabled,
}

/// The value of a posture attribute: exactly one of string, integer and boolean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = rules::posture_attribute()))]
pub struct PostureAttribute {
    /// Text: at most 50 letters, digits, _ and . characters. Put it in quotes where YAML could read
    /// something else in it (yes, no, on, off, 007).
    ///
    /// Example: gold
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::attribute_string")]
    pub string: Option<String>,

    /// A whole number from -9007199254740991 to 9007199254740991 (2^53 - 1).
    ///
    /// Example: 3
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::attribute_integer")]
    pub integer: Option<i64>,

    /// true or false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boolean: Option<bool>,

    /// When the tailnet removes the attribute by itself, as an RFC 3339 time. Once it is past, the
    /// attribute is no wish any more: it is neither set nor deleted. Absent: never removed; an
    /// expiry that the attribute has is then taken off.
    ///
    /// Example: "2027-01-01T00:00:00Z"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::time")]
    pub expiry: Option<String>,
}

/// How much of a list or map the policy owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// Exact: enabledRoutes is the whole list, except for the routes of an exit node. AtLeast: the
    /// routes in it are approved, and others stay as they are, such as those that autoApprovers
    /// approved. Absent: Exact.
    ///
    /// Example: Exact
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListOwnership")]
    pub enabled_routes: Option<ListOwnership>,

    /// Exact: tags is the whole list. AtLeast: the tags in it are given, and others stay as they
    /// are. Absent: Exact.
    ///
    /// Example: Exact
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListOwnership")]
    pub tags: Option<ListOwnership>,

    /// Named: the policy owns the keys that it names, and no others. Exact: it owns all custom keys
    /// of the device, and those that no policy names are deleted. Absent: Named.
    ///
    /// Example: Named
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AttributesOwnership")]
    pub posture_attributes: Option<AttributesOwnership>,
}

/// How much of a list the policy owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListOwnership {
    /// The whole list.
    Exact,
    /// The entries that it names: it only adds.
    AtLeast,
}

/// How many of a device's posture attributes the policy owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AttributesOwnership {
    /// Those that it names.
    Named,
    /// All but those that another policy names.
    Exact,
}

/// Something that can cut a device off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// To take away a device's authorization.
    Deauthorize,
    /// To enable key expiry on a device whose key is past its time.
    ExpiredKey,
    /// To give a device of many its first tag.
    FirstTag,
}

/// What is done about a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// It is removed.
    #[default]
    Enforce,
    /// It is removed once somebody has approved it.
    Approve,
    /// It is said in status.
    Observe,
}

/// What becomes of the settings of a device that a policy lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay as they are.
    Retain,
    /// Its attributes are deleted and its routes withdrawn.
    Clear,
}

impl Enforcement {
    /// The value as it stands in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "Enforce",
            Self::Approve => "Approve",
            Self::Observe => "Observe",
        }
    }
}
