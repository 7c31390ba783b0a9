//! Objects of a newer release, and a finalizer that somebody removes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Stage, eventually};

const ROUTER: [&str; 3] = ["-n", "network", "tsdp/router"];
const CLEARS: &str = r#"{
    device: {hostname: fra-router},
    postureAttributes: {"custom:tier": {string: gold}},
    deletionPolicy: Clear
}"#;

async fn managed() -> Stage {
    let stage = Stage::new().await;
    stage.policy("router", CLEARS).await;
    stage
}

async fn in_sync(stage: &Stage) -> String {
    let node = stage.node("fra-router");
    let says = format!("True InSync: fra-router ({node}) is in sync.");
    stage.policy_says("router", &says).await;
    node
}

/// Definitions of a newer release that accept values unknown to this version.
async fn newer_definitions(stage: &Stage) {
    let lax = json!([{
        "op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"status": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
                "default": {"observedGeneration": -1},
            }},
        },
    }]);
    let crd = "crd/tailscaledevicepolicies.tailnet.dev";
    stage
        .kubectl
        .ok(&["patch", crd, "--type=json", "-p", &lax.to_string()])
        .await;
    let edit = r#"{"spec": {"enforcement": "Simulate"}}"#;
    eventually(Duration::from_secs(20), async || {
        let args = [
            "patch",
            ROUTER[2],
            ROUTER[0],
            ROUTER[1],
            "--type=merge",
            "-p",
            edit,
        ];
        let output = stage.kubectl.run(&args, "").await;
        let error = || String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or_else(error)
    })
    .await;
}

async fn records(stage: &Stage) -> [Value; 2] {
    let object = stage.kubectl.get(&ROUTER).await;
    [
        object["status"].clone(),
        object["metadata"]["finalizers"].clone(),
    ]
}

#[tokio::test]
async fn a_policy_that_a_newer_release_wrote_keeps_its_status_its_finalizer_and_its_device() {
    let stage = managed().await;
    let mut controller = stage.controller().await;
    let node = in_sync(&stage).await;
    let before = records(&stage).await;
    assert_eq!(before[0]["nodeId"], node);
    assert_eq!(before[1], json!(["tailnet.dev/clear"]));
    newer_definitions(&stage).await;
    controller.logs("the policy cannot be parsed").await;
    stage.polls(2).await;
    assert_eq!(records(&stage).await, before);
    controller.kill().await;
    let _controller = stage.controller().await;
    // A younger policy does not take over its fields.
    stage
        .policy(
            "younger",
            "{device: {hostname: fra-router}, ownership: {postureAttributes: Exact}, postureAttributes: {}}",
        )
        .await;
    stage.polls(3).await;
    assert_eq!(records(&stage).await, before);
    let delete = ["delete", ROUTER[2], ROUTER[0], ROUTER[1], "--wait=false"];
    stage.kubectl.ok(&delete).await;
    stage.polls(3).await;
    assert_eq!(records(&stage).await, before);
    let attributes = json!({"attributes": {"custom:tier": "gold"}});
    stage.device_has(&node, attributes).await;
}

#[tokio::test]
async fn finalizer_that_a_replaced_manifest_lacks_is_restored_and_clears() {
    let stage = managed().await;
    let _controller = stage.controller().await;
    let node = in_sync(&stage).await;
    let manifest = json!({
        "apiVersion": "tailnet.dev/v1alpha1",
        "kind": "TailscaleDevicePolicy",
        "metadata": {"name": "router", "namespace": "network"},
        "spec": {
            "device": {"hostname": "fra-router"},
            "postureAttributes": {"custom:tier": {"string": "gold"}},
            "deletionPolicy": "Clear",
        },
    });
    let output = stage
        .kubectl
        .run(&["replace", "-f", "-"], &manifest.to_string())
        .await;
    assert!(output.status.success(), "{output:?}");
    eventually(Duration::from_secs(10), async || {
        let [_, finalizers] = records(&stage).await;
        let back = finalizers == json!(["tailnet.dev/clear"]);
        back.then_some(()).ok_or_else(|| finalizers.to_string())
    })
    .await;
    let delete = ["delete", ROUTER[2], ROUTER[0], ROUTER[1], "--timeout=30s"];
    stage.kubectl.ok(&delete).await;
    stage.device_has(&node, json!({"attributes": {}})).await;
}
