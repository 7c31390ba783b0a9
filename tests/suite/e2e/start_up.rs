//! The prerequisites of the controller, and its reports while it waits for them.

use serde_json::json;

use crate::support::{Controller, Stage, calls, demo_devices};

const API_KEY: &str = "tskey-api-start";

#[tokio::test]
async fn missing_crds_and_permissions_are_reported_until_they_exist() {
    let mut stage = Stage::without_resources(demo_devices(), API_KEY).await;
    let controller = Controller::start(stage.kubeconfig(), &[], &[]).await;

    let install = "the resource definitions are not installed: kubectl apply --server-side -k crds";
    controller
        .readyz_says(503, "the watch of policies fails: ")
        .await;
    controller
        .readyz_says(503, "the watch of tailnets fails: ")
        .await;
    controller.readyz_says(503, install).await;
    controller.logs(install).await;
    assert_eq!(controller.get("/healthz").await, (200, "ok\n".to_owned()));

    stage.install().await;
    stage.connect(API_KEY).await;
    controller.readyz_says(200, "ok").await;
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
    drop(controller);

    stage
        .kubectl
        .ok(&["delete", "clusterrolebinding", "tsdp"])
        .await;
    let controller = Controller::start(stage.kubeconfig(), &[], &[]).await;
    let allow = "the controller's role does not allow it: kubectl apply -k deploy";
    controller.readyz_says(503, allow).await;
    controller.logs(allow).await;

    stage.deploy().await;
    controller.readyz_says(200, "ok").await;
}

#[tokio::test]
async fn policies_outside_the_named_namespaces_are_ignored() {
    let stage = Stage::new().await;
    let here = "{device: {hostname: nas}, tags: [tag:db]}";
    let elsewhere = json!({
        "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleDevicePolicy",
        "metadata": {"name": "elsewhere", "namespace": "default"},
        "spec": {"device": {"hostname": "ben-phone"}, "tags": ["tag:db"]},
    });
    stage.kubectl.apply(&elsewhere.to_string()).await;
    let args = ["--policy-namespaces=network,tsdp-system"];
    let _controller = Controller::ready(stage.kubeconfig(), &args, &[]).await;

    stage.policy("nas", here).await;
    let nas = stage.node("nas");
    stage
        .policy_says("nas", &format!("True InSync: nas ({nas}) is in sync."))
        .await;
    stage.polls(2).await;

    assert_eq!(
        calls(&stage.simulator),
        [format!("POST /device/{nas}/tags")]
    );
    let policy = stage
        .kubectl
        .get(&["-n", "default", "tsdp/elsewhere"])
        .await;
    assert_eq!(policy["status"], json!({"observedGeneration": -1}));
}
