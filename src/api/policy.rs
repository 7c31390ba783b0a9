//! `TailscaleDevicePolicy`: what is wished for a device, or for many.
//!
//! The doc comments become `kubectl explain`: they speak to the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments as they stand"
)]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{policy_status::TailscaleDevicePolicyStatus, rules};

/// What shall hold for devices of a tailnet: exactly one of device and deviceSelector says which. A setting that is not named here is never touched.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tailnet.dev",
    version = "v1alpha1",
    kind = "TailscaleDevicePolicy",
    plural = "tailscaledevicepolicies",
    shortname = "tsdp",
    category = "tailscale",
    namespaced,
    doc = "Keeps the settings of Tailscale devices as declared here. What the manifest does not name is never touched.",
    status = "TailscaleDevicePolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Devices", "type": "integer", "jsonPath": ".status.matchedDevices"}"#,
    printcolumn = r#"{"name": "In Sync", "type": "integer", "jsonPath": ".status.inSyncDevices"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Tailnet", "type": "string", "jsonPath": ".status.tailnet", "priority": 1}"#,
    printcolumn = r#"{"name": "Enforcement", "type": "string", "jsonPath": ".status.enforcement", "priority": 1}"#,
    printcolumn = r#"{"name": "Last Change", "type": "date", "jsonPath": ".status.lastChangeTime", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::policy()))]
pub struct TailscaleDevicePolicySpec {
    /// The TailscaleTailnet through which the devices are reached. Absent: the one named "default".
    ///
    /// Example: {name: default}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailnet_ref: Option<TailnetReference>,

    /// The one device that is meant: exactly one of nodeId, id, name and hostname; tags and users may
    /// stand beside it. nodeId and id never change. name and hostname can be taken over by another
    /// device: the policy therefore keeps to the device that it found first (status.nodeId), and
    /// once that has left the tailnet it follows the name to a new one only if the owner is the
    /// same. Absent: deviceSelector says which devices are meant.
    ///
    /// Example: {hostname: fra-router, tags: ["tag:router"]}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeviceReference")]
    pub device: Option<DeviceReference>,

    /// All devices that are meant: those that fit every part that is given. One that joins the
    /// tailnet, or begins to fit, is taken up at the next look; one that fits no more is let go and
    /// stays as it is. Devices shared in from other tailnets never fit. Absent: device says which
    /// one is meant.
    ///
    /// Example: {tags: ["tag:router"], hostnames: ["fra-*"]}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeviceSelector")]
    pub device_selector: Option<DeviceSelector>,

    /// Whether the device may take part in the tailnet (device approval). false cuts it off, and is
    /// accepted only beside "allowDisruption: [Deauthorize]". Absent: left as it is.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized: Option<bool>,

    /// The ACL tags of the device, all of them: others are taken away, unless ownership.tags is
    /// AtLeast. They compare as a set. A device with tags belongs to them and no longer to its user.
    /// Each needs an owner in tagOwners of the tailnet's policy file. Absent: left as they are. An
    /// empty list is refused under Exact, as the API cannot untag a device.
    ///
    /// Example: ["tag:router", "tag:fra"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::wished_tags")]
    pub tags: Option<Vec<String>>,

