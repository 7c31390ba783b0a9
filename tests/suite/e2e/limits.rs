//! `maxChangedDevices`: a mistake in a selector, repairs beside it, and a restart.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Stage, calls, eventually};

const TAILNET: [&str; 2] = ["tstn", "default"];

/// Databases, and a router of another team.
async fn stage(databases: usize) -> Stage {
    let database = |number| json!({"hostname": format!("db-{number}"), "tags": ["tag:db"], "keyExpiryDisabled": false});
    let router = json!({"hostname": "router", "tags": ["tag:router"], "keyExpiryDisabled": false});
    let devices: Vec<Value> = (0..databases).map(database).chain([router]).collect();
    Stage::with(devices, "tskey-api-limits").await
}

/// Waits until the tailnet's status reports this many recently changed devices.
async fn recently_changed(stage: &Stage, devices: u64) {
    eventually(Duration::from_secs(20), async || {
        let status = stage.kubectl.get(&TAILNET).await["status"].clone();
        let recent = status["recentChanges"].as_array().cloned();
        let counts = recent
            .iter()
            .flatten()
            .map(|recent| recent["devices"].as_u64());
        if counts.map(Option::unwrap).sum::<u64>() == devices {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
}

fn changed(stage: &Stage) -> usize {
    calls(&stage.simulator).len()
}

#[tokio::test]
async fn mistake_in_a_selector_is_held_until_approved_while_a_repair_is_sent() {
    let stage = stage(60).await;
    stage.max_changed_devices("10%").await;
    stage
        .policy(
            "all",
            r#"{deviceSelector: {tags: ["tag:db"]}, keyExpiry: Disabled}"#,
        )
        .await;
    stage
        .policy(
            "router",
            "{device: {hostname: router}, keyExpiry: Disabled}",
        )
        .await;
    let _controller = stage.controller().await;
    let router = stage.node("router");
    stage
        .policy_says(
            "router",
            &format!("True InSync: router ({router}) is in sync."),
        )
        .await;
    let hash = stage.held_plan("all", "").await;
    stage.policy_says("all", &format!(
        "False LimitHeld (Reconciling): 60 changes of 60 devices are pending approval: the plan would change more devices within an hour than maxChangedDevices of the TailscaleTailnet default allows (6), and policies with the most devices are held first. If the selector matches too many devices, correct it. Otherwise annotate the TailscaleTailnet with tailnet.dev/approve: plan:{hash}, or raise its maxChangedDevices. The controller sends changes that are within the limit again once an hour has passed."
    )).await;
    stage
        .event(
            "all",
            "LimitHeld",
            &format!("60 changes of 60 devices wait for approval: the limit is 6 devices per hour. To approve the plan, run: kubectl annotate tstn default --overwrite tailnet.dev/approve=plan:{hash}"),
        )
        .await;
    stage.polls(2).await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{router}/key")]
    );
    let status = stage.kubectl.get(&TAILNET).await["status"].clone();
    let held = json!([{"policy": "network/all", "devices": 60, "hash": hash}]);
    assert_eq!((&status["held"], &status["heldTotal"]), (&held, &json!(1)));
    assert_eq!(status["recentChanges"][0]["devices"], 1);
    let policy = stage.kubectl.get(&["tsdp", "all", "-n", "network"]).await["status"].clone();
    assert_eq!(policy["heldPlan"]["approveOn"], "TailscaleTailnet");
    // The summary has all of them.
    assert_eq!(policy["pending"].as_array().unwrap().len(), 3);
    assert_eq!(policy["heldPlan"]["summary"][0]["devices"], 60);
    assert_eq!(policy["pendingTotal"], 60);

    stage.approve(&TAILNET, &format!("plan:{hash}")).await;
    stage
        .policy_says("all", "True InSync: All 60 devices are in sync.")
        .await;
    assert_eq!(changed(&stage), 61);
    recently_changed(&stage, 61).await;
    let status = stage.kubectl.get(&TAILNET).await["status"].clone();
    assert!(status["held"].is_null(), "{status}");
}

#[tokio::test]
async fn devices_changed_within_the_hour_count_after_a_restart() {
    let stage = stage(4).await;
    stage.max_changed_devices("2").await;
    let one = |number: usize| format!("{{device: {{hostname: db-{number}}}, keyExpiry: Disabled}}");
    let mut controller = stage.controller().await;
    for number in 0..2 {
        let name = format!("db-{number}");
        stage.policy(&name, &one(number)).await;
        stage.policy_reason(&name, "InSync").await;
    }
    recently_changed(&stage, 2).await;
    controller.kill().await;
    let _next = stage.controller().await;
    stage.policy("db-2", &one(2)).await;
    stage.policy_reason("db-2", "LimitHeld").await;
    stage.polls(2).await;
    assert_eq!(changed(&stage), 2);
    stage.max_changed_devices("100%").await;
    stage.policy_reason("db-2", "InSync").await;
    assert_eq!(changed(&stage), 3);
}

#[tokio::test]
async fn releases_count_against_the_limit_and_stay_pending_until_approved() {
    let stage = stage(20).await;
    stage.max_changed_devices("100%").await;
    let _controller = stage.controller().await;
    let clear = |tag: &str| {
        format!(
            r#"{{deviceSelector: {{tags: ["{tag}"]}}, postureAttributes: {{"custom:tier": {{string: gold}}}},
                deletionPolicy: Clear}}"#
        )
    };
    stage.policy("tier", &clear("tag:db")).await;
    stage
        .policy_says("tier", "True InSync: All 20 devices are in sync.")
        .await;
    // The limit leaves none of them in this hour.
    stage.max_changed_devices("5").await;
    stage.simulator.clear_requests();

    // A typo in the selector.
    stage.policy("tier", &clear("tag:dp")).await;
    stage.policy_reason("tier", "LimitHeld").await;
    let hash = stage.held_plan("tier", "").await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    // Once deleted, the release is held under another hash and the policy keeps its finalizer.
    let args = ["delete", "tsdp", "tier", "-n", "network", "--wait=false"];
    stage.kubectl.ok(&args).await;
    let hash = stage.held_plan("tier", &hash).await;
    stage.policy_says("tier", &format!(
        "False LimitHeld (Reconciling): The policy is being deleted. The controller must still clear 20 released devices. 20 changes of 20 devices are pending approval: the plan would change more devices within an hour than maxChangedDevices of the TailscaleTailnet default allows (5), and policies with the most devices are held first. If the selector matches too many devices, correct it. Otherwise annotate the TailscaleTailnet with tailnet.dev/approve: plan:{hash}, or raise its maxChangedDevices. The controller sends changes that are within the limit again once an hour has passed. Under deletionPolicy: Retain they would stay as they are."
    )).await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage.approve(&TAILNET, &format!("plan:{hash}")).await;
    let gone = [
        "wait",
        "--for=delete",
        "tsdp/tier",
        "-n",
        "network",
        "--timeout=40s",
    ];
    stage.kubectl.ok(&gone).await;
    for number in 0..20 {
        let device = stage.simulator.device(&stage.node(&format!("db-{number}")));
        assert_eq!(device.unwrap()["attributes"], json!({}));
    }
}
