//! `TailscaleDevicePolicy`: the desired settings of one device, or of many.
//!
//! The doc comments become `kubectl explain`: they address the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments verbatim"
)]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DeleteInactiveSpec, DeletionPolicy, DeviceReference, DeviceSelector, Disruption, Enforcement,
    KeyExpiry, OwnershipSpec, PostureAttribute, policy_status::TailscaleDevicePolicyStatus, rules,
};

/// The desired settings of devices of a tailnet. Exactly one of device and deviceSelector selects
/// the devices. The controller never changes a setting that the spec does not declare.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "tailnet.dev",
    version = "v1alpha1",
    kind = "TailscaleDevicePolicy",
    plural = "tailscaledevicepolicies",
    shortname = "tsdp",
    category = "tailscale",
    namespaced,
    doc = "Keeps the settings of Tailscale devices as declared. The controller never changes a setting that the manifest does not declare.",
    status = "TailscaleDevicePolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Devices", "type": "integer", "jsonPath": ".status.matchedDevices"}"#,
    printcolumn = r#"{"name": "In Sync", "type": "integer", "jsonPath": ".status.inSyncDevices"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    // Columns of priority 1 appear only with `-o wide`.
    printcolumn = r#"{"name": "Tailnet", "type": "string", "jsonPath": ".status.tailnet", "priority": 1}"#,
    printcolumn = r#"{"name": "Enforcement", "type": "string", "jsonPath": ".status.enforcement", "priority": 1}"#,
    printcolumn = r#"{"name": "Held", "type": "integer", "jsonPath": ".status.heldChanges", "priority": 1}"#,
    printcolumn = r#"{"name": "Last Change", "type": "date", "jsonPath": ".status.lastChangeTime", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::policy()))]
pub struct TailscaleDevicePolicySpec {
    /// The TailscaleTailnet that connects to the tailnet of the devices. Absent: the one named
    /// "default".
    ///
    /// Example: {name: default}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailnet_ref: Option<TailnetReference>,

    /// The one device that the policy targets: exactly one of nodeId, id, name and hostname,
    /// optionally with tags and users. nodeId and id never change. Another device can take over a
    /// name or a hostname: the policy therefore stays bound to the device that it found first
    /// (status.nodeId). Once that device has left the tailnet, the policy follows the name to
    /// another device only if both have the same owner. Absent: deviceSelector selects the devices.
    ///
    /// Example: {hostname: fra-router, tags: ["tag:router"]}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeviceReference")]
    pub device: Option<DeviceReference>,

    /// Selects all devices that match every part of it. The policy adopts a device that joins the
    /// tailnet, or that begins to match, at the next poll. It releases a device that no longer
    /// matches (see deletionPolicy). Devices shared in from other tailnets never match. Absent:
    /// device names the one device.
    ///
    /// Example: {tags: ["tag:router"], hostnames: ["fra-*"]}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeviceSelector")]
    pub device_selector: Option<DeviceSelector>,

    /// Whether the device is authorized to join the tailnet (device approval). false cuts the
    /// device off, and requires "allowDisruption: [Deauthorize]". Absent: left as it is.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized: Option<bool>,

    /// The ACL tags of the device. The controller removes all other tags, unless ownership.tags is
    /// AtLeast. The order does not matter. A device with tags belongs to its tags and no longer to
    /// its user. Each tag needs an owner in tagOwners of the tailnet's policy file. Under Exact,
    /// the list must not be empty, as the API cannot untag a device. Absent: left as they are.
    ///
    /// Example: ["tag:router", "tag:fra"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::desired_tags")]
    // An Option: an absent list is unmanaged, an empty one is a desired state.
    pub tags: Option<Vec<String>>,

