//! Faults of a server, of some devices, and of an annotation, on a real process: each has its own effect
//! and its own name.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use tsdp::simulator::{FaultKind, FaultSpec};

use crate::support::{Controller, Stage, calls, eventually};

const LIST: &str = "/api/v2/tailnet/*/devices";

fn answers(status: u16, body: Value) -> FaultSpec {
    let mut fault = FaultSpec::new(FaultKind::Status);
    fault.path = Some(LIST.to_owned());
    fault.status = Some(status);
    fault.body = Some(body);
    fault
}

/// A policy that is in sync, and the controller.
async fn in_sync() -> (Stage, Controller) {
    let stage = Stage::new().await;
    let controller = stage.controller().await;
    stage
        .policy("nas", "{device: {hostname: nas}, tags: [tag:db]}")
        .await;
    stage.policy_reason("nas", "InSync").await;
    (stage, controller)
}

#[tokio::test]
async fn a_refused_list_is_a_connection_error_and_no_policy_error() {
    let (stage, _controller) = in_sync().await;
    stage.simulator.clear_requests();
    for (status, body) in [
        (404, json!({"message": "not found"})),
        (400, json!("<html><title>A proxy</title></html>")),
        (403, json!("<html><title>A portal</title></html>")),
    ] {
        stage.simulator.inject(answers(status, body)).unwrap();
        for what in [&["-n", "network", "tsdp/nas"][..], &["tstn/default"][..]] {
            eventually(Duration::from_secs(30), async || {
                let object = stage.kubectl.get(what).await;
                let reported = object["status"]["conditions"].to_string();
                // An edit of a policy would not help, and no device is missing.
                assert!(!reported.contains("DeviceNotFound"), "{reported}");
                let has = |condition: &str, status: &str| {
                    let conditions = object["status"]["conditions"].as_array().unwrap();
                    conditions
                        .iter()
                        .any(|it| it["type"] == condition && it["status"] == status)
                };
                assert!(!has("Stalled", "True"), "{status}: {reported}");
                let failing = has("Ready", "False") && has("Reconciling", "True");
                failing.then_some(()).ok_or(reported)
            })
            .await;
        }
        stage.simulator.clear_faults();
        stage.policy_reason("nas", "InSync").await;
    }
    assert_eq!(calls(&stage.simulator), [""; 0]);
}

#[tokio::test]
async fn devices_whose_attribute_reads_time_out_delay_no_other() {
    const HANGING: usize = 12;
    let hanging = |number: usize| json!({"hostname": format!("h-{number}"), "tags": ["tag:ci"]});
    let mut devices: Vec<Value> = (0..HANGING).map(hanging).collect();
    devices.push(json!({"hostname": "nas", "tags": ["tag:db"]}));
    let stage = Stage::with(devices, "tskey-api-faults").await;
    let mut fault = FaultSpec::new(FaultKind::Delay);
    fault.seconds = Some(25.0);
    for number in 0..HANGING {
        let node = stage.node(&format!("h-{number}"));
        fault.path = Some(format!("/api/v2/device/{node}/attributes"));
        stage.simulator.inject(fault.clone()).unwrap();
    }
    let _controller = stage.controller().await;
    let fleet =
        "{deviceSelector: {tags: [tag:ci]}, postureAttributes: {'custom:tier': {string: gold}}}";
    stage.policy("hanging", fleet).await;
    stage
        .policy(
            "nas",
            "{device: {hostname: nas}, tags: [tag:db], keyExpiry: Disabled}",
        )
        .await;
    stage.policy_reason("nas", "InSync").await;
    let nas = stage.node("nas");
    // A third reversal within the hour is a contest, with a backoff of an hour.
    for _ in 0..2 {
        let drift = json!({"keyExpiryDisabled": false});
        stage.simulator.patch_device(&nas, &drift).unwrap();
        let started = tokio::time::Instant::now();
        stage
            .device_has(&nas, json!({"keyExpiryDisabled": true}))
            .await;
        let took = started.elapsed();
        println!("corrected after {took:?} beside {HANGING} devices that hang");
        assert!(took < Duration::from_secs(12), "{took:?}");
    }
}

#[tokio::test]
async fn a_large_annotation_makes_no_large_status() {
    let (stage, _controller) = in_sync().await;
    let mut value = String::new();
    for number in 0..10_000 {
        write!(value, "{number:09}x").unwrap();
    }
    let annotation = format!("reconcile.fluxcd.io/requestedAt={value}");
    let annotate = ["-n", "network", "annotate", "tsdp/nas", &annotation];
    stage.kubectl.ok(&annotate).await;
    eventually(Duration::from_secs(30), async || {
        let policy = stage.kubectl.get(&["-n", "network", "tsdp/nas"]).await;
        let size = policy["status"].to_string().len();
        assert!(size < 16 * 1024, "{size} bytes");
        let handled = policy["status"]["lastHandledReconcileAt"].as_str();
        let handled = handled.unwrap_or_default().to_owned();
        let is_start = !handled.is_empty() && value.starts_with(handled.trim_end_matches('…'));
        is_start.then_some(()).ok_or(handled)
    })
    .await;
}

#[tokio::test]
async fn a_credential_and_a_tailnet_that_no_request_can_carry_are_stalled() {
    let (stage, _controller) = in_sync().await;
    stage.secret(&json!({"api_key": "tskey-api-a\nb"})).await;
    let stalled = async || {
        let tailnet = ["tstn/default"];
        stage.kubectl.wait_for("condition=Stalled", &tailnet).await;
    };
    stalled().await;
    stage.secret(&json!({"api_key": "tskey-api-e2e"})).await;
    let tailnet = |name: &str| format!("{{\"spec\": {{\"tailnet\": \"{name}\"}}}}");
    let patch = async |spec: &str| {
        let edit = ["patch", "tstn", "default", "--type=merge", "-p", spec];
        stage.kubectl.ok(&edit).await;
    };
    patch(&tailnet("..")).await;
    stalled().await;
    let object = stage.kubectl.get(&["tstn/default"]).await;
    let reported = object["status"]["conditions"].to_string();
    assert!(
        reported.contains("'..' is not a valid tailnet") && !reported.contains("ApiUnreachable"),
        "{reported}"
    );
}