    /// Whether the device's key expires: Enabled (it does, and the device must then sign in again)
    /// or Disabled (it never does). Enabled on a device whose key is past its time cuts it off, and
    /// is held back unless allowDisruption names ExpiredKey. Absent: left as it is.
    ///
    /// Example: Disabled
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "KeyExpiry")]
    pub key_expiry: Option<KeyExpiry>,

    /// The subnet routes that are approved, all of them: others are withdrawn, unless
    /// ownership.enabledRoutes is AtLeast, and except those of an exit node, which belong to
    /// exitNode. CIDRs without host bits. A route may be approved before
    /// the device advertises it. An empty list withdraws all. Absent: left as they are.
    ///
    /// Example: ["10.0.0.0/16", "fd7a:10::/48"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::wished_routes")]
    pub enabled_routes: Option<Vec<String>>,

    /// Whether the device is approved as an exit node, that is: for the routes 0.0.0.0/0 and ::/0.
    /// Absent: left as it is.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_node: Option<bool>,

    /// Custom posture attributes, by their key: "custom:" and letters, digits, _ or :, at most 128
    /// characters. Each has exactly one of string, integer and boolean; the type of a key is fixed
    /// for the whole tailnet by its first write. Keys that are not named stay as they are; one that
    /// was named here and is named no more is deleted. {} deletes all that were named; absent
    /// releases them as they are.
    ///
    /// Example: {"custom:tier": {string: gold}, "custom:audited": {boolean: true}}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::posture_attributes")]
    pub posture_attributes: Option<BTreeMap<String, PostureAttribute>>,

    /// The device's name in MagicDNS: the first label, as the server keeps it (lower-case letters
    /// and digits, single dashes between them, at most 63). Unique in the tailnet, so not
    /// beside deviceSelector. Absent: left as it is.
    ///
    /// Example: fra-router
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::device_label")]
    pub name: Option<String>,

    /// The device's Tailscale IPv4 address: in 100.64.0.0/10, outside of the ranges that Tailscale
    /// reserves, and free. A change breaks the device's open connections. Not beside
    /// deviceSelector. Absent: left as it is.
    ///
    /// Example: 100.80.0.1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::tailnet_ipv4")]
    pub ipv4: Option<String>,

    /// How much of a list or map the policy owns. Absent: the whole of each list, and the posture
    /// attributes that it names.
    ///
    /// Example: {enabledRoutes: Exact, tags: Exact, postureAttributes: Named}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<Ownership>,

    /// Which policy decides where several wish for one setting of a device: the one of the higher
    /// priority, then the older one, then the first by namespace and name. From -1000 to 1000.
    /// Absent: 0.
    ///
    /// Example: 100
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::priority")]
    pub priority: Option<i32>,

    /// What this policy may do although it can cut a device off. Deauthorize: take away its
    /// authorization. ExpiredKey: enable key expiry where the key's time is past. FirstTag: give a
    /// user's device that deviceSelector selects its first tag, which takes it from its user for
    /// good. Absent or empty: none; such a change is held back and said in status.
    ///
    /// Example: [Deauthorize]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub allow_disruption: Vec<Disruption>,

    /// What is done about a difference. Enforce: it is removed. Observe: it is said in status, and
    /// nothing is sent; what the policy wishes is nothing to other policies. Absent: Enforce.
    ///
    /// Example: Enforce
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Enforcement")]
    pub enforcement: Option<Enforcement>,

    /// true: nothing is sent for the policy until it is taken back. What it wishes still counts
    /// against policies that rank below it, so that none of them slips in meanwhile. Absent: false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// What becomes of the device's settings when the policy is deleted. Retain: they stay as they
    /// are. Absent: Retain.
    ///
    /// Example: Retain
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeletionPolicy")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// A reference to a TailscaleTailnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TailnetReference {
    /// The name of the TailscaleTailnet.
    ///
    /// Example: default
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

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

    /// Selects by what machines say of themselves alone, which whoever runs one can change. Needed
    /// where neither tags nor users are given. Absent: false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_claims: Option<bool>,
}

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
    /// It is said in status.
    Observe,
}

/// What becomes of a device's settings when its policy is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay as they are.
    Retain,
}

/// The annotations by which people ask for a look at once; any change of a value does. Flux's own
/// comes first where both stand there.
pub const LOOK_REQUESTS: [&str; 2] = [
    "reconcile.fluxcd.io/requestedAt",
    "tailnet.dev/reconcile-at",
];

impl TailscaleDevicePolicySpec {
    /// The name of the `TailscaleTailnet` that the policy belongs to.
    ///
    /// The default is here and not in the schema: a field filled in by the API server would be a
    /// difference in the eyes of a `GitOps` tool.
    #[must_use]
    pub fn tailnet_name(&self) -> &str {
        self.tailnet_ref
            .as_ref()
            .map_or("default", |tailnet| tailnet.name.as_str())
    }

    /// What is done about a difference.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement.unwrap_or_default()
    }

    /// Whether the policy may do this although it can cut the device off.
    #[must_use]
    pub fn allows(&self, disruption: Disruption) -> bool {
        self.allow_disruption.contains(&disruption)
    }
}

impl Enforcement {
    /// The value as it stands in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "Enforce",
            Self::Observe => "Observe",
        }
    }
}
