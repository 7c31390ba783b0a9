//! The status of a `TailscaleDevicePolicy`.
//!
//! Everything is optional when read: a status written by another version must not stop a watch.

#![expect(
    clippy::doc_markdown,
    reason = "`kubectl explain` shows the comments as they stand"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionRecords, ActionStatus, ActionTotals, AttributeRecord};

/// What the controller found and did. Written only when it changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TailscaleDevicePolicyStatus {
    /// The generation of the spec that this status speaks of; -1 before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready is the last word. Reconciling is True while work is under way or will be retried;
    /// Stalled is True when only an edit helps. InSync: no difference at the last look. Accepted:
    /// False for a policy that is invalid, or that the tailnet does not allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The TailscaleTailnet in use: the named one, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailnet: Option<String>,

    /// The enforcement in effect: the one named, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<String>,

    /// How many devices the policy is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_devices: Option<u32>,

    /// How many of them are as wished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_sync_devices: Option<u32>,

    /// The device to which the policy is bound. As long as that is in the tailnet it is the one
    /// that is meant, whoever else takes its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,

    /// Who owned the bound device when it was bound: the login of a user, or "tagged". Another
    /// device of the same name is followed only if its owner is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_owner: Option<String>,

    /// How the spec named the device when it was bound. A spec that names another one lets it go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_as: Option<String>,

    /// The keys of the posture attributes that the policy owns on one device or more, recorded before
    /// the first is set. One that the spec no longer declares is deleted on the devices of
    /// attributeRecord.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub owned_attributes: Vec<String>,

    /// On which devices the policy owns them; recorded before the first request there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute_record: Option<AttributeRecord>,

    /// Under deletionPolicy: Clear, what is to be cleared and where; written before the first call.
    /// As long as it stands here, the policy has the finalizer tailnet.dev/clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_devices: Option<ManagedDevices>,

    /// The devices in detail, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 20),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["nodeId"])
    )]
    pub devices: Vec<DeviceStatus>,

    /// The changes that are still to be made, at most 20 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub pending: Vec<PendingChange>,

    /// How many changes are still to be made, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_total: Option<u32>,

    /// What the policy does once (expireKeyAt, deleteInactive), at most 20 acts: first what needs attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub actions: Vec<ActionStatus>,

    /// How many acts there are, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_totals: Option<ActionTotals>,

    /// What has been done once; written before the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_records: Option<ActionRecords>,

    /// The changes that wait together for an approval. Absent: none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_plan: Option<HeldPlan>,

    /// How many approvals of held plans have been used; written before the first call of each. Each
    /// held plan has a hash of its own by it, so that no approval works twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals_used: Option<u32>,

    /// The hash of the plan that was approved last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_approved_plan: Option<String>,

    /// What is wrong with the annotation tailnet.dev/approve: entries that cannot be read, and those
    /// that fit nothing that is held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub approval_errors: Vec<String>,

    /// The value of the annotation reconcile.fluxcd.io/requestedAt (or tailnet.dev/reconcile-at) for
    /// which the tailnet was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// When the controller last changed a setting for this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
}

/// The devices of a policy under deletionPolicy: Clear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedDevices {
    /// The nodeIds of the devices that the policy holds, at most 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_ids: Vec<String>,

    /// The routes that it names, those of an exit node among them. The attributes are
    /// ownedAttributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<String>,

    /// The devices among nodeIds on which the policy manages only some of the routes, because the change that
    /// would set the others is still held. Only routes that it manages are withdrawn when it releases a device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub partly_managed: Vec<PartlyManaged>,

    /// The devices that it has let go and that are not cleared yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub released: Vec<Released>,
}

/// Devices on which a policy manages only some of the routes that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartlyManaged {
    /// Their nodeIds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub node_ids: Vec<String>,

    /// The routes that it manages there; absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<String>,
}

/// Devices that a policy has let go, and what it takes from them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// Their nodeIds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub node_ids: Vec<String>,

    /// The keys of the posture attributes to delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attributes: Vec<String>,

    /// The routes to withdraw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<String>,
}

/// A device that the policy is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Its nodeId.
    pub node_id: String,

    /// Its name in MagicDNS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,

    /// Whether it was as wished at the last look.
    #[serde(default)]
    #[schemars(!default)]
    pub in_sync: bool,

    /// Why it is not, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// Why it is not, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Changes that are frozen and wait for an approval: what differs later is no part of them, and what
/// differs no more, or in another way, is not sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldPlan {
    /// What an approval names: the annotation tailnet.dev/approve with "plan:" and this.
    ///
    /// Example: 3f2a9c0b7d41e856
    pub hash: String,

    /// The kind of the object on which the approval is written: TailscaleDevicePolicy for a policy
    /// whose enforcement is Approve, TailscaleTailnet for one that maxChangedDevices holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub approve_on: String,

    /// How many changes would be made.
    pub changes: u32,

    /// On how many devices.
    pub devices: u32,
}

/// A change that is still to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingChange {
    /// The nodeId of the device.
    pub device: String,

    /// The device's name in MagicDNS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,

    /// The setting.
    ///
    /// Example: tags, or postureAttributes[custom:tier]
    pub field: String,

    /// What it is now.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,

    /// What it shall be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,

    /// Why it is to be changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,

    /// Why it is held back, and what releases it. Absent: it is not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}
