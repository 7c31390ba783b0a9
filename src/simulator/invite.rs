//! An invite that shares a device with someone in another tailnet.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::device::Device;

/// An invite in the shape of the response.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Invite {
    pub id: String,
    pub created: Timestamp,
    pub tailnet_id: u64,
    /// The legacy numeric id.
    pub device_id: u64,
    pub sharer_id: u64,
    #[serde(skip_serializing_if = "is_false")]
    pub multi_use: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub allow_exit_node: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_email_sent_at: Option<Timestamp>,
    #[expect(clippy::struct_field_names, reason = "the API's own name")]
    pub invite_url: String,
    pub accepted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_by: Option<Value>,
    #[serde(skip)]
    pub accepts: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Invite {
    pub fn is_to(&self, device: &Device) -> bool {
        legacy_id(device) == self.device_id
    }
}

/// The legacy numeric id of a device.
pub(super) fn legacy_id(device: &Device) -> u64 {
    device.id.parse().unwrap_or_default()
}
