//! A change that corrects drift is told apart from one that an edit declares.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{API_KEY, Stage};

/// The plan of the policies in the cluster.
async fn plan(stage: &Stage, format: &str) -> String {
    let url = stage.simulator.url();
    let ran = Command::new(env!("CARGO_BIN_EXE_tsdp"))
        .args(["plan", "--from-cluster", "-o", format, "--base-url", &url])
        .env("KUBECONFIG", stage.kubeconfig())
        .env("TAILSCALE_API_KEY", API_KEY)
        .output()
        .await
        .unwrap();
    String::from_utf8(ran.stdout).unwrap()
}

#[tokio::test]
async fn drift_that_arose_while_no_controller_ran_is_told_from_a_new_policy() {
    let stage = Stage::new().await;
    let mut controller = stage.controller().await;
    let spec = "{device: {hostname: fra-router}, tags: [tag:router], \
                postureAttributes: {\"custom:tier\": {string: gold}}}";
    stage.policy("router", spec).await;
    stage.policy_reason("router", "InSync").await;
    controller.kill().await;

    let drift = json!({"tags": ["tag:db"], "attributes": {"custom:tier": "lead\u{1b}[2J\n"}});
    let router = stage.node("fra-router");
    stage.simulator.patch_device(&router, &drift).unwrap();
    stage
        .policy(
            "laptop",
            "{device: {hostname: amelie-laptop}, keyExpiry: Enabled}",
        )
        .await;

    let table = plan(&stage, "table").await;
    assert!(
        table.contains("drift: declared by network/router"),
        "{table}"
    );
    assert!(table.contains("  (declared by network/laptop)"), "{table}");
    let json: Value = serde_json::from_str(&plan(&stage, "json").await).unwrap();
    let changes = json["changes"].as_array().unwrap();
    let causes: Vec<_> = changes
        .iter()
        .map(|it| (&it["field"], &it["cause"]))
        .collect();
    let expected = [
        (&json!("keyExpiry"), &json!("Declared")),
        (&json!("tags"), &json!("Drift")),
        (&json!("postureAttributes[custom:tier]"), &json!("Drift")),
    ];
    assert_eq!(causes, expected);

    let controller = stage.controller().await;
    let note = "fra-router: tags: found tag:db, restored tag:router";
    stage.event("router", "DriftCorrected", note).await;
    let note = "fra-router: postureAttributes[custom:tier]: found \"lead\\u001b[2J\\n\", restored \
                \"gold\"";
    stage.event("router", "DriftCorrected", note).await;
    let note = "amelie-laptop (declared): keyExpiry: Disabled → Enabled";
    stage.event("laptop", "KeyExpiryChanged", note).await;
    controller.logs("cause=\"Drift\"").await;
    let (_, metrics) = controller.get("/metrics").await;
    for (field, cause) in [
        ("tags", "Drift"),
        ("postureAttributes", "Drift"),
        ("keyExpiry", "Declared"),
    ] {
        let series = format!(
            "tsdp_changes_total{{tailnet=\"default\",field=\"{field}\",cause=\"{cause}\"}} 1"
        );
        assert!(metrics.contains(&series), "{metrics}");
    }
}
