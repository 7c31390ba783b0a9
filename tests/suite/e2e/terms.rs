//! Terms of leadership: a controller that is cut off and leads again later sends nothing outdated.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tsdp::simulator::{FaultKind, FaultSpec};

use crate::support::{Cable, Controller, Stage, calls, eventually};

/// A short lease, but long enough to lead for a few polls after the cable is cut.
const ARGS: [&str; 1] = ["--lease-duration=6"];
const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until a controller has won the lease this many times.
async fn has_won(controller: &Controller, times: usize) {
    eventually(PATIENCE, async || {
        let log = controller.log();
        let won = log.matches("leadership won").count();
        if won >= times {
            Ok(())
        } else {
            Err(format!("won {won} times:\n{log}"))
        }
    })
    .await;
}

async fn status(stage: &Stage, name: &str) -> Value {
    let policy = stage
        .kubectl
        .get(&["-n", "network", &format!("tsdp/{name}")])
        .await;
    policy["status"].clone()
}

fn in_sync(hostname: &str, node: &str) -> String {
    format!("True InSync: {hostname} ({node}) is in sync.")
}

#[tokio::test]
async fn leader_that_comes_back_reads_every_edit_and_deletion_before_it_writes() {
    let stage = Stage::new().await;
    let cable = Cable::to(stage.kubeconfig()).await;
    let first = Controller::ready(cable.kubeconfig(), &ARGS, &[]).await;
    let (router, nas, laptop) = (
        stage.node("fra-router"),
        stage.node("nas"),
        stage.node("amelie-laptop"),
    );
    let spec = "{device: {hostname: fra-router}, enabledRoutes: [10.0.0.0/16]}";
    stage.policy("router", spec).await;
    let rack = r#"{device: {hostname: nas}, postureAttributes: {"custom:rack": {integer: 7}}}"#;
    stage.policy("nas", rack).await;
    let key = "{device: {hostname: amelie-laptop}, keyExpiry: Disabled}";
    stage.policy("laptop", key).await;
    stage
        .policy_says("router", &in_sync("fra-router", &router))
        .await;
    stage.policy_says("nas", &in_sync("nas", &nas)).await;
    stage
        .policy_says("laptop", &in_sync("amelie-laptop", &laptop))
        .await;

    cable.cut();
    first.logs("leadership lost").await;
    let mut second = Controller::ready(stage.kubeconfig(), &ARGS, &[]).await;
    has_won(&second, 1).await;
    // One policy is edited, one is deleted, and the device of the third is protected.
    stage
        .policy(
            "router",
            "{device: {hostname: fra-router}, keyExpiry: Disabled}",
        )
        .await;
    let delete = ["-n", "network", "delete", "tsdp", "nas"];
    stage.kubectl.ok(&delete).await;
    let protect = json!({"spec": {"protectedDevices": [
        {"hostnames": ["amelie-laptop"], "trustClaims": true},
    ]}});
    let protect = protect.to_string();
    let patch = ["patch", "tstn", "default", "--type=merge", "-p", &protect];
    stage.kubectl.ok(&patch).await;
    stage
        .policy_says("router", &in_sync("fra-router", &router))
        .await;
    // By now its watch is in backoff for many seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    second.kill().await;
    // People change fields that no policy declares any longer.
    for (node, change) in [
        (&router, json!({"enabledRoutes": ["10.9.0.0/16"]})),
        (&nas, json!({"attributes": {"custom:rack": 8}})),
        (&laptop, json!({"keyExpiryDisabled": false})),
    ] {
        stage.simulator.patch_device(node, &change).unwrap();
    }
    stage.simulator.clear_requests();

    cable.repair();
    has_won(&first, 2).await;
    stage.polls(5).await;

    assert_eq!(calls(&stage.simulator), [] as [String; 0]);
    stage
        .device_has(&router, json!({"enabledRoutes": ["10.9.0.0/16"]}))
        .await;
    stage
        .device_has(&nas, json!({"attributes": {"custom:rack": 8}}))
        .await;
    // It does apply the present policies.
    stage
        .policy("nas", "{device: {hostname: nas}, keyExpiry: Disabled}")
        .await;
    stage.policy_says("nas", &in_sync("nas", &nas)).await;
}

#[tokio::test]
async fn a_report_of_an_earlier_term_never_removes_a_used_approval() {
    let stage = Stage::new().await;
    let cable = Cable::to(stage.kubeconfig()).await;
    let first = Controller::ready(cable.kubeconfig(), &ARGS, &[]).await;
    let nas = stage.node("nas");
    let approve = "{device: {hostname: nas}, enforcement: Approve, keyExpiry: Disabled}";
    let matching = json!({"keyExpiryDisabled": true});
    stage.simulator.patch_device(&nas, &matching).unwrap();
    stage.policy("nas", approve).await;
    stage.policy_says("nas", &in_sync("nas", &nas)).await;

    // It still leads when it sees this, but cannot write its report.
    cable.cut();
    let drift = json!({"keyExpiryDisabled": false});
    stage.simulator.patch_device(&nas, &drift).unwrap();
    stage.polls(2).await;
    first.logs("was not written").await;
    first.logs("leadership lost").await;
    let mut second = Controller::ready(stage.kubeconfig(), &ARGS, &[]).await;
    let hash = stage.held_plan("nas", "").await;
    let object = ["tsdp", "nas", "-n", "network"];
    stage.approve(&object, &format!("plan:{hash}")).await;
    stage.device_has(&nas, matching.clone()).await;
    stage.policy_says("nas", &in_sync("nas", &nas)).await;
    assert_eq!(status(&stage, "nas").await["approvalsUsed"], 1);
    second.kill().await;

    // The first list of its new term takes longer than the retry of its old report.
    let mut slow = FaultSpec::new(FaultKind::Delay);
    slow.method = Some("GET".to_owned());
    slow.path = Some("/api/v2/tailnet/*/devices".to_owned());
    slow.seconds = Some(4.0);
    stage.simulator.inject(slow).unwrap();
    cable.repair();
    has_won(&first, 2).await;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(status(&stage, "nas").await["approvalsUsed"], 1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stage.simulator.clear_faults();
    stage.polls(2).await;
    // The same drift needs another approval.
    stage.simulator.clear_requests();
    stage.simulator.patch_device(&nas, &drift).unwrap();
    let next = stage.held_plan("nas", &hash).await;
    assert_ne!(next, hash);
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [] as [String; 0]);
}

