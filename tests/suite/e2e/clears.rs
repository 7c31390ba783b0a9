//! `deletionPolicy`: released devices, and deleted policies.

use std::time::Duration;

use serde_json::{Value, json};
use tsdp::simulator::{FaultKind, FaultSpec};

use super::invites;
use crate::support::{Controller, Stage, calls, eventually};

/// Adds a route, an exit node, an attribute, and settings that are never cleared, to those of fra-router.
const ROUTER: &str = r#"{
    device: {hostname: fra-router},
    tags: ["tag:router", "tag:fra"],
    keyExpiry: Disabled,
    enabledRoutes: ["fd7a:10::/48"],
    ownership: {enabledRoutes: AtLeast},
    exitNode: true,
    postureAttributes: {"custom:tier": {string: gold}},
    deletionPolicy: Clear
}"#;

pub(super) fn with_all() -> Value {
    json!({
        "tags": ["tag:fra", "tag:router"],
        "enabledRoutes": ["10.0.0.0/16", "192.168.0.0/24", "fd7a:10::/48", "0.0.0.0/0", "::/0"],
        "attributes": {"custom:tier": "gold", "custom:note": "keep"},
        "keyExpiryDisabled": true,
    })
}

pub(super) fn cleared() -> Value {
    json!({
        "tags": ["tag:fra", "tag:router"],
        "enabledRoutes": ["10.0.0.0/16", "192.168.0.0/24"],
        "attributes": {"custom:note": "keep"},
        "keyExpiryDisabled": true,
    })
}

/// fra-router in sync with the policy, with an attribute that no policy declares.
pub(super) async fn held(stage: &Stage, spec: &str) -> String {
    let router = stage.node("fra-router");
    let note = json!({"attributes": {"custom:note": "keep"}});
    stage.simulator.patch_device(&router, &note).unwrap();
    stage.policy("router", spec).await;
    stage
        .policy_says(
            "router",
            &format!("True InSync: fra-router ({router}) is in sync."),
        )
        .await;
    has(stage, &router, with_all()).await;
    stage.simulator.clear_requests();
    router
}

/// Waits until a device has this state, whatever the order of its lists.
pub(super) async fn has(stage: &Stage, id: &str, expected: Value) {
    let sorted = |device: &Value| {
        let mut device = device.clone();
        for list in ["tags", "enabledRoutes"] {
            if let Some(Value::Array(items)) = device.get_mut(list) {
                items.sort_by_key(Value::to_string);
            }
        }
        device
    };
    let expected = sorted(&expected);
    eventually(Duration::from_secs(40), async || {
        let now = sorted(&stage.simulator.device(id).unwrap());
        let desired = expected.as_object().unwrap();
        let wrong: Vec<_> = desired.iter().filter(|(k, v)| now[*k] != **v).collect();
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{now}, expected {wrong:?}"))
        }
    })
    .await;
}

async fn finalizers(stage: &Stage, policy: &str) -> Value {
    let object = stage.kubectl.get(&["tsdp", policy, "-n", "network"]).await;
    object["metadata"]["finalizers"].clone()
}

/// Deletes as people do: waits until the object is gone.
async fn delete(stage: &Stage, policy: &str) {
    let args = ["delete", "tsdp", policy, "-n", "network", "--timeout=40s"];
    stage.kubectl.ok(&args).await;
}

async fn delete_without_waiting(stage: &Stage, policy: &str) {
    let args = ["delete", "tsdp", policy, "-n", "network", "--wait=false"];
    stage.kubectl.ok(&args).await;
}

async fn gone(stage: &Stage, policy: &str) {
    let policy = format!("tsdp/{policy}");
    let args = [
        "wait",
        "--for=delete",
        &policy,
        "-n",
        "network",
        "--timeout=40s",
    ];
    stage.kubectl.ok(&args).await;
}

