//! Later changes: drift, edits, and the end of a policy.

use serde_json::{Value, json};

use super::{glance, view};
use crate::support::{Stage, calls};

/// The address of a device under the API, as the log of the simulator shows it.
fn device(stage: &Stage, hostname: &str) -> String {
    format!("/device/{}", stage.node(hostname))
}

async fn example(stage: &Stage, name: &str) {
    let file = format!("{}/deploy/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    stage.kubectl.ok(&["apply", "-f", &file]).await;
    let node = stage.node(name);
    stage
        .policy_says(name, &format!("True InSync: {name} ({node}) is in sync."))
        .await;
    stage.simulator.clear_requests();
}

/// Edits the policy by a patch.
async fn edit(stage: &Stage, name: &str, patch: &Value) {
    let patch = patch.to_string();
    let policy = format!("tsdp/{name}");
    let args = [
        "patch",
        "-n",
        "network",
        &policy,
        "--field-manager=person",
        "--type=json",
        "-p",
        &patch,
    ];
    stage.kubectl.ok(&args).await;
}

#[tokio::test]
async fn a_policy_with_the_longest_name_has_its_events() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let name = "n".repeat(253);
    let spec = "{device: {hostname: fra-router}, keyExpiry: Disabled}";
    stage.policy(&name, spec).await;
    let note = "fra-router (declared): keyExpiry: Enabled → Disabled";
    stage.event(&name, "KeyExpiryChanged", note).await;
}

#[tokio::test]
async fn drift_is_corrected_and_an_event_reports_it() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    example(&stage, "fra-router").await;
    let router = stage.node("fra-router");

    stage
        .simulator
        .patch_device(&router, &json!({"tags": ["tag:router", "tag:db"]}))
        .unwrap();

    stage
        .device_has(&router, json!({"tags": ["tag:fra", "tag:router"]}))
        .await;
    stage
        .event(
            "fra-router",
            "DriftCorrected",
            "fra-router: tags: found tag:db,tag:router, restored tag:fra,tag:router",
        )
        .await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{router}/tags")]
    );

    example(&stage, "amelie-laptop").await;
    let laptop = stage.node("amelie-laptop");
    let drift = json!({"attributes": {"custom:tier": "bronze", "custom:note": "other"}});
    stage.simulator.patch_device(&laptop, &drift).unwrap();

    let repaired = json!({"attributes": {
        "custom:tier": "gold", "custom:patchLevel": 12, "custom:audited": true,
        // No policy declares this.
        "custom:note": "other",
    }});
    stage.device_has(&laptop, repaired).await;
    stage
        .event(
            "amelie-laptop",
            "DriftCorrected",
            "amelie-laptop: postureAttributes[custom:tier]: found \"bronze\", restored \"gold\"",
        )
        .await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{laptop}/attributes/custom:tier")]
    );

    stage
        .policy_says(
            "fra-router",
            &format!("True InSync: fra-router ({router}) is in sync."),
        )
        .await;
    what_kubectl_shows(&stage).await;
}