    /// Whether the device's key expires. Enabled: it expires, and the device must then sign in
    /// again. Disabled: it never expires. Enabled cuts a device off if its key is past its expiry:
    /// the controller holds that change unless allowDisruption has ExpiredKey. Absent: left as it
    /// is.
    ///
    /// Example: Disabled
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "KeyExpiry")]
    pub key_expiry: Option<KeyExpiry>,

    /// The approved subnet routes, as CIDRs without host bits. The controller withdraws all other
    /// routes, unless ownership.enabledRoutes is AtLeast. The routes of an exit node belong to
    /// exitNode. You can approve a route before the device advertises it. An empty list withdraws
    /// all. Absent: left as they are.
    ///
    /// Example: ["10.0.0.0/16", "fd7a:10::/48"]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::desired_routes")]
    pub enabled_routes: Option<Vec<String>>,

    /// Whether the device is approved as an exit node, that is, for the routes 0.0.0.0/0 and ::/0.
    /// Absent: left as it is.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_node: Option<bool>,

    /// Custom posture attributes by key. A key is "custom:" and letters, digits, _ or :, at most
    /// 128 characters. A value has exactly one of string, integer and boolean. The first write of a
    /// key fixes its type for the whole tailnet. The controller deletes a key that the policy
    /// declared before and no longer declares, and leaves all other keys as they are; {} deletes
    /// all that the policy declared. Absent: released as they are.
    ///
    /// Example: {"custom:tier": {string: gold}, "custom:audited": {boolean: true}}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::posture_attributes")]
    // An Option: an absent map leaves all attributes alone, `{}` deletes all that the policy owns.
    pub posture_attributes: Option<BTreeMap<String, PostureAttribute>>,

    /// The device's name in MagicDNS: the first label in the form that the server stores
    /// (lower-case letters and digits, dashes between them, at most 63). A name is unique in
    /// the tailnet, so this requires device. Absent: left as it is.
    ///
    /// Example: fra-router
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::device_label")]
    pub name: Option<String>,

    /// The device's Tailscale IPv4 address: a free address in 100.64.0.0/10, outside of the ranges
    /// that Tailscale reserves. A change breaks the device's open connections. This requires
    /// device. Absent: left as it is.
    ///
    /// Example: 100.80.0.1
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::tailnet_ipv4")]
    pub ipv4: Option<String>,

    /// The RFC 3339 time at which the controller expires the devices' keys; each device must then
    /// sign in again. This is a one-shot action: it happens at most once for each device and time,
    /// also across restarts. A later time is another action. The action is missed, and never done,
    /// if the time is before the policy's creation, or if it passed more than an hour before the
    /// action could begin. Not allowed with keyExpiry: Disabled. Absent: never.
    ///
    /// Example: "2027-01-01T18:00:00Z"
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::time")]
    pub expire_key_at: Option<String>,

    /// Deletes devices of deviceSelector that have been inactive for a long time. The controller
    /// never deletes a device that is connected, protected, or shared in from another tailnet, or
    /// for which the API does not report when it was last seen. This requires deviceSelector.
    /// Absent: none is deleted.
    ///
    /// Example: {inactiveFor: 720h, maxPerDay: 5}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DeleteInactiveSpec")]
    pub delete_inactive: Option<DeleteInactiveSpec>,

    /// How much of a list or map the policy owns. Absent: the whole of each list, and the posture
    /// attributes that the policy declares.
    ///
    /// Example: {enabledRoutes: Exact, tags: Exact, postureAttributes: Named}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership: Option<OwnershipSpec>,

    /// The rank of the policy if several policies declare one setting of a device. The policy with
    /// the higher priority takes precedence, then the older one, then the first by namespace and
    /// name. From -1000 to 1000. Absent: 0.
    ///
    /// Example: 100
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::priority")]
    pub priority: Option<i32>,

    /// The changes that the controller may make for this policy although they can cut a device off.
    /// Deauthorize: remove the authorization. ExpiredKey: enable key expiry on a key that is past
    /// its expiry. FirstTag: give a user's device that deviceSelector selects its first tag, which
    /// takes the device from its user for good. Absent or empty: none; the controller holds such a
    /// change and reports it in status.
    ///
    /// Example: [Deauthorize]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    // More than there are disruptions, as an entry may stand twice.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow_disruption: Vec<Disruption>,

    /// How the controller handles a difference. Enforce: it changes the device. Approve: it reports
    /// the difference in status, and changes the device once the annotation tailnet.dev/approve is
    /// set to "plan:" and status.heldPlan.hash. Observe: it reports the difference in status and
    /// sends nothing; other policies ignore what this policy declares. Absent: Enforce.
    ///
    /// Example: Enforce
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Enforcement")]
    // No default in the schema: the stored spec would differ from the one in Git.
    pub enforcement: Option<Enforcement>,

    /// true: the controller sends nothing for the policy until you set this to false or remove it.
    /// The policy still takes precedence over policies of lower rank, so that none of them takes
    /// over its fields in the meantime. Absent: false.
    ///
    /// Example: true
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// What happens to the settings of a device that the policy releases: when the policy is
    /// deleted, when the device no longer matches deviceSelector, or when device names another one.
    /// Retain: they stay as they are. Clear: the controller deletes the posture attributes that the
    /// policy owns, and withdraws the routes that it declares (with exitNode: true also those of an
    /// exit node), unless another policy of the device declares them; all other settings stay.
    /// Clear records the ids of the devices in status, at most 10,000, and puts the finalizer
    /// tailnet.dev/clear on the policy. Under Clear, tailnetRef cannot change. Absent: Retain.
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

/// The annotations that request a reconcile at once, each time their value changes. Flux's own
/// takes precedence if both are set.
pub const RECONCILE_ANNOTATIONS: [&str; 2] = [
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

    /// How the controller handles a difference.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement.unwrap_or_default()
    }

    /// Whether the policy allows a change that can cut the device off.
    #[must_use]
    pub fn allows(&self, disruption: Disruption) -> bool {
        self.allow_disruption.contains(&disruption)
    }
}
