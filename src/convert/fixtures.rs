//! Values of the planner from manifests, for tests.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{GuardrailsSource, policy as convert};
use crate::{
    api::{TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus, TailscaleTailnetSpec},
    model::{AttributeKey, NodeId},
    plan::{Guardrails, OwnedKeys, OwnedRecord, PolicyInput, PolicyKey},
};

/// The policy `network/fra` with this spec.
pub fn policy(yaml: &str) -> PolicyInput {
    named_policy("fra", "uid", 1, yaml)
}

/// A policy of the namespace `network` with this spec.
pub fn named_policy(name: &str, uid: &str, generation: i64, yaml: &str) -> PolicyInput {
    let spec: TailscaleDevicePolicySpec = serde_yaml::from_str(yaml).unwrap();
    let key = PolicyKey::new("network", name);
    let created = Timestamp::UNIX_EPOCH;
    convert(key, uid.to_owned(), generation, created, &spec, None)
}

/// The guardrails of this spec, with a controller in `tsdp-system`.
pub fn guardrails(spec: &Value) -> Guardrails {
    let source = GuardrailsSource {
        spec: &tailnet_spec(spec),
        own_namespace: "tsdp-system",
    };
    source.try_into().unwrap()
}

/// The spec of a tailnet with a Secret.
pub fn tailnet_spec(spec: &Value) -> TailscaleTailnetSpec {
    let mut given = json!({"credentialsSecret": {"name": "tailscale"}});
    let fields = given.as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    serde_json::from_value(given).unwrap()
}

/// Owned keys as the next process reads them from a status.
pub fn through_status(owned: &OwnedRecord, uid: &str, unrecorded: usize) -> OwnedKeys {
    let status = TailscaleDevicePolicyStatus {
        attribute_record: owned.to_status(uid, unrecorded),
        ..TailscaleDevicePolicyStatus::default()
    };
    OwnedKeys::of_status(&status, uid)
}

/// The keys of a status of an older version, which names no devices.
pub fn keys_without_devices(bound: &NodeId, keys: &[AttributeKey]) -> OwnedKeys {
    let status = TailscaleDevicePolicyStatus {
        node_id: Some(bound.to_string()),
        owned_attributes: keys.iter().map(ToString::to_string).collect(),
        ..TailscaleDevicePolicyStatus::default()
    };
    OwnedKeys::of_status(&status, "any")
}
