//! The record of the posture attributes that a policy owns, as its status stores it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// On which devices the policy owns which keys of ownedAttributes. The controller deletes a key
/// that the spec no longer declares only on these devices. The record takes at most about 10 KiB,
/// regardless of the number of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttributeRecord {
    /// The UID of the policy that recorded it: a status that was restored from another object does
    /// not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,

    /// The domain of the devices: in another tailnet the policy owns nothing.
    ///
    /// Example: tail1a2b.ts.net
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,

    /// Devices that are listed by nodeId.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub listed: Vec<ListedDevices>,

    /// Devices that are too many to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DeviceDigest>,

    /// How many matching devices are too many to record. The controller sets the policy's
    /// attributes there, but the policy owns none of them: a key that the spec no longer declares
    /// stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded_devices: Option<u32>,
}

/// Devices on which a policy owns the same keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedDevices {
    /// The keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attributes: Vec<String>,

    /// The nodeIds of the devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub node_ids: Vec<String>,
}

/// Many devices in a few bits each: a table with the number of the group of each device in the
/// tailnet, or 0 for a device in no group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceDigest {
    /// The groups with the numbers 1, 2 and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub groups: Vec<DigestGroup>,

    /// When the newest device of the tailnet was created. A newer device is in no group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,

    /// The seed of the hash of a nodeId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,

    /// The number of bits in a cell of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,

    /// The cells of the table, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
}

/// The devices of a digest that have one number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DigestGroup {
    /// The keys that the policy owns on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attributes: Vec<String>,

    /// The number of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}
