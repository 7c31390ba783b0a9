//! What a policy does once, as its manifest says it and its status keeps it.
//!
//! The doc comments become `kubectl explain`: they speak to the author of a manifest.

#![allow(
    clippy::doc_markdown,
    reason = "`kubectl explain` shows the comments as they stand"
)]

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{duration, rules};
use crate::model::Refused;

/// Which devices are deleted, and how many in a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteInactive {
    /// For how long a device must not have been seen, in hours, minutes and seconds; at least 24h.
    /// One that is connected, and one of which it is not known when it was last seen, stays.
    ///
    /// Example: 720h
    #[schemars(schema_with = "rules::inactivity")]
    pub inactive_for: String,

    /// How many devices the policy deletes within any 24 hours, at most; from 1 to 1000. Those that
    /// were begun count, whatever became of them. Absent: 1.
    ///
    /// Example: 5
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::deletions_per_day")]
    pub max_per_day: Option<u32>,
}

/// Shorter than this, a device may be away for a night.
const SHORTEST: Duration = Duration::from_hours(24);
/// Most deletions in a day: each stands in the status.
const MOST_PER_DAY: u32 = 1000;

impl DeleteInactive {
    /// For how long a device must not have been seen.
    pub fn inactive_for(&self) -> Result<Duration, Refused> {
        let text = &self.inactive_for;
        let inactive_for = duration::parse(text)?;
        if inactive_for < SHORTEST {
            let error = format!("'{text}' is too short: write at least 24h");
            return Err(Refused(error));
        }
        Ok(inactive_for)
    }

    /// How many devices are deleted in a day.
    pub fn max_per_day(&self) -> Result<u32, Refused> {
        let most = self.max_per_day.unwrap_or(1);
        if (1..=MOST_PER_DAY).contains(&most) {
            return Ok(most);
        }
        let error = "the number of deletions is out of range: write one from 1 to 1000";
        Err(Refused(error.to_owned()))
    }
}

/// How many acts of each kind there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionTotals {
    /// Keys that will be expired at their time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<u32>,

    /// Acts whose time has come and that have not begun: they are held, or about to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<u32>,

    /// Acts that have begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u32>,

    /// Devices that are to be deleted on a later day, as maxPerDay says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,

    /// Keys that will not be expired any more: their time was past before it could begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u32>,

    /// Keys that are expired for expireKeyAt, and devices that were deleted within the last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u32>,
}

/// Something that a policy does once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionStatus {
    /// ExpireKey or Delete.
    pub action: String,

    /// Scheduled, Due, Started, Waiting, Missed or Done.
    pub state: String,

    /// The nodeId of the device.
    pub device: String,

    /// The device's name in MagicDNS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,

    /// Why it is as it is, where that is not plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What the policy must not forget of what it has done once; written before the first call of each
/// act.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionRecords {
    /// By the time of expireKeyAt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub key_expiries: Vec<KeyExpiries>,

    /// The devices that were deleted within the last day, or are being deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4000), extend("x-kubernetes-list-type" = "atomic"))]
    pub deletions: Vec<DeletedDevice>,

    /// The latest expireKeyAt that the policy no longer declares and of which the record was dropped:
    /// no key is expired for it or an earlier time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_until: Option<String>,
}

/// The devices whose keys are expired at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyExpiries {
    /// The time.
    pub at: String,

    /// Those for which it has begun. The call is sent, or sent again, only as long as the device's
    /// key expires at expiresBefore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000), extend("x-kubernetes-list-type" = "atomic"))]
    pub started: Vec<StartedExpiry>,

    /// The nodeIds of those for which it is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000), extend("x-kubernetes-list-type" = "atomic"))]
    pub done: Vec<String>,

    /// Somebody has been told that it is missed for some devices.
    #[serde(default)]
    #[schemars(!default)]
    pub missed_reported: bool,
}

/// A device whose key is being expired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartedExpiry {
    /// Its nodeId.
    pub node_id: String,

    /// When its key expires otherwise. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_before: Option<String>,
}

/// A device that was deleted or is being deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletedDevice {
    /// Its nodeId.
    pub node_id: String,

    /// Its name in MagicDNS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,

    /// When it began; it counts for maxPerDay until a day later.
    pub at: Time,

    /// Whether the API has accepted it.
    #[serde(default)]
    #[schemars(!default)]
    pub done: bool,
}