#[tokio::test]
async fn a_status_on_its_way_is_refused_once_another_leader_has_written() {
    let stage = Stage::new().await;
    let cable = Cable::to(stage.kubeconfig()).await;
    let mut first = Controller::ready(cable.kubeconfig(), &ARGS, &[]).await;
    let nas = stage.node("nas");
    let observe = "{device: {hostname: nas}, enforcement: Observe, keyExpiry: Disabled}";
    let matching = json!({"keyExpiryDisabled": true});
    stage.simulator.patch_device(&nas, &matching).unwrap();
    stage.policy("nas", observe).await;
    stage.policy_says("nas", &in_sync("nas", &nas)).await;

    // From here on its writes are stuck in the cable.
    cable.silence();
    let drift = json!({"keyExpiryDisabled": false});
    stage.simulator.patch_device(&nas, &drift).unwrap();
    stage.polls(2).await;
    first.logs("leadership lost").await;
    let _second = Controller::ready(stage.kubeconfig(), &ARGS, &[]).await;
    stage.policy_reason("nas", "Observed").await;
    stage.simulator.patch_device(&nas, &matching).unwrap();
    stage.policy_says("nas", &in_sync("nas", &nas)).await;
    let before = status(&stage, "nas").await;

    cable.repair();
    stage.polls(3).await;
    assert_eq!(status(&stage, "nas").await, before);

    // A controller that no longer leads has nothing to write and ends at once.
    cable.cut();
    let asked = Instant::now();
    first.terminate().await;
    let ended = first.ended().await;
    assert!(ended.success(), "{ended}");
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn a_leader_that_comes_back_writes_with_the_credential_that_is_stored_now() {
    let stage = Stage::new().await;
    let cable = Cable::to(stage.kubeconfig()).await;
    let first = Controller::ready(cable.kubeconfig(), &ARGS, &[]).await;
    let nas = stage.node("nas");
    stage
        .policy("nas", "{device: {hostname: nas}, keyExpiry: Disabled}")
        .await;
    stage.policy_says("nas", &in_sync("nas", &nas)).await;

    cable.cut();
    first.logs("leadership lost").await;
    let mut second = Controller::ready(stage.kubeconfig(), &ARGS, &[]).await;
    has_won(&second, 1).await;
    // The API still accepts the previous key, but the controller must not use it any longer.
    stage.secret(&json!({"api_key": "tskey-api-wrong"})).await;
    stage.policy_reason("nas", "CredentialRejected").await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    // It releases the lease, so that the first one leads before its watches retry.
    second.terminate().await;
    second.ended().await;
    let drift = json!({"keyExpiryDisabled": false});
    stage.simulator.patch_device(&nas, &drift).unwrap();
    stage.simulator.clear_requests();

    cable.repair();
    has_won(&first, 2).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(calls(&stage.simulator), [] as [String; 0]);
    stage.policy_reason("nas", "CredentialRejected").await;
}

#[tokio::test]
async fn policies_that_move_to_another_tailnet_take_their_reports_with_them() {
    const NAMES: [&str; 8] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];
    let stage = Stage::new().await;
    let tailnet = stage
        .tailnet_manifest()
        .replace(r#""default""#, r#""other""#);
    stage.kubectl.apply(&tailnet).await;
    let controller = stage.controller().await;
    let nas = stage.node("nas");
    let each = async |spec: &str| {
        for name in NAMES {
            stage.policy(name, spec).await;
        }
    };
    each("{device: {hostname: nas}, keyExpiry: Enabled}").await;
    for name in NAMES {
        stage.policy_says(name, &in_sync("nas", &nas)).await;
    }
    let rights = |verbs: Value| {
        json!([{"op": "replace", "path": "/rules/1/verbs", "value": verbs}]).to_string()
    };
    let (none, patch) = (rights(json!(["get"])), rights(json!(["patch"])));
    let role = |rights| ["patch", "clusterrole", "tsdp", "--type=json", "-p", rights];
    stage.kubectl.ok(&role(&none)).await;

    // The reports of this edit cannot be written; then the policies move.
    each("{device: {hostname: nas}, keyExpiry: Disabled}").await;
    controller.logs("cannot be written").await;
    each("{device: {hostname: nas}, keyExpiry: Disabled, tailnetRef: {name: other}}").await;
    stage.polls(4).await;
    stage.kubectl.ok(&role(&patch)).await;
    for name in NAMES {
        stage.policy_says(name, &in_sync("nas", &nas)).await;
    }
    stage.polls(6).await;
    for name in NAMES {
        assert_eq!(status(&stage, name).await["tailnet"], "other");
        stage.policy_says(name, &in_sync("nas", &nas)).await;
    }
}
