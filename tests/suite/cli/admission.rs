//! `tsdp admission` on a real API server: `kubectl apply` refuses what the controller would call `NotAllowed`.

use std::{fs, process::Command, time::Duration};

use tempfile::TempDir;

use crate::support::{Kubectl, control_plane, eventually};

const TAILNET: &str = r#"
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleTailnet
metadata: {name: default}
spec:
  credentialsSecret: {name: tailscale}
  allowedPolicies:
    - namespaces: {names: [network]}
    - namespaces: {matchLabels: {team: db}}
      fields: [tags, enabledRoutes, exitNode]
      tags: ["tag:db-*", "tag:d?"]
      routes: ["10.20.0.0/16", "fd00:20::/32"]
    - namespaces: {matchLabels: {team: db}}
      fields: [tags, keyExpiry]
      tags: ["tag:shared"]
"#;

/// The namespace and the spec of a policy, and the words with which it is refused; none if it is accepted.
const POLICIES: &[(&str, &str, &str)] = &[
    ("network", "tags: ['tag:anything'], exitNode: true", ""),
    ("db", "tags: ['tag:db-main', 'tag:db', 'tag:shared']", ""),
    ("db", "tags: []", ""),
    ("db", "keyExpiry: Disabled", ""),
    (
        "db",
        "enabledRoutes: ['10.20.30.0/24', 'fd00:20:1::/48']",
        "",
    ),
    ("db", "tags: ['tag:webs'], tailnetRef: {name: lab}", ""),
    (
        "elsewhere",
        "tags: ['tag:db-main']",
        "allowedPolicies of the TailscaleTailnet default allows no policies of the namespace elsewhere",
    ),
    (
        "db",
        "tags: ['tag:db-main', 'tag:webs', 'tag:dbx-not']",
        "spec.tags: allowedPolicies of the TailscaleTailnet default does not allow tag:webs, tag:dbx-not",
    ),
    (
        "db",
        "enabledRoutes: ['10.20.30.0/24', '10.0.0.0/8', 'fd00:21::/48']",
        "spec.enabledRoutes: allowedPolicies of the TailscaleTailnet default does not allow 10.0.0.0/8, fd00:21::/48",
    ),
    (
        "db",
        "exitNode: false",
        "spec.exitNode: allowedPolicies of the TailscaleTailnet default does not allow 0.0.0.0/0 and ::/0",
    ),
    (
        "db",
        "postureAttributes: {'custom:a': {string: b}}",
        "spec.postureAttributes: allowedPolicies of the TailscaleTailnet default does not allow this field",
    ),
];

fn admission(tailnet: &str) -> String {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let file = folder.path().join("tailnet.yaml");
    fs::write(&file, tailnet).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tsdp"))
        .args(["admission", "-f"])
        .arg(&file)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

fn policy(namespace: &str, spec: &str) -> String {
    let by = if spec == "tags: []" {
        // Under Exact, no request takes the last tag away.
        "device: {hostname: orders}, ownership: {tags: AtLeast}"
    } else {
        "device: {hostname: orders}"
    };
    format!(
        "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
         metadata: {{name: orders, namespace: {namespace}}}, spec: {{{by}, {spec}}}}}"
    )
}

async fn prepare(kubectl: &Kubectl) {
    kubectl.install_crds().await;
    for namespace in ["network", "db", "elsewhere"] {
        kubectl.ok(&["create", "namespace", namespace]).await;
    }
    kubectl.ok(&["label", "namespace", "db", "team=db"]).await;
    // With an empty value, which is not an absent one.
    kubectl
        .ok(&["label", "namespace", "elsewhere", "team="])
        .await;
}

const DRY_RUN: [&str; 4] = ["apply", "--dry-run=server", "-f", "-"];

#[tokio::test]
async fn policies_that_a_tailnet_denies_are_refused_at_apply() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);
    prepare(&kubectl).await;
    // It is there before the rule, and the rule denies it.
    kubectl
        .apply(&policy("elsewhere", "authorized: true"))
        .await;

    kubectl.apply(&admission(TAILNET)).await;

    // The rule takes a moment to come into force.
    eventually(Duration::from_secs(30), async || {
        let denied = policy("db", "authorized: true");
        let output = kubectl.run(&DRY_RUN, &denied).await;
        if output.status.success() {
            Err("not refused yet")
        } else {
            Ok(())
        }
    })
    .await;
    for (namespace, spec, words) in POLICIES {
        let output = kubectl.run(&DRY_RUN, &policy(namespace, spec)).await;
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.success(),
            words.is_empty(),
            "{spec}: {message}"
        );
        assert!(message.contains(words), "{spec}: {message}");
        // One error at a time: a policy of a namespace without a rule has no error for each field.
        let denials = message.matches("allowedPolicies").count();
        assert_eq!(denials, usize::from(!words.is_empty()), "{spec}: {message}");
    }
    // What is there can be labelled and deleted, and its spec cannot be changed.
    let existing = ["tsdp", "orders", "-n", "elsewhere"];
    kubectl
        .ok(&[&["label"], &existing[..], &["reviewed=yes"]].concat())
        .await;
    let edit = [
        "--type=merge",
        "-p",
        r#"{"spec": {"authorized": null, "keyExpiry": "Disabled"}}"#,
    ];
    kubectl
        .refused(&[&["patch"], &existing[..], &edit].concat())
        .await;
    kubectl.ok(&[&["delete"], &existing[..]].concat()).await;
    // The API server finds no fault in the expressions themselves.
    let found = kubectl
        .get(&["validatingadmissionpolicy", "tsdp-default"])
        .await;
    let warnings = &found["status"]["typeChecking"]["expressionWarnings"];
    assert!(warnings.is_null(), "{warnings}");
}

#[test]
fn manifests_without_a_tailnet_are_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_tsdp"))
        .args(["admission", "-f", "deploy/examples/fra-router.yaml"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("the manifests have no TailscaleTailnet"),
        "{message}"
    );
}
