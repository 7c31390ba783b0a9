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

use super::{
    DeleteInactive, DeletionPolicy, DeviceReference, DeviceSelector, Disruption, Enforcement,
    KeyExpiry, Ownership, PostureAttribute, policy_status::TailscaleDevicePolicyStatus, rules,
};

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
    /// tailnet, or begins to fit, is taken up at the next look; one that fits no more is let go (see
    /// deletionPolicy). Devices shared in from other tailnets never fit. Absent: device says which
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
    #[schemars(schema_with = "rules::desired_tags")]
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
    #[schemars(schema_with = "rules::desired_routes")]
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
    /// was named here and is named no more is deleted; {} deletes all that were named. Absent:
    /// released as they are.
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

    /// When the devices' keys are expired, once, as an RFC 3339 time: each device then has to sign in
    /// again. At most once for each device and time, also after a restart; a later, different time is
    /// another act. Missed, and never done, where the time lies before the policy's creation, or was
    /// more than an hour past before it could begin. Not beside keyExpiry: Disabled. Absent: never.
    ///
    /// Example: "2027-01-01T18:00:00Z"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::time")]
    pub expire_key_at: Option<String>,

    /// Deletes devices of deviceSelector that have been away for long. Never one that is connected,
    /// protected, shared in from another tailnet, or of which it is not known when it was last seen.
    /// Only beside deviceSelector. Absent: none is deleted.
    ///
    /// Example: {inactiveFor: 720h, maxPerDay: 5}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeleteInactive")]
    pub delete_inactive: Option<DeleteInactive>,

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

    /// What is done about a difference. Enforce: it is removed. Approve: it is said in status, and
    /// removed once somebody has approved it by the annotation tailnet.dev/approve: "plan:" and
    /// status.heldPlan.hash. Observe: it is said in status, and nothing is sent; what the policy
    /// wishes is nothing to other policies. Absent: Enforce.
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

    /// What becomes of a device that the policy lets go: because the policy is deleted, because the
    /// device fits deviceSelector no more, or because device names another one. Retain: it stays as
    /// it is. Clear: the posture attributes that the policy owns are deleted, and the routes that it
    /// names (with exitNode: true those of an exit node too) are withdrawn, unless another policy of
    /// the device wishes them. All else stays. Clear keeps the ids of the devices in status, at most
    /// 10,000, and puts the finalizer tailnet.dev/clear on the policy. tailnetRef cannot change under
    /// Clear. Absent: Retain.
    ///
    /// Example: Clear
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

/// The annotations by which people ask for a look at once; any change of a value does. Flux's own
/// comes first where both stand there.
pub const LOOK_REQUESTS: [&str; 2] = [
    "reconcile.fluxcd.io/requestedAt",
    "tailnet.dev/reconcile-at",
];

/// The annotation by which people approve what is held: `plan:HASH` and `node:ID`, with commas
/// between several.
pub const APPROVE: &str = "tailnet.dev/approve";

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
