//! Commands on answers that were recorded from the live API, and on devices that cannot be read completely.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::tailnet::{API_KEY, Ran, program};
use crate::client::script::{Reply, Script, Seen};

const DEVICES: &str = include_str!("../../recorded/devices.json");
const ROUTES: &str = include_str!("../../recorded/routes.json");
const ATTRIBUTES: &str = include_str!("../../recorded/attributes.json");

/// The API with these devices.
async fn api(devices: Value) -> Script {
    Script::start(move |request| {
        if request.path.contains("/attributes") {
            Reply::new(200, ATTRIBUTES)
        } else if request.path.contains("/routes") {
            Reply::new(200, ROUTES)
        } else {
            Reply::new(200, devices.to_string())
        }
    })
    .await
}

async fn run(api: &Script, folder: &TempDir, arguments: &[&str]) -> Ran {
    let mut command = program();
    command
        .args(arguments)
        .args(["--requests-per-second", "1000"])
        .current_dir(folder.path())
        .env("TAILSCALE_API_KEY", API_KEY)
        .env("TAILSCALE_BASE_URL", &api.url);
    command.output().await.unwrap().into()
}

/// How many changes the exported policies ask for, and what the export reported.
async fn exported(devices: Value) -> (u64, String) {
    let api = api(devices).await;
    let folder = tempfile::tempdir().unwrap();
    let export = run(&api, &folder, &["export", "--out", "policies"]).await;
    assert_eq!(export.code, Some(0), "{}", export.err);
    let plan = run(&api, &folder, &["plan", "-o", "json", "-f", "policies"]).await;
    let view: Value = serde_json::from_str(&plan.out).unwrap();
    (view["totals"]["changes"].as_u64().unwrap(), export.err)
}

#[tokio::test]
async fn a_recorded_tailnet_is_exported_as_it_is() {
    let devices: Value = serde_json::from_str(DEVICES).unwrap();
    let (changes, reported) = exported(devices).await;
    assert_eq!(changes, 0);
    insta::assert_snapshot!(reported, @"
    5 policies for 7 devices in 1 file.
    Left out: 11 with nothing to declare but defaults (--all writes them).
    ");
}

#[tokio::test]
async fn a_device_with_an_unreadable_field_is_exported_as_far_as_it_can_be_read() {
    for (field, odd) in [
        ("tags", json!("tag:a")),
        ("user", json!(null)),
        ("os", json!(7)),
        ("name", json!(["x"])),
        ("hostname", json!(null)),
        ("enabledRoutes", json!(["10.0.0.0"])),
        ("addresses", json!("100.64.0.1")),
        ("keyExpiryDisabled", json!("yes")),
        ("authorized", json!(null)),
        ("isExternal", json!("no")),
        ("isEphemeral", json!("no")),
        ("expires", json!("soon")),
        ("tailnetLockError", json!(7)),
        ("nodeId", json!(12)),
    ] {
        let mut devices: Value = serde_json::from_str(DEVICES).unwrap();
        let list = devices["devices"].as_array_mut().unwrap();
        for device in list.iter_mut().step_by(3) {
            device[field] = odd.clone();
        }
        let (changes, reported) = exported(devices).await;
        assert_eq!(changes, 0, "{field}");
        assert!(
            reported.contains("in a form that cannot be read"),
            "{field}: {reported}"
        );
    }
}

/// A connected device of the recording without routes.
const NODE: &str = "naa549706afCNTRL";
const POLICY: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: recorded, namespace: network}
spec:
  device: {hostname: hostname-30}
  authorized: true
  enabledRoutes: []
  postureAttributes: {custom:tier: {string: gold}}
  ownership: {enabledRoutes: Exact, postureAttributes: Exact}
";

/// The recorded answers, and an attribute once it was set.
async fn with_writes() -> Script {
    let is_set = Arc::new(AtomicBool::new(false));
    Script::start(move |request: &Seen| {
        let path = request.path.split('?').next().unwrap_or_default();
        let of_device = path.strip_prefix(&format!("/api/v2/device/{NODE}"));
        let body = match (request.method.as_str(), of_device) {
            ("GET", None) if path.ends_with("/devices") => DEVICES.to_owned(),
            ("GET", Some("")) => listed(NODE),
            ("GET", Some("/routes")) => ROUTES.to_owned(),
            ("GET", Some("/attributes")) if is_set.load(Ordering::Relaxed) => {
                ATTRIBUTES.replacen("{\"node:os\"", "{\"custom:tier\": \"gold\", \"node:os\"", 1)
            }
            ("GET", Some("/attributes")) => ATTRIBUTES.to_owned(),
            ("POST", Some("/attributes/custom:tier")) => {
                is_set.store(true, Ordering::Relaxed);
                "null".to_owned()
            }
            other => panic!("{other:?} of {path}"),
        };
        Reply::new(200, body)
    })
    .await
}

/// The device as the list has it.
fn listed(node: &str) -> String {
    let list: Value = serde_json::from_str(DEVICES).unwrap();
    let mut devices = list["devices"].as_array().unwrap().iter();
    let device = devices.find(|device| device["nodeId"] == node);
    device.unwrap().to_string()
}

/// Through the engine, which `apply` runs. `node:` attributes belong to Tailscale, so an exclusive owner deletes none
/// of them; an empty list of routes is a list.
#[tokio::test]
async fn recorded_attributes_and_routes_are_planned_and_applied() {
    let api = with_writes().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let writes = || {
        let seen = api.seen().into_iter();
        let writes = seen.filter(|request| request.method != "GET");
        writes
            .map(|request| (request.path, request.body))
            .collect::<Vec<_>>()
    };
    let planned = run(&api, &folder, &["plan", "-f", "policy.yaml"])
        .await
        .with_code(2);
    assert!(planned.contains("1 change on 1 device"), "{planned}");
    assert!(writes().is_empty());
    let applied = run(&api, &folder, &["apply", "--yes", "-f", "policy.yaml"]).await;
    applied.ok();
    let path = format!("/api/v2/device/{NODE}/attributes/custom:tier");
    assert_eq!(writes(), [(path, "{\"value\":\"gold\"}".to_owned())]);
    let again = run(&api, &folder, &["plan", "-f", "policy.yaml"]).await;
    again.ok();
}
