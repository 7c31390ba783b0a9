//! `allowedPolicies`, `protectedDevices`, and `suspend` of a tailnet, as a platform team uses them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Stage, calls, eventually};

const KEY: &str = "tskey-api-guards";

async fn stage() -> Stage {
    let devices = vec![
        json!({"hostname": "net-a", "tags": ["tag:router", "tag:db"], "keyExpiryDisabled": false,
               "enabledRoutes": ["10.0.0.0/16", "192.168.0.0/24"]}),
        json!({"hostname": "net-b", "tags": ["tag:db"], "keyExpiryDisabled": false}),
    ];
    Stage::with(devices, KEY).await
}

/// Sets these guardrails of the tailnet, and removes all others.
async fn guard(stage: &Stage, guards: Value) {
    let mut spec = json!({"allowedPolicies": null, "protectedDevices": null, "suspend": null});
    spec.as_object_mut()
        .unwrap()
        .extend(guards.as_object().unwrap().clone());
    let patch = json!({"spec": spec}).to_string();
    let patch = ["patch", "tstn", "default", "--type=merge", "-p", &patch];
    stage.kubectl.ok(&patch).await;
}

async fn label(stage: &Stage, label: &str) {
    let namespace = ["label", "namespace", "network", "--overwrite", label];
    stage.kubectl.ok(&namespace).await;
}

/// The message of the condition `Accepted` once it is `False` for this reason.
async fn refusal(stage: &Stage, policy: &str) -> String {
    let mut message = String::new();
    eventually(Duration::from_secs(30), async || {
        let object = stage.kubectl.get(&["tsdp", policy, "-n", "network"]).await;
        let conditions = object["status"]["conditions"].as_array().cloned();
        let of = |name: &str| {
            let mut conditions = conditions.iter().flatten();
            conditions.find(|it| it["type"] == name).cloned()
        };
        let (accepted, ready) = (of("Accepted"), of("Ready"));
        let refused = accepted.filter(|it| it["status"] == "False" && it["reason"] == "NotAllowed");
        match (refused, of("Stalled"), ready) {
            (Some(refused), Some(stalled), Some(ready))
                if stalled["status"] == "True" && ready["reason"] == "NotAllowed" =>
            {
                refused["message"]
                    .as_str()
                    .unwrap()
                    .clone_into(&mut message);
                Ok(())
            }
            _ => Err(object["status"].to_string()),
        }
    })
    .await;
    message
}

/// The rules that a message suggests.
fn rules(message: &str) -> Value {
    let begin = message.find("allowedPolicies: [").expect(message);
    let end = message.rfind("}]").expect(message) + 2;
    let line: Value = serde_yaml::from_str(&message[begin..end]).expect(message);
    line
}

async fn tags_of(stage: &Stage, hostname: &str, tags: Value) {
    stage
        .device_has(&stage.node(hostname), json!({"tags": tags}))
        .await;
}

#[tokio::test]
async fn each_part_of_a_rule_applies_and_the_suggested_rule_allows_the_policy() {
    let stage = stage().await;
    guard(&stage, json!({})).await;
    stage
        .policy(
            "net-a",
            r#"{device: {hostname: net-a}, tags: ["tag:router", "tag:fra"], enabledRoutes: ["10.0.0.0/16"]}"#,
        )
        .await;
    let _controller = stage.controller().await;
    // Without `allowedPolicies`, only the controller's own namespace is allowed.
    let reported = refusal(&stage, "net-a").await;
    assert_eq!(
        reported,
        "metadata.namespace: policies of network are not allowed: without allowedPolicies only those of \
         tsdp-system are. To allow it, give the TailscaleTailnet a rule such as allowedPolicies: \
         [{namespaces: {names: [network]}, fields: [tags, enabledRoutes]}]. Nothing is sent until then."
    );
    stage.event("net-a", "NotAllowed", &reported).await;
    // Another namespace; another field; other tags; other routes.
    for (rule, fault) in [
        (
            json!({"namespaces": {"names": ["lab"]}}),
            "no rule of allowedPolicies allows the namespace network",
        ),
        (
            json!({"fields": ["tags"]}),
            "spec.enabledRoutes: no rule of allowedPolicies allows this field",
        ),
        (
            json!({"tags": ["tag:r*"]}),
            "spec.tags: no rule of allowedPolicies allows tag:fra.",
        ),
        (
            json!({"tags": ["tag:r*"], "routes": ["10.0.0.0/24"]}),
            "spec.enabledRoutes: no rule of allowedPolicies allows 10.0.0.0/16.",
        ),
    ] {
        guard(&stage, json!({"allowedPolicies": [rule]})).await;
        eventually(Duration::from_secs(30), async || {
            let reported = refusal(&stage, "net-a").await;
            if reported.contains(fault) {
                Ok(())
            } else {
                Err(reported)
            }
        })
        .await;
    }
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
    // The suggested rules, copied: now the policy is accepted and may change only the allowed entries.
    let reported = refusal(&stage, "net-a").await;
    guard(&stage, rules(&reported)).await;
    tags_of(&stage, "net-a", json!(["tag:db", "tag:fra", "tag:router"])).await;
    stage
        .device_has(
            &stage.node("net-a"),
            json!({"enabledRoutes": ["10.0.0.0/16", "192.168.0.0/24"]}),
        )
        .await;
    stage
        .policy_says(
            "net-a",
            &format!("True InSync: net-a ({}) is in sync.", stage.node("net-a")),
        )
        .await;
}