#[tokio::test]
async fn a_deleted_policy_clears_its_settings_and_nothing_else() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let router = held(&stage, ROUTER).await;
    assert_eq!(
        finalizers(&stage, "router").await,
        json!(["tailnet.dev/clear"])
    );
    let object = stage
        .kubectl
        .get(&["tsdp", "router", "-n", "network"])
        .await;
    assert_eq!(
        object["status"]["managedDevices"],
        json!({"nodeIds": [router], "routes": ["0.0.0.0/0", "::/0", "fd7a:10::/48"]})
    );

    // Somebody else's finalizer, and another policy that declares some of the same settings.
    let theirs =
        json!([{"op": "add", "path": "/metadata/finalizers/0", "value": "example.com/theirs"}]);
    let theirs = theirs.to_string();
    let patch = [
        "patch",
        "tsdp",
        "router",
        "-n",
        "network",
        "--type=json",
        "-p",
        &theirs,
    ];
    stage.kubectl.ok(&patch).await;
    let other = r#"{device: {hostname: fra-router}, enabledRoutes: ["fd7a:10::/48"],
                    ownership: {enabledRoutes: AtLeast}, deletionPolicy: Clear}"#;
    stage.policy("other", other).await;
    stage.policy_reason("other", "InSync").await;
    stage.simulator.clear_requests();

    delete_without_waiting(&stage, "router").await;
    let mut rest = cleared();
    rest["enabledRoutes"] = json!(["10.0.0.0/16", "192.168.0.0/24", "fd7a:10::/48"]);
    has(&stage, &router, rest).await;
    eventually(Duration::from_secs(20), async || {
        let now = finalizers(&stage, "router").await;
        if now == json!(["example.com/theirs"]) {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
    assert_eq!(
        calls(&stage.simulator),
        [
            format!("DELETE /device/{router}/attributes/custom:tier"),
            format!("POST /device/{router}/routes"),
        ]
    );
    stage
        .event(
            "router",
            "AttributeDeleted",
            "fra-router (released): postureAttributes[custom:tier]: \"gold\" → none",
        )
        .await;
    let none = r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#;
    let patch = [
        "patch",
        "tsdp",
        "router",
        "-n",
        "network",
        "--type=json",
        "-p",
        none,
    ];
    stage.kubectl.ok(&patch).await;
    gone(&stage, "router").await;

    delete(&stage, "other").await;
    has(&stage, &router, cleared()).await;
}

#[tokio::test]
async fn under_retain_the_device_stays_as_it_is_and_the_deletion_is_immediate() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let retain = ROUTER.replace("Clear", "Retain");
    let router = held(&stage, ROUTER).await;

    stage.policy("router", &retain).await;
    eventually(Duration::from_secs(20), async || {
        match finalizers(&stage, "router").await {
            Value::Null => Ok(()),
            left => Err(left),
        }
    })
    .await;
    let object = stage
        .kubectl
        .get(&["tsdp", "router", "-n", "network"])
        .await;
    assert_eq!(object["status"]["managedDevices"], Value::Null);

    delete(&stage, "router").await;
    stage.polls(2).await;
    has(&stage, &router, with_all()).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
}

#[tokio::test]
async fn devices_that_leave_a_fleet_or_are_no_longer_named_are_cleared() {
    let stage = Stage::new().await;
    let _controller = stage.controller().await;
    let fleet = r#"{deviceSelector: {tags: ["tag:router"]},
                    postureAttributes: {"custom:tier": {string: gold}}, deletionPolicy: Clear}"#;
    stage.policy("fleet", fleet).await;
    stage
        .policy_says("fleet", "True InSync: All 2 devices are in sync.")
        .await;
    let (router, gateway) = (stage.node("fra-router"), stage.node("old-gateway"));
    let tags = json!({"tags": ["tag:fra"]});
    stage.simulator.patch_device(&gateway, &tags).unwrap();
    has(&stage, &gateway, json!({"attributes": {}})).await;
    stage
        .policy_says("fleet", "True InSync: The one matching device is in sync.")
        .await;
    has(
        &stage,
        &router,
        json!({"attributes": {"custom:tier": "gold"}}),
    )
    .await;

    // The same edit names another device and other keys.
    let single = r#"{device: {hostname: nas},
                     postureAttributes: {"custom:kind": {string: disk}}, deletionPolicy: Clear}"#;
    stage.policy("fleet", single).await;
    has(&stage, &router, json!({"attributes": {}})).await;
    let nas = stage.node("nas");
    has(&stage, &nas, json!({"attributes": {"custom:kind": "disk"}})).await;

    // Its devices belong to this tailnet.
    let elsewhere = json!({
        "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleDevicePolicy",
        "metadata": {"name": "fleet", "namespace": "network"},
        "spec": {
            "device": {"hostname": "nas"}, "tailnetRef": {"name": "other"}, "deletionPolicy": "Clear",
        },
    });
    let message = stage.kubectl.apply_refused(&elsewhere.to_string()).await;
    assert!(
        message.contains("write deletionPolicy: Retain first"),
        "{message}"
    );

    // A device that is gone delays nothing.
    stage.simulator.remove_device(&nas).unwrap();
    delete(&stage, "fleet").await;
}

