//! Lists that lack devices: a single one decides nothing.

use serde_json::json;
use tsdp::simulator::{FaultKind, FaultSpec};

use super::invites;
use crate::support::{Stage, calls};

/// Two devices with one hostname. The second one is in the half that a short list lacks.
fn add_twins(stage: &Stage) {
    let twin = |node: &str| {
        let name = format!("{}.tail1234.ts.net", node.to_lowercase());
        json!({"hostname": "sensor", "nodeId": node, "name": name})
    };
    let devices = stage.simulator.devices().unwrap();
    for device in devices {
        let id = device["nodeId"].as_str().unwrap();
        stage.simulator.remove_device(id).unwrap();
    }
    for node in ["nSensorA1CNTRL", "nSensorB2CNTRL"] {
        stage.simulator.add_device(twin(node)).unwrap();
    }
}

/// This many of the next lists lack the second half of the devices.
fn shorten(stage: &Stage, lists: u32) {
    let mut short = FaultSpec::new(FaultKind::ShortList);
    short.path = Some("/api/v2/tailnet/*/devices".to_owned());
    short.times = Some(lists);
    stage.simulator.inject(short).unwrap();
}

const AMBIGUOUS: &str = "False Ambiguous (Reconciling): 2 devices have the hostname sensor: nSensorA1CNTRL, nSensorB2CNTRL. Nothing is sent. Write spec.device.nodeId instead.";

#[tokio::test]
async fn short_lists_choose_neither_of_two_devices_with_one_hostname() {
    let stage = invites::stage().await;
    add_twins(&stage);
    let first = invites::controller(&stage).await;
    let policy = "{device: {hostname: sensor}, keyExpiry: Disabled}";
    stage.policy("sensor", policy).await;
    invites::invite(&stage, "sensor", "{device: {hostname: sensor}}").await;
    let for_policies = format!(
        "{AMBIGUOUS} Or annotate the policy with tailnet.dev/approve: node:nSensorA1CNTRL to bind it to nSensorA1CNTRL."
    );
    stage.policy_says("sensor", &for_policies).await;
    stage.invite_says("sensor", AMBIGUOUS).await;

    // An invite looks its device up every five seconds: while one list is short, and while many in a row
    // are.
    for lists in [1, 10] {
        shorten(&stage, lists);
        stage.polls(12).await;
    }
    stage.policy_says("sensor", &for_policies).await;
    stage.invite_says("sensor", AMBIGUOUS).await;

    // A process that starts with a short list compares it with a second one.
    let mut first = first;
    first.kill().await;
    shorten(&stage, 1);
    let _second = invites::controller(&stage).await;
    stage.polls(8).await;
    stage.policy_says("sensor", &for_policies).await;
    stage.invite_says("sensor", AMBIGUOUS).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
}

#[tokio::test]
async fn an_invite_waits_for_a_device_that_the_last_list_lacks() {
    let stage = invites::stage().await;
    add_twins(&stage);
    let _controller = invites::controller(&stage).await;
    stage.polls(3).await;
    shorten(&stage, 1_000);
    stage.polls(1).await;

    invites::invite(&stage, "sensor", "{device: {nodeId: nSensorB2CNTRL}}").await;
    stage
        .invite_says(
            "sensor",
            "Unknown Progressing (Reconciling): nSensorB2CNTRL has the nodeId nSensorB2CNTRL, but the last list of devices lacks it. The controller creates the invite once a list has the device again.",
        )
        .await;
    stage.polls(10).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage.simulator.clear_faults();
    let wait = ["-n", "network", "tsdi/sensor"];
    stage.kubectl.wait_for("condition=Ready", &wait).await;
    let create = "POST /device/nSensorB2CNTRL/device-invites";
    assert_eq!(calls(&stage.simulator), [create]);
}
