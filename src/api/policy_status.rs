//! The status of a `TailscaleDevicePolicy`.
//!
//! Every field is optional when read: a status that another version wrote must not stop a watch.

#![expect(
    clippy::doc_markdown,
    reason = "`kubectl explain` shows the comments verbatim"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ActionStatus, ActionTotals, AttributeRecord, RecordedActions};

/// The observed state and the records of the policy. The controller writes them only when they
/// change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TailscaleDevicePolicyStatus {
    /// The generation of the spec that this status describes; -1 before the first poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready: whether everything that the policy declares is applied. Reconciling is True while the
    /// controller works or will retry; Stalled is True if only an edit helps. InSync: whether the
    /// last poll found no difference. Accepted: False if the policy is invalid, or if the tailnet
    /// does not allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The TailscaleTailnet in use: the one that spec names, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailnet: Option<String>,

    /// The enforcement in effect: the one that spec names, or the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<String>,

    /// How many devices the policy targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_devices: Option<u32>,

    /// How many of them are in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_sync_devices: Option<u32>,

    /// The device to which the policy is bound. As long as that device is in the tailnet the policy
    /// targets it, even if another device takes its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,

    /// The owner of the bound device when it was bound: the login of a user, or "tagged". The
    /// policy follows the name to another device only if its owner is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_owner: Option<String>,

    /// How spec.device named the device when it was bound. If spec.device names another one, the
    /// policy releases the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_as: Option<String>,

    /// The devices that the name in spec.device fits, while the policy is bound to none of them. It
    /// binds one only after the others have left the tailnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ambiguous_devices: Option<AmbiguousDevices>,

    /// The keys of the posture attributes that the policy owns on one device or more, recorded
    /// before the controller sets the first. It deletes a key that the spec no longer declares on
    /// the devices of attributeRecord.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub owned_attributes: Vec<String>,

    /// The expiries that the spec declared for attribute keys. After its expiry, the policy no longer
    /// owns a key: a value that someone sets later stays, even if the spec no longer declares the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute_expiries: Option<BTreeMap<String, Time>>,

    /// On which devices the policy owns the keys of ownedAttributes, recorded before the first
    /// request to each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute_record: Option<AttributeRecord>,

    /// The fields of the spec that the controller has applied to a device, or found in sync there,
    /// recorded before the first request. If the spec no longer declares one of them, the policy
    /// releases it. The keys of postureAttributes are in ownedAttributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub managed_fields: Vec<String>,

    /// The fields that the last edit removed from the spec and whose values stay on the devices as
    /// they are. Absent after the next edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_fields: Option<ReleasedFields>,

    /// Under deletionPolicy: Clear, the settings to clear and their devices, recorded before the
    /// first request. As long as this is set, the policy has the finalizer tailnet.dev/clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_devices: Option<RecordedDevices>,

    /// Details of devices, at most 20. Of the devices that only wait for the approval of heldPlan, the first 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 20),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["nodeId"])
    )]
    pub devices: Vec<DeviceStatus>,

    /// The declared values that do not hold now, at most 20, each with its cause: changes, and values that
    /// another policy overrides. Of the changes of heldPlan, the first 3: its summary has all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub pending: Vec<PendingChange>,

    /// The exact number of declared values that do not hold now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_total: Option<u32>,

    /// The exact number of changes that the controller holds: until an approval or an edit releases
    /// them, or the limit has room. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_changes: Option<u32>,

    /// The one-shot actions of the policy (expireKeyAt, deleteInactive), at most 20: first those
    /// that need attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub actions: Vec<ActionStatus>,

    /// The exact number of one-shot actions in each state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_totals: Option<ActionTotals>,

    /// The one-shot actions that have begun, recorded before the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_records: Option<RecordedActions>,

    /// The changes that are pending approval as one plan. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_plan: Option<HeldPlan>,

    /// How many approvals of held plans were used, recorded before the first request of each plan.
    /// The number is part of each plan's hash, so that no approval works twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals_used: Option<u32>,

    /// The hash of the last approved plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_approved_plan: Option<String>,

    /// Errors in the annotation tailnet.dev/approve: entries that cannot be parsed, and entries
    /// that match nothing that is held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub approval_errors: Vec<String>,

    /// The value of the annotation reconcile.fluxcd.io/requestedAt (or tailnet.dev/reconcile-at)
    /// that the controller last handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,

    /// When the controller last changed a setting for this policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
}

