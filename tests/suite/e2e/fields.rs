//! A field that is removed from a manifest: `git revert` of the commit that added it.

use serde_json::json;
use tokio::process::Command;

use crate::support::Stage;

const DECLARED: &str = "keyExpiry: Disabled, enabledRoutes: [10.0.0.0/16, \"fd7a:10::/48\"], \
                        postureAttributes: {\"custom:tier\": {string: gold}}";

fn spec(deletion: &str, fields: &str) -> String {
    format!("{{device: {{hostname: fra-router}}, deletionPolicy: {deletion}, {fields}}}")
}

/// The plan of the policies in the cluster.
async fn plan(stage: &Stage) -> (i32, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_tsdp"))
        .args([
            "plan",
            "--from-cluster",
            "--base-url",
            &stage.simulator.url(),
        ])
        .env("KUBECONFIG", stage.kubeconfig())
        .env("TAILSCALE_API_KEY", crate::support::API_KEY)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(
        ran.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    (ran.status.code().unwrap(), text)
}

#[tokio::test]
async fn a_removed_field_stays_and_is_reported_or_is_cleared() {
    let stage = Stage::new().await;
    let mut controller = stage.controller().await;
    let router = stage.node("fra-router");
    let in_sync = format!("True InSync: fra-router ({router}) is in sync.");
    stage.policy("router", &spec("Retain", DECLARED)).await;
    stage.policy_says("router", &in_sync).await;

    // Under Retain, the values stay. The Event, the status, and the plan say so.
    stage.simulator.clear_requests();
    stage
        .policy("router", &spec("Retain", "keyExpiry: Disabled"))
        .await;
    let note = "The spec no longer declares enabledRoutes, postureAttributes. Their values stay as they are \
                on 1 device, unless another policy declares them.";
    stage.event("router", "Released", note).await;
    let status = stage
        .kubectl
        .get(&["tsdp", "router", "-n", "network"])
        .await["status"]
        .clone();
    assert_eq!(
        status["releasedFields"],
        json!({
            "generation": 2,
            "count": 2,
            "fields": ["enabledRoutes", "postureAttributes"],
            "devices": 1,
        })
    );
    assert_eq!(status["managedFields"], json!(["keyExpiry"]));
    let (code, text) = plan(&stage).await;
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains(
            "fra-router: enabledRoutes (10.0.0.0/16,fd7a:10::/48) released: stays as it is"
        ),
        "{text}"
    );

    // Under Clear, also if no controller runs during the edit.
    stage.policy("router", &spec("Clear", DECLARED)).await;
    stage.policy_says("router", &in_sync).await;
    controller.kill().await;
    stage
        .policy("router", &spec("Clear", "keyExpiry: Disabled"))
        .await;
    let (code, text) = plan(&stage).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("2 changes on 1 device"), "{text}");
    let _controller = stage.controller().await;
    stage
        .device_has(
            &router,
            json!({"enabledRoutes": [], "keyExpiryDisabled": true}),
        )
        .await;
    stage.policy_says("router", &in_sync).await;
    let device = stage.simulator.device(&router).unwrap();
    assert!(
        device["attributes"].get("custom:tier").is_none(),
        "{device}"
    );
}
