//! A role that lacks a permission: few requests, and `/readyz` names it.

use std::time::Duration;

use serde_json::json;

use crate::support::{Controller, Stage};

const POLICIES: usize = 12;
const ALLOW: &str = "the controller's role does not allow it: kubectl apply -k deploy";

async fn without_rule(stage: &Stage, role: &[&str], number: usize) {
    let patch = json!([{"op": "remove", "path": format!("/rules/{number}")}]).to_string();
    let args = [&["patch"], role, &["--type=json", "-p", &patch]].concat();
    stage.kubectl.ok(&args).await;
}

async fn allow(stage: &Stage) {
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
    let apply = ["apply", "--server-side", "--force-conflicts", "-k", deploy];
    stage.kubectl.ok(&apply).await;
}

/// The number of status writes that the API server refused.
async fn refused(controller: &Controller) -> u32 {
    let (_, metrics) = controller.get("/metrics").await;
    let name = "tsdp_status_write_failures_total{reason=\"Forbidden\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name));
    count.unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_forbidden_status_write_is_retried_rarely_and_named_by_readyz() {
    let stage = Stage::new().await;
    without_rule(&stage, &["clusterrole", "tsdp"], 1).await;
    for number in 0..POLICIES {
        stage
            .policy(
                &format!("p{number}"),
                "{device: {hostname: nas}, tags: [tag:db]}",
            )
            .await;
    }
    let controller = Controller::start(stage.kubeconfig(), &[], &[]).await;
    controller.readyz_says(200, "ok").await;
    let status = "the status of TailscaleDevicePolicy in namespace network cannot be written: ";
    controller.logs(status).await;
    controller
        .readyz_within(Duration::from_secs(90), 503, status)
        .await;
    controller.readyz_says(503, ALLOW).await;
    let tries = refused(&controller).await;
    assert!((5..=40).contains(&tries), "{tries} tries in a minute");

    allow(&stage).await;
    controller
        .readyz_within(Duration::from_mins(1), 200, "ok")
        .await;
    for number in 0..POLICIES {
        stage.policy_reason(&format!("p{number}"), "InSync").await;
    }
}

#[tokio::test]
async fn a_forbidden_lease_is_named_by_readyz() {
    let stage = Stage::new().await;
    let role = ["-n", "tsdp-system", "role/tsdp"];
    without_rule(&stage, &role, 3).await;
    let controller = Controller::start(stage.kubeconfig(), &[], &[]).await;
    controller.readyz_says(200, "ok").await;
    let lease = "the lease tsdp in namespace tsdp-system cannot be used: ";
    controller
        .readyz_within(Duration::from_secs(90), 503, lease)
        .await;
    allow(&stage).await;
    controller.readyz_says(200, "ok").await;
}

#[tokio::test]
async fn forbidden_events_are_logged_once() {
    let stage = Stage::new().await;
    without_rule(&stage, &["clusterrole", "tsdp"], 4).await;
    let controller = Controller::start(stage.kubeconfig(), &[], &[]).await;
    let spec = "{device: {hostname: nas}, tags: [tag:db]}";
    stage.policy("one", spec).await;
    stage.policy_reason("one", "InSync").await;
    controller.logs("Events cannot be written: ").await;
    controller.logs(ALLOW).await;
    let change = async |number: u32| {
        let spec = format!(
            "{{device: {{hostname: nas}}, postureAttributes: {{'custom:n': {{integer: {number}}}}}}}"
        );
        stage.policy("one", &spec).await;
        stage.policy_reason("one", "InSync").await;
        let changed = json!({"attributes": {"custom:n": number}});
        stage.device_has(&stage.node("nas"), changed).await;
    };
    change(1).await;
    let log = controller.log();
    let lines = log.matches("Events cannot be written").count();
    assert_eq!(lines, 1, "{log}");
    controller.readyz_says(200, "ok").await;

    allow(&stage).await;
    for number in 2..5 {
        change(number).await;
    }
    controller.logs("Events can be written again").await;
}
