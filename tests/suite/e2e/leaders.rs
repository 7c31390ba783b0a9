//! Several controllers, and the end of one.

use std::time::Duration;

use serde_json::{Value, json};
use tsdp::simulator::{FaultKind, FaultSpec};

use crate::support::{Controller, Stage, calls, eventually};

const ROUTER: &str = "{device: {hostname: fra-router}, tags: [tag:router, tag:fra], \
                      keyExpiry: Disabled, enabledRoutes: [10.0.0.0/16]}";

/// Delays the responses to requests of this kind.
fn slow(stage: &Stage, setting: &str, seconds: f64) {
    let mut delay = FaultSpec::new(FaultKind::Delay);
    delay.method = Some("POST".to_owned());
    delay.path = Some(format!("/api/v2/device/*/{setting}"));
    delay.seconds = Some(seconds);
    stage.simulator.inject(delay).unwrap();
}

/// Waits until a request is in flight.
async fn under_way(stage: &Stage, call: &str) {
    eventually(Duration::from_secs(20), async || {
        let calls = calls(&stage.simulator);
        if calls.iter().any(|sent| sent == call) {
            Ok(())
        } else {
            Err(format!("no {call} among {calls:?}"))
        }
    })
    .await;
}

async fn lease_holder(stage: &Stage) -> Value {
    let lease = stage
        .kubectl
        .get(&["-n", "tsdp-system", "lease/tsdp"])
        .await;
    lease["spec"]["holderIdentity"].clone()
}

#[tokio::test]
async fn one_of_two_controllers_leads_and_the_other_finishes_after_a_kill() {
    let stage = Stage::new().await;
    let args = ["--lease-duration=5"];
    let mut leader = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    leader.logs("leadership won").await;
    let standby = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    let holder = lease_holder(&stage).await;

    stage
        .policy(
            "laptop",
            "{device: {hostname: amelie-laptop}, keyExpiry: Enabled}",
        )
        .await;
    let laptop = stage.node("amelie-laptop");
    stage
        .policy_says(
            "laptop",
            &format!("True InSync: amelie-laptop ({laptop}) is in sync."),
        )
        .await;
    stage.polls(3).await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{laptop}/key")]
    );
    let changes = |metrics: &str| {
        metrics.contains(
            r#"tsdp_changes_total{tailnet="default",field="keyExpiry",cause="Declared"} 1"#,
        )
    };
    assert!(changes(&leader.get("/metrics").await.1));
    assert!(
        !standby
            .get("/metrics")
            .await
            .1
            .contains("tsdp_changes_total{")
    );

    let router = stage.node("fra-router");
    stage.simulator.clear_requests();
    slow(&stage, "key", 3.0);
    stage.policy("router", ROUTER).await;
    under_way(&stage, &format!("POST /device/{router}/key")).await;
    leader.kill().await;

    stage
        .policy_says(
            "router",
            &format!("True InSync: fra-router ({router}) is in sync."),
        )
        .await;
    stage
        .device_has(
            &router,
            json!({
                "tags": ["tag:fra", "tag:router"], "keyExpiryDisabled": true,
                "enabledRoutes": ["10.0.0.0/16"],
            }),
        )
        .await;
    assert_ne!(lease_holder(&stage).await, holder);
    stage.polls(3).await;
    // The interrupted request had taken effect: the next leader sees that and does not repeat it.
    let once = ["tags", "key", "routes"].map(|setting| format!("POST /device/{router}/{setting}"));
    assert_eq!(calls(&stage.simulator), once);
}

#[tokio::test]
async fn a_controller_that_stops_finishes_its_request_and_releases_the_lease() {
    let stage = Stage::new().await;
    let mut controller = stage.controller().await;
    let router = stage.node("fra-router");
    slow(&stage, "tags", 2.0);
    stage.policy("router", ROUTER).await;
    under_way(&stage, &format!("POST /device/{router}/tags")).await;

    controller.terminate().await;
    let status = controller.ended().await;

    assert!(status.success(), "{status}");
    let tags = stage
        .simulator
        .requests()
        .into_iter()
        .find(|request| request.method == "POST");
    assert_eq!(tags.unwrap().status, Some(200), "the call was ended");
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{router}/tags")]
    );
    let holder = lease_holder(&stage).await;
    assert!(
        matches!(holder.as_str(), None | Some("")),
        "{holder} holds the lease"
    );

    // The next controller need not wait for the lease to expire.
    stage.simulator.clear_faults();
    let _next = stage.controller().await;
    stage
        .policy_says(
            "router",
            &format!("True InSync: fra-router ({router}) is in sync."),
        )
        .await;
    let once = ["tags", "key", "routes"].map(|setting| format!("POST /device/{router}/{setting}"));
    assert_eq!(calls(&stage.simulator), once);
}

#[tokio::test]
async fn a_key_that_a_killed_controller_was_setting_is_owned_and_can_be_deleted() {
    let stage = Stage::new().await;
    let args = ["--lease-duration=5"];
    let mut first = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    let nas = stage.node("nas");
    slow(&stage, "attributes/*", 3.0);
    let named = r#"{device: {hostname: nas}, postureAttributes: {"custom:rack": {integer: 7}}}"#;
    stage.policy("nas", named).await;
    let call = format!("POST /device/{nas}/attributes/custom:rack");
    under_way(&stage, &call).await;
    first.kill().await;

    let policy = stage.kubectl.get(&["-n", "network", "tsdp/nas"]).await;
    assert_eq!(policy["status"]["ownedAttributes"], json!(["custom:rack"]));

    stage
        .policy("nas", "{device: {hostname: nas}, postureAttributes: {}}")
        .await;
    let _next = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    stage
        .policy_says("nas", &format!("True InSync: nas ({nas}) is in sync."))
        .await;
    stage.device_has(&nas, json!({"attributes": {}})).await;
    let back = format!("DELETE /device/{nas}/attributes/custom:rack");
    assert_eq!(calls(&stage.simulator), [call, back]);
}