#[tokio::test]
async fn policy_that_cannot_be_cleared_is_deleted_after_the_timeout() {
    let stage = Stage::new().await;
    let args = ["--clear-timeout=6"];
    let _controller = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    let what = "custom:tier, 0.0.0.0/0, ::/0, fd7a:10::/48";

    // Suspended: nothing is sent.
    let router = held(&stage, ROUTER).await;
    stage
        .policy(
            "router",
            &ROUTER.replace("Clear\n", "Clear, suspend: true\n"),
        )
        .await;
    delete(&stage, "router").await;
    let left = format!("fra-router ({router}) keeps the settings of the policy ({what}): ");
    let suspended = format!("{left}the policy is suspended");
    stage.event("router", "NotCleared", &suspended).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);

    // The credential is lost.
    held(&stage, ROUTER).await;
    stage.secret(&json!({"api_key": "tskey-api-lost"})).await;
    stage.policy_reason("router", "CredentialRejected").await;
    delete_without_waiting(&stage, "router").await;
    stage
        .policy_says(
            "router",
            "False Clearing (Reconciling): The policy is being deleted. The controller must still clear one released device. GET /tailnet/-/devices: the credential was rejected; check that it \
             is right, not expired, and not revoked: API token invalid (HTTP 401, request REQ-…)",
        )
        .await;
    gone(&stage, "router").await;
    let lost = "GET /tailnet/-/devices: the credential was rejected; check that it is right, not \
                expired, and not revoked: API token invalid (HTTP 401, request REQ-…)";
    stage
        .event("router", "NotCleared", &format!("{left}{lost}"))
        .await;
    stage.secret(&json!({"api_key": "tskey-api-e2e"})).await;

    // The API always fails for one request.
    held(&stage, ROUTER).await;
    let mut fault = FaultSpec::new(FaultKind::Status);
    fault.method = Some("DELETE".to_owned());
    fault.path = Some(format!("/api/v2/device/{router}/attributes/*"));
    fault.status = Some(400);
    fault.body = Some(json!({"message": "no"}));
    stage.simulator.inject(fault).unwrap();
    delete(&stage, "router").await;
    stage.simulator.clear_faults();
    let mut rest = cleared();
    rest["attributes"]["custom:tier"] = json!("gold");
    has(&stage, &router, rest).await;

    // The tailnet is removed.
    held(&stage, ROUTER).await;
    stage.kubectl.ok(&["delete", "tstn", "default"]).await;
    stage.policy_reason("router", "TailnetNotFound").await;
    delete(&stage, "router").await;
    let removed = format!(
        "{left}There is no TailscaleTailnet 'default'. Nothing is sent. Create it, or correct spec.tailnetRef."
    );
    stage.event("router", "NotCleared", &removed).await;
    has(&stage, &router, with_all()).await;
}

#[tokio::test]
async fn clearing_that_a_killed_controller_began_is_finished_by_the_next() {
    let stage = Stage::new().await;
    let args = ["--lease-duration=3"];
    let mut first = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    let router = held(&stage, ROUTER).await;
    let mut delay = FaultSpec::new(FaultKind::Delay);
    delay.method = Some("DELETE".to_owned());
    delay.seconds = Some(20.0);
    stage.simulator.inject(delay).unwrap();
    delete_without_waiting(&stage, "router").await;
    eventually(Duration::from_secs(20), async || {
        let sent = calls(&stage.simulator);
        if sent.is_empty() {
            Err("no call yet")
        } else {
            Ok(())
        }
    })
    .await;
    first.kill().await;
    stage.simulator.clear_faults();
    assert_eq!(
        finalizers(&stage, "router").await,
        json!(["tailnet.dev/clear"])
    );

    let _second = Controller::ready(stage.kubeconfig(), &args, &[]).await;
    gone(&stage, "router").await;
    has(&stage, &router, cleared()).await;
}

#[tokio::test]
async fn a_deleted_namespace_terminates_and_owned_objects_are_collected() {
    let stage = invites::stage().await;
    let _manager = stage.controller_manager().await;
    let _controller = invites::controller(&stage).await;
    let router = held(&stage, ROUTER).await;

    // The invite owns its Secret.
    let invite = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/examples/invites/partner.yaml"
    );
    stage.kubectl.ok(&["apply", "-f", invite]).await;
    let secret = [
        "wait",
        "--for=create",
        "secret/partner-invite",
        "-n",
        "network",
        "--timeout=40s",
    ];
    stage.kubectl.ok(&secret).await;
    stage.kubectl.ok(&["delete", "-f", invite]).await;
    let secret = [
        "wait",
        "--for=delete",
        "secret/partner-invite",
        "-n",
        "network",
        "--timeout=60s",
    ];
    stage.kubectl.ok(&secret).await;

    // A policy of a tailnet that was deleted meanwhile.
    let other = stage.tailnet_manifest().replace("\"default\"", "\"other\"");
    stage.kubectl.apply(&other).await;
    let gateway = r#"{device: {hostname: old-gateway}, tailnetRef: {name: other},
                      postureAttributes: {"custom:tier": {string: gold}}, deletionPolicy: Clear}"#;
    stage.policy("gateway", gateway).await;
    stage.policy_reason("gateway", "InSync").await;
    stage.kubectl.ok(&["delete", "tstn", "other"]).await;
    stage.policy_reason("gateway", "TailnetNotFound").await;

    let args = ["delete", "namespace", "network", "--timeout=90s"];
    stage.kubectl.ok(&args).await;
    has(&stage, &router, cleared()).await;
    let left = json!({"attributes": {"custom:tier": "gold"}});
    has(&stage, &stage.node("old-gateway"), left).await;
}
