//! Where a policy owns which posture attributes, as its status keeps it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// On which devices the policy owns which keys of ownedAttributes. A key that the spec no longer
/// declares is deleted on these devices alone. At most about ten KiB, however many devices there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttributeRecord {
    /// The UID of the policy that recorded it: a restored status of another object does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,

    /// The domain of the devices: in another tailnet the policy owns nothing.
    ///
    /// Example: tail1a2b.ts.net
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,

    /// Devices that are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub listed: Vec<ListedDevices>,

    /// Devices that are too many to be listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<DeviceDigest>,

    /// How many devices more match than can be recorded. The policy sets its attributes there, and owns
    /// none of them: a key that the spec no longer declares stays.
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

/// Many devices in a few bits each: a table that gives each device of the tailnet the number of its
/// group, and 0 to a device that is in none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceDigest {
    /// The groups that have the numbers 1, 2 and so on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub groups: Vec<DigestGroup>,

    /// When the newest device of the tailnet was created. A newer one is in no group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,

    /// What the hash of a nodeId begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,

    /// How many bits a cell of the table has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,

    /// The cells, in base64.
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

    /// How many devices they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
}
