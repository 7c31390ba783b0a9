//! Manifests that were copied from a cluster: fields that only a server writes have no effect.

use std::fs;

use serde_json::{Value, json};

use super::tailnet::{NO_LIMIT, Ran, Tailnet, program};

/// A policy for the device `h1`, with additional metadata and a status.
fn manifest(metadata: &str, status: &str) -> String {
    format!(
        "apiVersion: tailnet.dev/v1alpha1\nkind: TailscaleDevicePolicy\n\
         metadata: {{name: one, namespace: network{metadata}}}\n\
         spec: {{device: {{hostname: h1}}, keyExpiry: Disabled, \
         postureAttributes: {{custom:tier: {{string: gold}}}}}}\n{status}"
    )
}

const METADATA: &str = ", uid: 0b5c8f1e-1111-2222-3333-444455556666, generation: 7, \
     resourceVersion: \"42\", creationTimestamp: \"2020-01-01T00:00:00Z\", \
     deletionTimestamp: \"2020-01-02T00:00:00Z\", finalizers: [tailnet.dev/clear], \
     annotations: {tailnet.dev/approve: \"node:n2\"}";

fn status() -> String {
    let status = json!({
        "observedGeneration": 7,
        "nodeId": "n2",
        "boundDevice": {"nodeId": "n2", "owner": "tagged", "named": "hostname h1"},
        "ownedAttributes": ["custom:other", "custom:tier"],
    });
    format!("status: {status}\n")
}

async fn two() -> Tailnet {
    let device = |number: u8| {
        json!({
            "nodeId": format!("n{number}"),
            "hostname": format!("h{number}"),
            "tags": ["tag:server"],
            "attributes": {"custom:other": "of a person"},
        })
    };
    let tailnet = Tailnet::of(vec![device(1), device(2)]).await;
    tailnet.simulator.clear_requests();
    tailnet
}

fn device(tailnet: &Tailnet, hostname: &str) -> Value {
    let devices = tailnet.simulator.devices().unwrap();
    let mut devices = devices.into_iter();
    devices.find(|it| it["hostname"] == hostname).unwrap()
}

/// The plan without its times.
async fn plan(tailnet: &Tailnet, text: &str, stdin: bool) -> Value {
    let text = format!("{NO_LIMIT}\n---\n{text}");
    let ran = if stdin {
        let args = ["plan", "-f", "-", "-o", "json"];
        tailnet.run_with(&args, &text).await
    } else {
        fs::write(tailnet.path("policy.yaml"), text).unwrap();
        let args = ["plan", "-f", "policy.yaml", "-o", "json"];
        tailnet.run(&args).await
    };
    serde_json::from_str(&ran.with_code(2)).unwrap()
}

#[tokio::test]
async fn a_status_in_a_file_binds_no_device_and_owns_nothing() {
    let tailnet = two().await;
    let expected = plan(&tailnet, &manifest("", ""), false).await;
    assert!(expected["changes"].to_string().contains("h1"), "{expected}");
    let copied = manifest(METADATA, &status());
    let list = copied.trim_end().replace('\n', "\n    ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n  - {list}\n");
    for text in [&copied, &list] {
        for stdin in [false, true] {
            assert_eq!(plan(&tailnet, text, stdin).await, expected, "{text}");
        }
    }
    fs::write(tailnet.path("policy.yaml"), &copied).unwrap();
    let valid = program()
        .args(["validate", "policy.yaml"])
        .current_dir(tailnet.folder.path())
        .output();
    Ran::from(valid.await.unwrap()).ok();
    let before = device(&tailnet, "h2");
    let args = ["apply", "-f", "policy.yaml", "--yes"];
    fs::write(
        tailnet.path("policy.yaml"),
        format!("{NO_LIMIT}\n---\n{copied}"),
    )
    .unwrap();
    tailnet.run(&args).await.ok();
    assert_eq!(device(&tailnet, "h2"), before);
    assert_eq!(device(&tailnet, "h1")["keyExpiryDisabled"], true);
}

#[tokio::test]
async fn a_saved_plan_of_a_copied_manifest_is_the_plan_of_its_spec() {
    let tailnet = two().await;
    let mut kept = Vec::new();
    for text in [manifest("", ""), manifest(METADATA, &status())] {
        fs::write(
            tailnet.path("policy.yaml"),
            format!("{NO_LIMIT}\n---\n{text}"),
        )
        .unwrap();
        let args = ["plan", "-f", "policy.yaml", "--out", "plan.json"];
        tailnet.run(&args).await.with_code(2);
        let plan = fs::read_to_string(tailnet.path("plan.json")).unwrap();
        let mut plan: Value = serde_json::from_str(&plan).unwrap();
        plan["madeAt"].take();
        kept.push(plan);
    }
    assert_eq!(kept[0], kept[1]);
    let before = device(&tailnet, "h2");
    tailnet.run(&["apply", "plan.json", "--yes"]).await.ok();
    assert_eq!(device(&tailnet, "h2"), before);
    assert_eq!(device(&tailnet, "h1")["keyExpiryDisabled"], true);
}

#[tokio::test]
async fn an_earlier_manifest_with_a_status_prunes_only_keys_that_it_declared() {
    let tailnet = two().await;
    fs::write(tailnet.path("former.yaml"), manifest(METADATA, &status())).unwrap();
    let now = manifest("", "").replace("{custom:tier: {string: gold}}", "{}");
    fs::write(
        tailnet.path("policy.yaml"),
        format!("{NO_LIMIT}\n---\n{now}"),
    )
    .unwrap();
    let args = [
        "apply",
        "-f",
        "policy.yaml",
        "--prune-from",
        "former.yaml",
        "--yes",
    ];
    tailnet.run(&args).await.ok();
    let requests = tailnet.requests();
    let deleted = requests
        .iter()
        .any(|it| it.contains("custom:other") || it.contains("/n2/"));
    assert!(!deleted, "{requests:?}");
    assert_eq!(device(&tailnet, "h1")["keyExpiryDisabled"], true);
}
