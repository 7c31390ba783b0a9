//! The connection is missing or fails: the status says why, and recovery is automatic.

use serde_json::json;
use tsdp::simulator::{FaultKind, FaultSpec};

use crate::support::{Stage, calls, demo_devices};

const POLICY: &str = "{device: {hostname: fra-router}, tags: [tag:router, tag:fra]}";
const NO_TAILNET: &str = "False TailnetNotFound (Reconciling): There is no TailscaleTailnet 'default'. Nothing is sent. Create it, or correct spec.tailnetRef.";

#[tokio::test]
async fn each_missing_piece_of_a_connection_is_named_until_it_is_there() {
    let mut stage = Stage::without_resources(demo_devices(), "tskey-api-right").await;
    stage.install().await;
    let _controller = stage.controller().await;

    stage.policy("router", POLICY).await;
    stage.policy_says("router", NO_TAILNET).await;

    stage.kubectl.apply(&stage.tailnet_manifest()).await;
    let missing = "False CredentialsMissing (Reconciling): There is no Secret tsdp-system/tailscale. \
                   Create it: kubectl -n tsdp-system create secret generic tailscale \
                   --from-literal=api_key=tskey-api-…";
    stage.tailnet_says("default", missing).await;
    stage.policy_says("router", missing).await;

    stage
        .kubectl
        .ok(&[
            "-n",
            "tsdp-system",
            "create",
            "secret",
            "generic",
            "tailscale",
        ])
        .await;
    stage
        .policy_says(
            "router",
            "False CredentialsMissing (Reconciling): The Secret tsdp-system/tailscale has no credential: write api_key; or client_id with client_secret or audience.",
        )
        .await;

    stage.secret(&json!({"api_key": "tskey-api-wrong"})).await;
    let rejected = "False CredentialRejected (Reconciling): GET /tailnet/-/devices: the credential was \
                    rejected; check that it is right, not expired, and not revoked: API token invalid \
                    (HTTP 401, request REQ-…)";
    stage.tailnet_says("default", rejected).await;
    stage.policy_says("router", rejected).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage.secret(&json!({"api_key": "tskey-api-right"})).await;
    let router = stage.node("fra-router");
    let in_sync = format!("True InSync: fra-router ({router}) is in sync.");
    stage.policy_says("router", &in_sync).await;
    stage
        .tailnet_says(
            "default",
            "True Connected: The controller can read the tailnet's devices.",
        )
        .await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{router}/tags")]
    );

    stage.kubectl.ok(&["delete", "tstn", "default"]).await;
    stage.policy_says("router", NO_TAILNET).await;
    stage.kubectl.apply(&stage.tailnet_manifest()).await;
    stage.policy_says("router", &in_sync).await;
}

#[tokio::test]
async fn while_the_api_answers_html_no_device_counts_as_gone_and_nothing_is_sent() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    stage.policy("router", POLICY).await;
    let router = stage.node("fra-router");
    let in_sync = format!("True InSync: fra-router ({router}) is in sync.");
    stage.policy_says("router", &in_sync).await;
    stage.simulator.clear_requests();

    let mut html = FaultSpec::new(FaultKind::Html);
    html.path = Some("/api/v2/tailnet/*/devices".to_owned());
    stage.simulator.inject(html).unwrap();
    stage
        .simulator
        .patch_device(&router, &json!({"tags": ["tag:router"]}))
        .unwrap();
    let failing = "False ApiError (Reconciling): GET /tailnet/-/devices: the server failed: an \
                   HTML page '502 Bad Gateway' (HTTP 502, request REQ-…)";
    stage.policy_says("router", failing).await;
    stage.tailnet_says("default", failing).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage.simulator.clear_faults();
    stage
        .device_has(&router, json!({"tags": ["tag:fra", "tag:router"]}))
        .await;
    stage.policy_says("router", &in_sync).await;
    stage
        .tailnet_says(
            "default",
            "True Connected: The controller can read the tailnet's devices.",
        )
        .await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{router}/tags")]
    );

    // The same page as a response to a write.
    let mut html = FaultSpec::new(FaultKind::Html);
    html.path = Some("/api/v2/device/*/tags".to_owned());
    stage.simulator.inject(html).unwrap();
    stage
        .simulator
        .patch_device(&router, &json!({"tags": ["tag:router"]}))
        .unwrap();
    let failing = format!(
        "False ApiError (Reconciling): tags: POST /device/{router}/tags: the server failed: an HTML page \
         '502 Bad Gateway' (HTTP 502, request REQ-…)"
    );
    stage.policy_says("router", &failing).await;

    stage.simulator.clear_faults();
    stage
        .device_has(&router, json!({"tags": ["tag:fra", "tag:router"]}))
        .await;
    stage.policy_says("router", &in_sync).await;
}