/// The fields that the spec no longer declares, and whose values stay on the devices as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleasedFields {
    /// The generation of the spec that no longer declares them.
    #[serde(default)]
    #[schemars(!default)]
    pub generation: i64,

    /// The number of fields.
    #[serde(default)]
    #[schemars(!default)]
    pub count: u32,

    /// The fields.
    ///
    /// Example: enabledRoutes
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub fields: Vec<String>,

    /// How many devices the policy targeted then.
    #[serde(default)]
    #[schemars(!default)]
    pub devices: u32,
}

/// The managed devices of a policy under deletionPolicy: Clear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedDevices {
    /// The nodeIds of the devices that the policy manages, at most 10,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    // About 200 KiB of ids. etcd stores 1.5 MiB in one object.
    #[schemars(length(max = 10_000), extend("x-kubernetes-list-type" = "atomic"))]
    pub node_ids: Vec<String>,

    /// The routes that the policy declares, including those of an exit node. The attributes are in
    /// ownedAttributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<String>,

    /// The devices of nodeIds on which the policy manages only some of the routes, because the
    /// change that would set the others is still held. When the policy releases a device, the
    /// controller withdraws only the routes that the policy manages there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub partly_managed: Vec<RecordedPart>,

    /// The devices that the policy has released and the controller has not cleared yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub released: Vec<RecordedRelease>,
}

/// The devices that one name fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmbiguousDevices {
    /// How spec.device names the device.
    pub named: String,

    /// Their nodeIds, at most 20.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub node_ids: Vec<String>,
}

/// Devices on which a policy manages only some of the routes that it declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedPart {
    /// Their nodeIds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub node_ids: Vec<String>,

    /// The routes that the policy manages there. Absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub routes: Vec<String>,
}

/// Devices that a policy has released, and the settings to remove from them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRelease {
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

/// A device that the policy targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// Its nodeId.
    pub node_id: String,

    /// Its name in MagicDNS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,

    /// Whether the device was in sync at the last poll.
    #[serde(default)]
    #[schemars(!default)]
    // No default in the schema: the API server would write it into every status.
    pub in_sync: bool,

    /// Why the device is not in sync, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// Why the device is not in sync, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Changes that are frozen and pending approval. Later differences are no part of the plan, and the
/// controller does not send a change that no longer applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldPlan {
    /// The hash that approves the plan: set the annotation tailnet.dev/approve to "plan:" and this
    /// hash.
    ///
    /// Example: 3f2a9c0b7d41e856
    pub hash: String,

    /// The kind of the object to annotate: TailscaleDevicePolicy for a policy whose enforcement is
    /// Approve, TailscaleTailnet for one that maxChangedDevices holds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub approve_on: String,

    /// The number of changes.
    pub changes: u32,

    /// The number of devices.
    pub devices: u32,

    /// The number of changes that take something from a device or can cut it off. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruptive_changes: Option<u32>,

    /// The changes by kind, at most 20 kinds: first those that are disruptive, then those of the most
    /// devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub summary: Vec<HeldChanges>,

    /// The number of kinds that the summary leaves out. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_kinds: Option<u32>,

    /// The number of changes of these other kinds. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_changes: Option<u32>,
}

/// Held changes of one kind: they differ only by their device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldChanges {
    /// The setting, and what is added or removed.
    ///
    /// Example: "tags: -tag:syd"
    pub change: String,

    /// The number of devices.
    pub devices: u32,

    /// The devices by name, the first 100 at most, and how many more they are.
    ///
    /// Example: srv-1, srv-2
    #[serde(default, skip_serializing_if = "String::is_empty")]
    // One text: `kubectl describe` writes each entry of a list on a line of its own.
    pub names: String,

    /// Whether the change takes something from the devices or can cut them off.
    #[serde(default)]
    #[schemars(!default)]
    pub disruptive: bool,
}

/// A pending change.
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

    /// The observed value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,

    /// The desired value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,

    /// Why the change is pending.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,

    /// What the change takes from the device, or how it can cut the device off. Absent: nothing, or
    /// the change is not disruptive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruptive: Option<String>,

    /// Why the value does not hold: why the controller holds the change and what releases it, what the change
    /// waits for, or which policy overrides it. Absent: the change is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}
