//! The demo's tailnet and the manifests of `deploy/examples`, both compiled in.

use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    api::TailscaleDevicePolicy,
    cli::process::AnyError,
    convert,
    plan::{PolicyInput, PolicyKey},
    simulator::Options,
};

/// The API key that the demo's simulator accepts. Not a secret: it is valid nowhere else.
pub(super) const API_KEY: &str = "tskey-api-demo";

/// The policies of `deploy/examples`.
pub(super) const POLICIES: [&str; 6] = [
    include_str!("../../../deploy/examples/amelie-laptop.yaml"),
    include_str!("../../../deploy/examples/ci-runner.yaml"),
    include_str!("../../../deploy/examples/fra-router.yaml"),
    include_str!("../../../deploy/examples/lobby-kiosk.yaml"),
    include_str!("../../../deploy/examples/old-gateway.yaml"),
    include_str!("../../../deploy/examples/orders-db.yaml"),
];

/// The tailnet policy file of the demo. Its tagOwners declare the tags that the examples use.
const POLICY_FILE: &str = r#"{"tagOwners": {
    "tag:router": [], "tag:fra": [], "tag:db": [], "tag:ci": [],
}}"#;

/// The options of the demo's simulator.
pub(super) fn tailnet() -> Result<Options, AnyError> {
    let list: Value = serde_yaml::from_str(include_str!("tailnet.yaml"))?;
    let devices = list["devices"].as_array().cloned().unwrap_or_default();
    Ok(Options {
        devices,
        api_keys: vec![API_KEY.into()],
        policy_file: Some(POLICY_FILE.to_owned()),
        ..Options::default()
    })
}

/// The example policies, parsed as the controller parses them.
pub(super) fn policies() -> Result<Vec<PolicyInput>, AnyError> {
    let mut policies = Vec::new();
    for (place, text) in POLICIES.iter().enumerate() {
        let policy = TailscaleDevicePolicy::deserialize(serde_yaml::Deserializer::from_str(text))?;
        let name = policy.metadata.name.clone().unwrap_or_default();
        let key = PolicyKey::new(policy.metadata.namespace.clone().unwrap_or_default(), name);
        // Unique, as the uids of the API server are.
        let uid = place.to_string();
        // Of equal age, as a file does not say which policy is older.
        policies.push(convert::policy(
            key,
            uid,
            1,
            Timestamp::UNIX_EPOCH,
            &policy.spec,
            None,
        ));
    }
    Ok(policies)
}
