//! The one-shot actions of a policy: their fields in the spec and their records in the status.
//!
//! The doc comments become `kubectl explain`: they address the author of a manifest.

#![allow(
    clippy::doc_markdown,
    reason = "`kubectl explain` shows the comments verbatim"
)]

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{duration, rules};
use crate::model::Refused;

/// Which devices the controller deletes, and how many in a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteInactiveSpec {
    /// How long ago a device must have been seen last, in hours, minutes and seconds; at least 24h.
    /// The controller does not delete a device that is connected, or for which the API does not
    /// report when it was last seen.
    ///
    /// Example: 720h
    #[schemars(schema_with = "rules::inactivity")]
    pub inactive_for: String,

    /// How many devices the controller deletes for the policy within any 24 hours; from 1 to 1000.
    /// Every deletion that began counts, whatever its outcome. Absent: 1.
    ///
    /// Example: 5
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::deletions_per_day")]
    pub max_per_day: Option<u32>,
}

/// A device that is off for a night is not inactive.
const MIN_INACTIVE: Duration = Duration::from_hours(24);
/// Bounded, as the status records each deletion of a day.
const MAX_PER_DAY: u32 = 1000;

impl DeleteInactiveSpec {
    /// How long ago a device must have been seen last.
    pub fn inactive_for(&self) -> Result<Duration, Refused> {
        let text = &self.inactive_for;
        let inactive_for = duration::parse(text)?;
        if inactive_for < MIN_INACTIVE {
            let error = format!("'{text}' is too short: write at least 24h");
            return Err(Refused(error));
        }
        Ok(inactive_for)
    }

    /// How many devices are deleted in a day.
    pub fn max_per_day(&self) -> Result<u32, Refused> {
        // A deletion cannot be undone: more than one a day must be written out.
        let most = self.max_per_day.unwrap_or(1);
        if (1..=MAX_PER_DAY).contains(&most) {
            return Ok(most);
        }
        Err(Refused(rules::TOO_MANY_DELETIONS.to_owned()))
    }
}

/// The number of one-shot actions in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionTotals {
    /// Keys that the controller will expire at their time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<u32>,

    /// Actions whose time has come and that have not begun: they are held, or about to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<u32>,

    /// Actions that have begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u32>,

    /// Devices that the controller will delete on a later day, because of maxPerDay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,

    /// Keys that the controller will not expire: their time passed before the action could begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u32>,

    /// Keys that were expired for expireKeyAt, and devices that were deleted within the last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u32>,
}

/// A one-shot action of a policy.
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

    /// Why the action is in this state, if the state does not explain it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The record of the policy's one-shot actions, written before the first request of each action.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordedActions {
    /// The key expiries, by the time of expireKeyAt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub key_expiries: Vec<KeyExpiries>,

    /// The devices that were deleted within the last day, or are being deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4000), extend("x-kubernetes-list-type" = "atomic"))]
    pub deletions: Vec<DeletedDevice>,

    /// The latest expireKeyAt that the policy no longer declares and whose record was dropped: the
    /// controller expires no key for this time or an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_until: Option<String>,
}

/// The devices whose keys are expired at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyExpiries {
    /// The time.
    pub at: String,

    /// The devices for which the action has begun. The controller sends the request, or sends it
    /// again, only as long as the device's key expires at expiresBefore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000), extend("x-kubernetes-list-type" = "atomic"))]
    pub started: Vec<StartedExpiry>,

    /// The nodeIds of the devices for which the action is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000), extend("x-kubernetes-list-type" = "atomic"))]
    pub done: Vec<String>,

    /// Whether an Event has reported that the action is missed for some devices.
    #[serde(default)]
    #[schemars(!default)]
    // No default in the schema: the API server would write it into every status.
    pub missed_reported: bool,
}

/// A device whose key is being expired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartedExpiry {
    /// Its nodeId.
    pub node_id: String,

    /// When the key would expire without the action. Absent: never.
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

    /// When the deletion began; it counts for maxPerDay until a day later.
    pub at: Time,

    /// Whether the API has accepted the deletion.
    #[serde(default)]
    #[schemars(!default)]
    pub done: bool,
}
