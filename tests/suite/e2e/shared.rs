//! A device that several policies share, and policies that send nothing.

use serde_json::json;

use crate::support::{Stage, calls};

#[tokio::test]
async fn policies_share_a_list_and_the_higher_priority_decides_the_rest() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let nas = stage.node("nas");
    let in_sync = format!("True InSync: nas ({nas}) is in sync.");
    let routes = json!({"enabledRoutes": ["10.9.0.0/16"], "advertisedRoutes": ["10.9.0.0/16"]});
    stage.simulator.patch_device(&nas, &routes).unwrap();

    stage
        .policy(
            "base",
            "{device: {hostname: nas}, tags: [tag:db], keyExpiry: Enabled}",
        )
        .await;
    stage.policy_says("base", &in_sync).await;
    stage
        .policy(
            "extra",
            "{device: {hostname: nas}, priority: 10, tags: [tag:ci], keyExpiry: Disabled, \
             enabledRoutes: [10.8.0.0/16], ownership: {tags: AtLeast, enabledRoutes: AtLeast}}",
        )
        .await;
    stage.policy_says("extra", &in_sync).await;
    let lost = format!(
        "False Conflicted (Stalled): Another policy declares another value for nas ({nas}) and takes precedence: this policy yields keyExpiry to network/extra. Edit one of them."
    );
    stage.policy_says("base", &lost).await;
    let shared = json!({
        "tags": ["tag:ci", "tag:db"],
        "keyExpiryDisabled": true,
        // A route that somebody else approved stays.
        "enabledRoutes": ["10.8.0.0/16", "10.9.0.0/16"],
    });
    stage.device_has(&nas, shared).await;
}

#[tokio::test]
async fn nothing_is_sent_for_a_policy_that_observes_or_is_suspended() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let nas = stage.node("nas");
    let in_sync = format!("True InSync: nas ({nas}) is in sync.");

    stage
        .policy(
            "nas",
            "{device: {hostname: nas}, enforcement: Observe, tags: [tag:db]}",
        )
        .await;
    let observed = format!(
        "True Observed: nas ({nas}) has 1 difference, listed under status.pending. Nothing is sent, as the policy only observes. Write enforcement: Enforce to apply the desired state."
    );
    stage.policy_says("nas", &observed).await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
    let pending =
        stage.kubectl.get(&["tsdp", "-n", "network", "nas"]).await["status"]["pending"].clone();
    assert_eq!(pending[0]["after"], "tag:db");
    assert_eq!(
        pending[0]["held"],
        "the policy only observes: write enforcement: Enforce to allow it"
    );

    stage
        .policy("nas", "{device: {hostname: nas}, tags: [tag:db]}")
        .await;
    stage.policy_says("nas", &in_sync).await;
    stage.simulator.clear_requests();
    stage
        .policy(
            "nas",
            "{device: {hostname: nas}, suspend: true, tags: [tag:ci]}",
        )
        .await;
    // Its precedence stays. Its present differences are reported, and no other policy takes its field.
    stage.policy_says("nas", &in_sync).await;
    stage
        .policy("slips-in", "{device: {hostname: nas}, tags: [tag:fra]}")
        .await;
    stage.policy_reason("slips-in", "Conflicted").await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage
        .policy("nas", "{device: {hostname: nas}, tags: [tag:ci]}")
        .await;
    stage.device_has(&nas, json!({"tags": ["tag:ci"]})).await;
    stage
        .kubectl
        .ok(&["delete", "tsdp", "-n", "network", "slips-in"])
        .await;
}

#[tokio::test]
async fn an_annotation_requests_a_reconcile_and_the_status_records_when_it_was_handled() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    stage
        .policy("nas", "{device: {hostname: nas}, tags: [tag:db]}")
        .await;
    stage.policy_reason("nas", "InSync").await;
    for (annotation, value) in [
        ("tailnet.dev/reconcile-at", "first"),
        ("reconcile.fluxcd.io/requestedAt", "2026-01-01T00:00:00Z"),
    ] {
        let annotated = format!("{annotation}={value}");
        let args = ["annotate", "-n", "network", "tsdp/nas", &annotated];
        stage.kubectl.ok(&args).await;
        let handled = format!("jsonpath={{.status.lastHandledReconcileAt}}={value}");
        let args = ["wait", "-n", "network", "tsdp/nas", "--for", &handled];
        stage.kubectl.ok(&args).await;
    }
}