#[tokio::test]
async fn a_namespace_that_loses_its_label_is_denied_and_devices_of_others_are_not_considered() {
    let stage = stage().await;
    label(&stage, "team=network").await;
    guard(
        &stage,
        json!({"allowedPolicies": [
            {"namespaces": {"matchLabels": {"team": "network"}}, "devices": [{"tags": ["tag:rout*"]}]},
        ]}),
    )
    .await;
    stage
        .policy(
            "keys",
            r#"{deviceSelector: {tags: ["tag:db"]}, keyExpiry: Disabled}"#,
        )
        .await;
    let _controller = stage.controller().await;
    let a = stage.node("net-a");
    stage
        .device_has(&a, json!({"keyExpiryDisabled": true}))
        .await;
    // The other device that matches is not the namespace's, and not even counted.
    stage
        .policy_says(
            "keys",
            "True InSync: The one matching device is in sync. The policy can only target devices that allowedPolicies allows policies of this namespace to change: [{tags: [\"tag:rout*\"]}].",
        )
        .await;
    let changed = calls(&stage.simulator).len();
    label(&stage, "team=lab").await;
    refusal(&stage, "keys").await;
    let policy = stage.kubectl.get(&["tsdp", "keys", "-n", "network"]).await;
    assert_eq!(policy["status"]["matchedDevices"], 0);
    // Once the label is back, the policy is accepted again.
    let drift = json!({"keyExpiryDisabled": false});
    stage.simulator.patch_device(&a, &drift).unwrap();
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator).len(), changed);
    label(&stage, "team=network").await;
    stage
        .device_has(&a, json!({"keyExpiryDisabled": true}))
        .await;
}

#[tokio::test]
async fn a_protected_device_is_left_alone_and_a_suspended_tailnet_sends_nothing() {
    let stage = stage().await;
    let guards = json!({
        "allowedPolicies": [{}], "protectedDevices": [{"tags": ["tag:rout?r"]}],
    });
    guard(&stage, guards.clone()).await;
    stage
        .policy("a", "{device: {hostname: net-a}, keyExpiry: Disabled}")
        .await;
    let _controller = stage.controller().await;
    let (a, b) = (stage.node("net-a"), stage.node("net-b"));
    stage
        .policy_says(
            "a",
            &format!(
                "False Protected (Stalled): net-a ({a}): keyExpiry: Enabled → Disabled is held: no policy \
                 may change this device: it is one of protectedDevices of the TailscaleTailnet."
            ),
        )
        .await;
    // If the tailnet is suspended, the policies report that and can be deleted.
    let mut suspended = guards.clone();
    suspended["suspend"] = json!(true);
    guard(&stage, suspended).await;
    stage
        .tailnet_says(
            "default",
            "True Suspended: The controller can read the tailnet's devices. The tailnet is suspended: nothing is sent for its policies. Set spec.suspend to false to continue.",
        )
        .await;
    stage
        .policy(
            "b",
            "{device: {hostname: net-b}, enabledRoutes: [10.9.0.0/16], deletionPolicy: Clear}",
        )
        .await;
    stage
        .policy_says(
            "b",
            "True Suspended: The TailscaleTailnet default is suspended: nothing is sent for its policies. Set its spec.suspend to false to continue.",
        )
        .await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
    guard(&stage, guards.clone()).await;
    stage
        .device_has(&b, json!({"enabledRoutes": ["10.9.0.0/16"]}))
        .await;
    stage.policy_reason("b", "InSync").await;
    let changed = calls(&stage.simulator).len();
    let mut suspended = guards;
    suspended["suspend"] = json!(true);
    guard(&stage, suspended).await;
    stage.tailnet_says("default", "True Suspended: The controller can read the tailnet's devices. The tailnet is suspended: nothing is sent for its policies. Set spec.suspend to false to continue.").await;
    let delete = ["delete", "tsdp", "b", "-n", "network", "--timeout=20s"];
    stage.kubectl.ok(&delete).await;
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator).len(), changed, "nothing is cleared");
}
