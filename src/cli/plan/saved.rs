//! A plan in a file: enough to tell later whether it still holds, and to carry it out then.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt as _;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};

use super::view::View;
use crate::{
    api::{GROUP, TailscaleDevicePolicy, VERSION},
    cli::{look::Look, policies::PolicyObject},
    model::{Attributes, ChangeLimit, Device, NodeId},
    plan::Survey,
};

/// The version of the format: another one is refused.
const FORMAT: u32 = 1;

/// Holds no credential, nor anything that a policy does not say or the list does not show.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedPlan<'a> {
    /// [`FORMAT`]
    format: u32,
    /// The program that made it, and its version.
    made_by: String,
    made_at: Timestamp,
    /// The domain of the tailnet's names: another tailnet is not the one that is meant.
    tailnet: Option<String>,
    /// How many devices it may change.
    max_changed_devices: String,
    /// The policies, without their status.
    policies: Vec<Value>,
    /// Of `policies`.
    policies_hash: String,
    /// What the plan found of each device that a policy means.
    devices: BTreeMap<&'a NodeId, String>,
    /// The plan.
    #[serde(flatten)]
    view: &'a View<'a>,
}

impl<'a> SavedPlan<'a> {
    /// Everything that the plan came from.
    pub fn new(
        objects: &[PolicyObject],
        limit: ChangeLimit,
        look: &Look,
        survey: &'a Survey,
        view: &'a View<'a>,
        now: Timestamp,
    ) -> Self {
        let policies = objects.iter().filter_map(|object| object.0.as_ref().ok());
        let mut policies: Vec<Value> = policies.map(manifest).collect();
        policies.sort_by_key(|policy| policy["metadata"].to_string());
        let devices = survey.devices.keys().filter_map(|node| {
            let device = look.fleet.get(node)?;
            Some((node, fingerprint(device, look.attributes.get(node))))
        });
        Self {
            format: FORMAT,
            made_by: concat!("tsdp ", env!("CARGO_PKG_VERSION")).to_owned(),
            made_at: now,
            tailnet: look.fleet.domain(),
            max_changed_devices: limit.to_string(),
            policies_hash: hash(&json!(policies)),
            policies,
            devices: devices.collect(),
            view,
        }
    }
}

fn manifest(policy: &TailscaleDevicePolicy) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "TailscaleDevicePolicy",
        "metadata": {"name": policy.name_any(), "namespace": policy.namespace()},
        "spec": policy.spec,
    })
}

/// Tells whether a device is still as the plan found it: its settings and who it is; not what moves by
/// itself, such as when it was last seen and what client it runs.
fn fingerprint(device: &Device, attributes: Option<&Attributes>) -> String {
    hash(&json!({
        "name": device.name,
        "hostname": device.hostname,
        "user": device.user,
        "os": device.os,
        "tags": device.tags,
        "ipv4": device.ipv4,
        "authorized": device.authorized,
        "external": device.external,
        "keyExpiryDisabled": device.key_expiry_disabled,
        "expires": device.expires,
        "enabledRoutes": device.enabled_routes,
        "attributes": attributes.map(|attributes| {
            let by_key = attributes.iter().map(|(key, value)| (key.to_string(), json!(value)));
            by_key.collect::<BTreeMap<_, _>>()
        }),
    }))
}

/// The SHA-256 of JSON whose maps are sorted.
fn hash(value: &Value) -> String {
    let hash = digest(&SHA256, value.to_string().as_bytes());
    let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}
