//! Finding the target device: nothing is sent until it is certain.

use serde_json::json;

use crate::support::{Stage, calls};

#[tokio::test]
async fn nothing_is_sent_while_no_device_or_several_match() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;

    stage
        .policy(
            "sensor",
            "{device: {hostname: sensor}, keyExpiry: Disabled}",
        )
        .await;
    stage
        .policy_says(
            "sensor",
            "False DeviceNotFound (Reconciling): No device of the tailnet has the hostname sensor. Nothing is sent. Correct spec.device, or bring the device into the tailnet.",
        )
        .await;

    let sensor = |node: &str| {
        let name = format!("{}.tail1234.ts.net", node.to_lowercase());
        json!({"hostname": "sensor", "nodeId": node, "name": name})
    };
    stage
        .simulator
        .add_device(sensor("nSensorA1CNTRL"))
        .unwrap();
    stage
        .simulator
        .add_device(sensor("nSensorB2CNTRL"))
        .unwrap();
    stage
        .policy_says(
            "sensor",
            "False Ambiguous (Reconciling): 2 devices have the hostname sensor: nSensorA1CNTRL, \
             nSensorB2CNTRL. Nothing is sent. Write spec.device.nodeId instead. Or annotate the policy with tailnet.dev/approve: node:nSensorA1CNTRL to bind it to nSensorA1CNTRL.",
        )
        .await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    stage.simulator.remove_device("nSensorA1CNTRL").unwrap();
    stage
        .policy_says(
            "sensor",
            "True InSync: nsensorb2cntrl (nSensorB2CNTRL) is in sync.",
        )
        .await;
    assert_eq!(calls(&stage.simulator), ["POST /device/nSensorB2CNTRL/key"]);

    // Once bound, a second device of the name changes nothing.
    stage.simulator.clear_requests();
    stage
        .simulator
        .add_device(sensor("nSensorA1CNTRL"))
        .unwrap();
    stage.polls(3).await;
    stage
        .policy_says(
            "sensor",
            "True InSync: nsensorb2cntrl (nSensorB2CNTRL) is in sync.",
        )
        .await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
}

#[tokio::test]
async fn an_impostor_that_takes_a_bound_routers_hostname_is_not_followed() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let router = stage.node("fra-router");
    stage
        .policy(
            "router",
            "{device: {hostname: fra-router}, enabledRoutes: [10.0.0.0/16]}",
        )
        .await;
    let in_sync = format!("True InSync: fra-router ({router}) is in sync.");
    stage.policy_says("router", &in_sync).await;
    let bound = stage.simulator.device(&router).unwrap();

    // Anyone can give a machine this hostname.
    let impostor = stage
        .simulator
        .add_device(json!({
            "hostname": "fra-router", "nodeId": "nMallory1CNTRL", "name": "fra-router-1.tail1234.ts.net",
            "user": "mallory@example.com", "advertisedRoutes": ["10.0.0.0/16"],
        }))
        .unwrap();
    stage.polls(2).await;
    stage.policy_says("router", &in_sync).await;
    stage.simulator.clear_requests();
    stage.simulator.remove_device(&router).unwrap();

    stage
        .policy_says(
            "router",
            &format!(
                "False IdentityChanged (Reconciling): The bound device {router} (owner: tagged) is gone, and nMallory1CNTRL (owner: mallory@example.com) has the hostname fra-router now. The policy does not follow it, as the owners differ. Nothing is sent. If it is the right device, write spec.device.nodeId: nMallory1CNTRL. Or annotate the policy with tailnet.dev/approve: node:nMallory1CNTRL to bind it to nMallory1CNTRL."
            ),
        )
        .await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
    assert_eq!(stage.simulator.device("nMallory1CNTRL").unwrap(), impostor);

    stage.simulator.add_device(bound).unwrap();
    stage.policy_says("router", &in_sync).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
}