async fn what_kubectl_shows(stage: &Stage) {
    let table = stage.kubectl.ok(&["get", "tsdp", "-n", "network"]).await;
    insta::assert_snapshot!(view::steady(&table), @"
    NAME  DEVICES  IN SYNC  READY  REASON  AGE
    amelie-laptop  1  1  True  InSync  AGO
    fra-router  1  1  True  InSync  AGO
    ");
    let wide = stage
        .kubectl
        .ok(&["get", "tsdp", "-n", "network", "-o", "wide"])
        .await;
    insta::assert_snapshot!(view::steady(&wide), @"
    NAME  DEVICES  IN SYNC  READY  REASON  AGE  TAILNET  ENFORCEMENT  HELD  LAST CHANGE
    amelie-laptop  1  1  True  InSync  AGO  default  Enforce  AGO
    fra-router  1  1  True  InSync  AGO  default  Enforce  AGO
    ");
    let tailnet = "\
NAME  DEVICES  POLICIES  NOT READY  HELD  CHANGED  READY  REASON  AGE
default  8  2  0  0  2  True  Connected  AGO";
    glance::table(stage, &["get", "tstn"], tailnet).await;
    let described = stage
        .kubectl
        .ok(&["describe", "tsdp", "-n", "network", "fra-router"])
        .await;
    let described = described.replace(&stage.node("fra-router"), "NODE");
    let (object, events) = described.split_once("Events:").unwrap();
    insta::assert_snapshot!(view::steady(object), @"
    Name:  fra-router
    Namespace:  network
    Labels:  <none>
    Annotations:  <none>
    API Version:  tailnet.dev/v1alpha1
    Kind:  TailscaleDevicePolicy
    Metadata:
      Creation Timestamp: …
      Generation:  1
      Resource Version: …
      UID: …
    Spec:
      Device:
        Hostname:  fra-router
        Tags:
          tag:router
      Enabled Routes:
        10.0.0.0/16
        fd7a:10::/48
      Exit Node:  true
      Key Expiry:  Disabled
      Tags:
        tag:router
        tag:fra
    Status:
      Bound As:  hostname fra-router
      Conditions:
        Last Transition Time: …
        Message:  fra-router (NODE) is in sync.
        Observed Generation:  1
        Reason:  InSync
        Status:  True
        Type:  Ready
        Last Transition Time: …
        Message:  The policy is valid.
        Observed Generation:  1
        Reason:  Accepted
        Status:  True
        Type:  Accepted
        Last Transition Time: …
        Message:  The last poll found no difference.
        Observed Generation:  1
        Reason:  InSync
        Status:  True
        Type:  InSync
      Devices:
        In Sync:  true
        Name:  fra-router
        Node Id:  NODE
      Enforcement:  Enforce
      In Sync Devices:  1
      Last Change Time: …
      Managed Fields:
        tags
        keyExpiry
        enabledRoutes
        exitNode
      Matched Devices:  1
      Node Id:  NODE
      Node Owner:  tagged
      Observed Generation:  1
      Tailnet:  default
    ");
    let reported = view::steady(events);
    let change = "Normal  DriftCorrected  AGO  tsdp  fra-router: tags: found tag:db,tag:router, restored tag:fra,tag:router";
    assert!(reported.contains(change), "{reported}");
}

#[tokio::test]
async fn edit_sends_only_its_difference_and_released_settings_stay() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    example(&stage, "fra-router").await;
    example(&stage, "amelie-laptop").await;
    let (router, laptop) = (
        device(&stage, "fra-router"),
        device(&stage, "amelie-laptop"),
    );
    let laptop_id = stage.node("amelie-laptop");

    // A list becomes shorter.
    edit(
        &stage,
        "fra-router",
        &json!([{"op": "remove", "path": "/spec/enabledRoutes/1"}]),
    )
    .await;
    let fewer = json!({"enabledRoutes": ["0.0.0.0/0", "10.0.0.0/16", "::/0"]});
    stage.device_has(&stage.node("fra-router"), fewer).await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [format!("POST {router}/routes")]);
    stage.simulator.clear_requests();

    // A key is no longer declared.
    let key = "/spec/postureAttributes/custom:patchLevel";
    edit(
        &stage,
        "amelie-laptop",
        &json!([{"op": "remove", "path": key}]),
    )
    .await;
    let rest = json!({"custom:tier": "gold", "custom:audited": true, "custom:note": "keep"});
    stage
        .device_has(&laptop_id, json!({"attributes": rest}))
        .await;
    stage
        .event(
            "amelie-laptop",
            "AttributeDeleted",
            "amelie-laptop (no longer declared): postureAttributes[custom:patchLevel]: 12 → none",
        )
        .await;
    stage.polls(2).await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("DELETE {laptop}/attributes/custom:patchLevel")]
    );
    stage.simulator.clear_requests();

    // The whole field is removed: its keys are released.
    edit(
        &stage,
        "amelie-laptop",
        &json!([{"op": "remove", "path": "/spec/postureAttributes"}]),
    )
    .await;
    stage
        .kubectl
        .wait_for(
            "jsonpath={.status.observedGeneration}=3",
            &["-n", "network", "tsdp/amelie-laptop"],
        )
        .await;
    stage.polls(2).await;
    let policy = stage
        .kubectl
        .get(&["-n", "network", "tsdp/amelie-laptop"])
        .await;
    assert_eq!(policy["status"]["ownedAttributes"], Value::Null);
    stage
        .device_has(&laptop_id, json!({"attributes": rest}))
        .await;

    // The policies are deleted at once, with nothing to wait for.
    let before = stage.simulator.devices().unwrap();
    stage
        .kubectl
        .ok(&["delete", "tsdp", "-n", "network", "--all", "--timeout=10s"])
        .await;
    stage.polls(3).await;
    assert_eq!(stage.simulator.devices().unwrap(), before);
    assert_eq!(calls(&stage.simulator), [""; 0]);
}
