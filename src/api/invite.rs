//! `TailscaleDeviceInvite`: invites someone outside of the tailnet to share a device.
//!
//! The doc comments become `kubectl explain`: they address the author of a manifest.

#![allow(
    clippy::doc_markdown,
    clippy::doc_link_with_quotes,
    rustdoc::broken_intra_doc_links,
    reason = "`kubectl explain` shows the comments verbatim"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DeviceReference, TailnetReference, rules};

/// The device to share, and the person to invite. The API cannot change an invite, so the spec is
/// immutable: create another TailscaleDeviceInvite instead.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "tailnet.dev",
    version = "v1alpha1",
    kind = "TailscaleDeviceInvite",
    plural = "tailscaledeviceinvites",
    shortname = "tsdi",
    category = "tailscale",
    namespaced,
    doc = "Invites a user of another tailnet to share a device. The invite's URL goes into a Secret. Requires a controller that runs with --invites, and a user's own API access token.",
    status = "TailscaleDeviceInviteStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name": "Email", "type": "string", "jsonPath": ".spec.email"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "boolean", "jsonPath": ".status.accepted"}"#,
    printcolumn = r#"{"name": "By", "type": "string", "jsonPath": ".status.acceptedBy"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    // Columns of priority 1 appear only with `-o wide`.
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.nodeId", "priority": 1}"#,
    printcolumn = r#"{"name": "Secret", "type": "string", "jsonPath": ".status.secretName", "priority": 1}"#,
    printcolumn = r#"{"name": "Tailnet", "type": "string", "jsonPath": ".status.tailnet", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::invite()))]
pub struct TailscaleDeviceInviteSpec {
    /// The TailscaleTailnet that connects to the tailnet of the device. Absent: the one named
    /// "default".
    ///
    /// Example: {name: default}
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailnet_ref: Option<TailnetReference>,

    /// The device to share: exactly one of nodeId, id, name and hostname, optionally with tags and
    /// users. The controller looks it up once; from then on the invite stays bound to the device
    /// that it found (status.nodeId).
    ///
    /// Example: {hostname: fra-router, tags: ["tag:router"]}
    pub device: DeviceReference,

    /// The address to which Tailscale sends the invite. Anyone who has the URL can accept the
    /// invite, regardless of this address. Absent: Tailscale sends nothing; send the URL yourself.
    ///
    /// Example: partner@example.com
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::email")]
    pub email: Option<String>,

    /// Whether the invite can be accepted more than once (at most 1,000 times). Absent: false.
    ///
    /// Example: false
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_use: Option<bool>,

    /// Whether the people who accept the invite may use the device as an exit node, if it is one.
    /// Absent: false.
    ///
    /// Example: false
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_exit_node: Option<bool>,

    /// The Secret to which the controller writes the invite's URL, under the key "url", in the
    /// namespace of this object. The controller creates the Secret, and Kubernetes deletes it with
    /// this object. If a Secret of the name already exists, the controller does not change it and
    /// reports that in status. Absent: the name of this object.
    ///
    /// Example: partner-invite
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::secret_name")]
    pub secret_name: Option<String>,

    /// What happens to the invite when this object is deleted. Retain: it stays as it is, open or
    /// accepted; withdraw it in the admin console. Absent: Retain.
    ///
    /// Example: Retain
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InviteDeletionPolicy")]
    pub deletion_policy: Option<InviteDeletionPolicy>,
}

/// What happens to an invite when its object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InviteDeletionPolicy {
    /// The invite stays as it is.
    Retain,
}

/// The observed state of the invite. The controller writes it only when it changes. It never
/// contains the URL.
///
/// Every field is optional when read: a status that another version wrote must not stop a watch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TailscaleDeviceInviteStatus {
    /// The generation of the spec that this status describes; -1 before the first reconcile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: whether the invite exists and its URL is in the Secret. Reconciling is True while the
    /// controller works or will retry; Stalled is True if only an edit helps. Accepted: whether
    /// the invite has been accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The TailscaleTailnet in use: the one that spec names, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailnet: Option<String>,

    /// The device that the controller found, recorded before it creates the invite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,

    /// The invite's id. Once this is set, the controller never creates another invite for this
    /// object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite_id: Option<String>,

    /// The Secret with the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,

    /// Whether the invite has been accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,

    /// The login of the user who accepted the invite; if several did, the one that the API reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_by: Option<String>,
}

impl TailscaleDeviceInviteSpec {
    /// The name of the `TailscaleTailnet` of the device.
    #[must_use]
    pub fn tailnet_name(&self) -> &str {
        self.tailnet_ref
            .as_ref()
            .map_or("default", |tailnet| tailnet.name.as_str())
    }
}

impl TailscaleDeviceInvite {
    /// The name of the Secret for the URL.
    #[must_use]
    pub fn secret_name(&self) -> &str {
        let own = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.secret_name.as_deref().unwrap_or(own)
    }
}
