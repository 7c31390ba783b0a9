//! What the tables of kubectl tell at a glance.

use std::time::Duration;

use serde_json::{Value, json};

use super::view;
use crate::support::{Stage, eventually};

/// Waits until a table of kubectl looks like this.
pub(super) async fn table(stage: &Stage, args: &[&str], expected: &str) {
    eventually(Duration::from_secs(30), async || {
        let table = view::steady(&stage.kubectl.ok(args).await);
        (table == expected).then_some(()).ok_or(table)
    })
    .await;
}

async fn version(stage: &Stage) -> Value {
    let tailnet = stage.kubectl.get(&["tstn", "default"]).await;
    tailnet["metadata"]["resourceVersion"].clone()
}

#[tokio::test]
async fn the_tables_count_what_is_held_not_ready_and_changed_and_idle_polls_write_nothing() {
    let database = |number| json!({"hostname": format!("db-{number}"), "tags": ["tag:db"], "keyExpiryDisabled": false});
    let router = json!({"hostname": "router", "tags": ["tag:router"], "keyExpiryDisabled": false});
    let devices: Vec<Value> = (0..60).map(database).chain([router]).collect();
    let stage = Stage::with(devices, "tskey-api-glance").await;
    stage.max_changed_devices("10%").await;
    let all = r#"{deviceSelector: {tags: ["tag:db"]}, keyExpiry: Disabled}"#;
    stage.policy("all", all).await;
    let one = "{device: {hostname: router}, keyExpiry: Disabled}";
    stage.policy("router", one).await;
    let _controller = stage.controller().await;
    stage.policy_reason("router", "InSync").await;
    stage.held_plan("all", "").await;
    let (narrow, wide) = (["get", "tstn"], ["get", "tstn", "-o", "wide"]);
    let held = "\
NAME  DEVICES  POLICIES  NOT READY  HELD  CHANGED  READY  REASON  AGE
default  61  2  1  1  1  True  Connected  AGO";
    table(&stage, &narrow, held).await;
    let held = "\
NAME  DEVICES  POLICIES  NOT READY  HELD  CHANGED  READY  REASON  AGE  TAILNET  LIMIT  LAST POLL
default  61  2  1  1  1  True  Connected  AGO  tail5a1e.ts.net  6  AGO";
    table(&stage, &wide, held).await;
    let policies = ["get", "tsdp", "-n", "network", "-o", "wide"];
    let held = "\
NAME  DEVICES  IN SYNC  READY  REASON  AGE  TAILNET  ENFORCEMENT  HELD  LAST CHANGE
all  60  0  False  LimitHeld  AGO  default  Enforce  60
router  1  1  True  InSync  AGO  default  Enforce  AGO";
    table(&stage, &policies, held).await;

    // Longer than a status waits for its policies.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = version(&stage).await;
    stage.polls(6).await;
    assert_eq!(version(&stage).await, before);

    stage.max_changed_devices("100%").await;
    stage.policy_reason("all", "InSync").await;
    let done = "\
NAME  DEVICES  POLICIES  NOT READY  HELD  CHANGED  READY  REASON  AGE
default  61  2  0  0  61  True  Connected  AGO";
    table(&stage, &narrow, done).await;
    stage
        .kubectl
        .ok(&["delete", "tsdp", "-n", "network", "all"])
        .await;
    let deleted = "\
NAME  DEVICES  POLICIES  NOT READY  HELD  CHANGED  READY  REASON  AGE
default  61  1  0  0  61  True  Connected  AGO";
    table(&stage, &narrow, deleted).await;
}
