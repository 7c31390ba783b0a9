//! A request is sent only while its reasons hold: changes during its wait decide the request.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{process::Command, time::sleep};
use tsdp::simulator::{self, FaultKind, FaultSpec, Simulator};

use crate::support::{Controller, Stage, calls};

/// Answers the next request of each process with 429: each pauses for this long.
fn pause(simulator: &Simulator, seconds: u32, processes: u32) {
    let mut too_many = FaultSpec::new(FaultKind::Status);
    too_many.status = Some(429);
    too_many.times = Some(processes);
    let pause = seconds.to_string();
    too_many.headers.insert("Retry-After".to_owned(), pause);
    simulator.inject(too_many).unwrap();
}

/// Waits until the pause has begun and nothing is sent.
async fn paused(stage: &Stage, seconds: u32) {
    pause(&stage.simulator, seconds, 1);
    let is_paused = || {
        let requests = stage.simulator.requests();
        requests.last().is_some_and(|last| last.status == Some(429))
    };
    while !is_paused() {
        sleep(Duration::from_millis(20)).await;
    }
    stage.simulator.clear_requests();
}

async fn patch_tailnet(stage: &Stage, spec: Value) {
    let patch = json!({ "spec": spec }).to_string();
    let args = ["patch", "tstn", "default", "--type=merge", "-p", &patch];
    stage.kubectl.ok(&args).await;
}

#[tokio::test]
async fn edits_during_a_pause_of_the_api_determine_what_is_sent_after_it() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    stage.polls(2).await;
    let (router, nas) = (stage.node("fra-router"), stage.node("nas"));
    let laptop = stage.node("amelie-laptop");
    stage
        .policy(
            "nas",
            "{device: {hostname: nas}, enabledRoutes: [10.9.0.0/16]}",
        )
        .await;
    let in_sync = format!("True InSync: nas ({nas}) is in sync.");
    stage.policy_says("nas", &in_sync).await;

    paused(&stage, 12).await;
    let adds = "{device: {hostname: fra-router}, tags: [tag:fra, tag:router], \
                ownership: {tags: AtLeast}}";
    stage.policy("router", adds).await;
    stage
        .policy(
            "laptop",
            "{device: {hostname: amelie-laptop}, keyExpiry: Enabled}",
        )
        .await;
    stage
        .policy("nas", "{device: {hostname: nas}, enabledRoutes: []}")
        .await;
    sleep(Duration::from_secs(2)).await;
    // A person adds a tag. The edit and the policy are reverted.
    let tags = json!({"tags": ["tag:router", "tag:db"]});
    stage.simulator.patch_device(&router, &tags).unwrap();
    stage
        .policy(
            "nas",
            "{device: {hostname: nas}, enabledRoutes: [10.9.0.0/16]}",
        )
        .await;
    stage
        .kubectl
        .ok(&["-n", "network", "delete", "tsdp/laptop"])
        .await;
    assert!(stage.simulator.requests().is_empty());

    stage
        .device_has(
            &router,
            json!({"tags": ["tag:db", "tag:fra", "tag:router"]}),
        )
        .await;
    stage.polls(3).await;
    stage.policy_says("nas", &in_sync).await;
    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{router}/tags")]
    );
    let untouched = stage.simulator.device(&laptop).unwrap();
    assert_eq!(untouched["keyExpiryDisabled"], true);
}

#[tokio::test]
async fn a_tailnet_suspended_or_replaced_during_a_pause_gets_no_request() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    stage.polls(2).await;
    let policy =
        "{device: {hostname: fra-router}, tags: [tag:fra, tag:router], keyExpiry: Disabled}";

    paused(&stage, 8).await;
    stage.policy("router", policy).await;
    sleep(Duration::from_secs(1)).await;
    patch_tailnet(&stage, json!({"suspend": true})).await;
    stage.polls(4).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    // Other rules, another API, and another credential arrive together: the rules of one tailnet never
    // apply to the other.
    patch_tailnet(
        &stage,
        json!({"protectedDevices": [{"tags": ["tag:router"]}], "suspend": null}),
    )
    .await;
    stage.policy_reason("router", "Protected").await;
    let other = simulator::Options {
        devices: vec![json!({"nodeId": "nElsewhere1CNTRL", "hostname": "elsewhere"})],
        api_keys: vec!["tskey-api-other".into()],
        ..simulator::Options::default()
    };
    let other = Simulator::start(other).await.unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "other", "namespace": "tsdp-system"},
        "stringData": {"api_key": "tskey-api-other"},
    });
    stage.kubectl.apply(&secret.to_string()).await;
    patch_tailnet(
        &stage,
        json!({
            "protectedDevices": null, "apiURL": other.url(), "credentialsSecret": {"name": "other"},
        }),
    )
    .await;
    stage.policy_reason("router", "DeviceNotFound").await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
    assert_eq!(calls(&other), [""; 0]);
}

#[tokio::test]
async fn another_secret_and_other_settings_do_not_end_a_pause() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    stage.polls(2).await;
    paused(&stage, 200).await;
    stage
        .secret(&json!({"api_key": "tskey-api-e2e", "unrelated": "1"}))
        .await;
    patch_tailnet(
        &stage,
        json!({"pollInterval": "2s", "requestBudget": {"perSecond": 100}}),
    )
    .await;
    stage
        .secret(&json!({"api_key": "tskey-api-e2e", "unrelated": "2"}))
        .await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(stage.simulator.requests().len(), 0);
}

#[tokio::test]
async fn a_process_that_was_stopped_sends_nothing_when_another_one_leads() {
    let stage = Stage::new().await;
    let args = ["--lease-duration=5"];
    let first = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    first.logs("leadership won").await;
    let second = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    stage.polls(2).await;
    let router = stage.node("fra-router");

    pause(&stage.simulator, 6, 2);
    stage.polls(2).await;
    stage
        .policy(
            "router",
            "{device: {hostname: fra-router}, keyExpiry: Disabled}",
        )
        .await;
    sleep(Duration::from_millis(500)).await;
    signal(&first, "STOP").await;
    second.logs("leadership won").await;
    let in_sync = format!("True InSync: fra-router ({router}) is in sync.");
    stage.policy_says("router", &in_sync).await;
    // A person reverts the change, and the policy is deleted: no policy desires it any longer.
    stage
        .kubectl
        .ok(&["-n", "network", "delete", "tsdp/router"])
        .await;
    let back = json!({"keyExpiryDisabled": false});
    stage.simulator.patch_device(&router, &back).unwrap();
    stage.simulator.clear_requests();
    signal(&first, "CONT").await;
    first.logs("leadership lost").await;
    stage.polls(4).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
}

async fn signal(controller: &Controller, name: &str) {
    let pid = controller.pid().to_string();
    let kill = Command::new("kill")
        .args([&format!("-{name}"), &pid])
        .status();
    assert!(kill.await.unwrap().success());
}
