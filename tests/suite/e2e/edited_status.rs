//! A status that somebody edits by hand is correct again after the next poll.

use serde_json::{Value, json};

use crate::support::Stage;

async fn edit(stage: &Stage, what: &[&str], status: &Value) {
    let patch = json!({"status": status}).to_string();
    let args = [
        &["patch"],
        what,
        &["--subresource=status", "--type=merge", "-p", &patch],
    ]
    .concat();
    stage.kubectl.ok(&args).await;
}

fn without_times(mut object: Value) -> Value {
    let conditions = object["status"]["conditions"].as_array_mut().unwrap();
    for condition in conditions.iter_mut() {
        condition["lastTransitionTime"].take();
    }
    conditions.sort_by_key(|condition| condition["type"].to_string());
    // It moves with each write.
    object["status"]["lastPollTime"].take();
    object["status"].take()
}

#[tokio::test]
async fn a_status_edited_by_hand_is_corrected() {
    let stage = Stage::new().await;
    stage
        .policy("router", "{device: {hostname: nas}, tags: [tag:db]}")
        .await;
    let _controller = stage.controller().await;
    stage.policy_reason("router", "InSync").await;
    let counted = "jsonpath={.status.notReadyPolicies}=0";
    stage.kubectl.wait_for(counted, &["tstn/default"]).await;
    stage.polls(2).await;
    let (policy, tailnet) = (["-n", "network", "tsdp/router"], ["tstn/default"]);
    let before = [
        without_times(stage.kubectl.get(&policy).await),
        without_times(stage.kubectl.get(&tailnet).await),
    ];

    let condition = |kind, status| {
        json!({
            "type": kind, "status": status, "reason": "Invented", "message": "by hand",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        })
    };
    let invented = [("Ready", "False"), ("Stalled", "True"), ("Foreign", "True")];
    let invented = invented.map(|(kind, status)| condition(kind, status));
    // Fields that the controller does not write, fields that it writes, and other values of them.
    let status = json!({
        "conditions": invented, "matchedDevices": 7, "nodeId": null, "lastHandledReconcileAt": "never",
    });
    edit(&stage, &policy, &status).await;
    edit(
        &stage,
        &tailnet,
        &json!({"conditions": invented, "devices": 999}),
    )
    .await;
    stage.polls(2).await;
    stage.policy_reason("router", "InSync").await;
    stage.polls(1).await;
    // The tailnet counts its policies again a few seconds after them.
    stage.kubectl.wait_for(counted, &["tstn/default"]).await;
    let after = [
        without_times(stage.kubectl.get(&policy).await),
        without_times(stage.kubectl.get(&tailnet).await),
    ];
    assert_eq!(after, before);
}
