//! `tsdp validate --online`: manifests are compared with a tailnet.

use std::fs;

use serde_json::{Value, json};
use tsdp::simulator::{FaultKind, FaultSpec};

use super::tailnet::{API_KEY, Ran, Tailnet};

const TAILNET: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleTailnet
metadata: {name: default}
spec:
  credentialsSecret: {name: tailscale}
  allowedPolicies: [{}]
  protectedDevices: [{tags: [\"tag:server\"]}, {tags: [\"tag:severs\"]}]
";

const POLICIES: &str = "\
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: typo, namespace: network}
spec: {device: {hostname: fra-ruter}, authorized: true}
---
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: twins, namespace: network}
spec: {device: {hostname: twin}, authorized: true}
---
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: servers, namespace: network}
spec:
  deviceSelector: {tags: [\"tag:servers\"], os: [linux]}
  tags: [\"tag:servers\", \"tag:future\", \"tag:server\"]
---
apiVersion: tailnet.dev/v1alpha1
kind: TailscaleDevicePolicy
metadata: {name: fine, namespace: network}
spec: {device: {hostname: fra-router}, authorized: true}
";

/// A router, two devices of one name, and two servers; `tag:future` is defined and not used yet.
pub(super) async fn tailnet() -> Tailnet {
    let device = |node: &str, hostname: &str, tags: &[&str]| -> Value {
        json!({
            "nodeId": node, "hostname": hostname, "name": format!("{node}.example.ts.net"), "os": "linux",
            "user": "amelie@example.com", "tags": tags, "authorized": true,
        })
    };
    let tailnet = Tailnet::with_policy_file(
        vec![
            device("n1CNTRL", "fra-router", &[]),
            device("n2CNTRL", "twin", &[]),
            device("n3CNTRL", "twin", &[]),
            device("n4CNTRL", "web-1", &["tag:server"]),
            device("n5CNTRL", "web-2", &["tag:server"]),
        ],
        r#"{"tagOwners": {"tag:server": ["autogroup:admin"], "tag:future": ["autogroup:admin"]}}"#,
    )
    .await;
    fs::write(tailnet.path("policies.yaml"), POLICIES).unwrap();
    fs::write(tailnet.path("tailnet.yaml"), TAILNET).unwrap();
    tailnet
}

pub(super) const ONLINE: [&str; 6] = [
    "validate",
    "-f",
    "policies.yaml",
    "-f",
    "tailnet.yaml",
    "--online",
];

#[tokio::test]
async fn what_the_tailnet_does_not_have_is_a_warning() {
    let tailnet = tailnet().await;
    let ran = tailnet.run(&ONLINE).await;
    insta::assert_snapshot!(ran.err, @"valid, with 5 warnings (5 objects in 2 files)");
    insta::assert_snapshot!(ran.ok(), @r#"
warning[no-device]: no device has the hostname fra-ruter
 --> policies.yaml:4:27
  |
4 | spec: {device: {hostname: fra-ruter}, authorized: true}
  |                           ^^^^^^^^^
  |
  = TailscaleDevicePolicy network/typo, spec.device.hostname
  = help: did you mean fra-router?

warning[ambiguous-device]: several devices have the hostname twin
 --> policies.yaml:9:27
  |
9 | spec: {device: {hostname: twin}, authorized: true}
  |                           ^^^^
  |
  = TailscaleDevicePolicy network/twins, spec.device.hostname
  = help: set spec.device.nodeId to one of n2CNTRL, n3CNTRL

warning[no-device]: no device matches its deviceSelector: no device has tag:servers
  --> policies.yaml:15:3
   |
15 |   deviceSelector: {tags: ["tag:servers"], os: [linux]}
   |   ^^^^^^^^^^^^^^
   |
   = TailscaleDevicePolicy network/servers, spec.deviceSelector
   = help: did you mean tag:server (2 devices)?

warning[unknown-tag]: no device has tag:servers, nor is it in tagOwners of the policy file
  --> policies.yaml:16:10
   |
16 |   tags: ["tag:servers", "tag:future", "tag:server"]
   |          ^^^^^^^^^^^^^
   |
   = TailscaleDevicePolicy network/servers, spec.tags[0]
   = help: did you mean tag:server? If not, correct it, or add it to tagOwners

warning[no-device]: protects no device: no device has a tag like tag:severs
 --> tailnet.yaml:7:46
  |
7 |   protectedDevices: [{tags: ["tag:server"]}, {tags: ["tag:severs"]}]
  |                                              ^
  |
  = TailscaleTailnet default, spec.protectedDevices[1]
  = help: did you mean tag:server (2 devices)?

"#);
    // One list, and the policy file because a tag is on no device. Nothing is sent.
    assert_eq!(
        tailnet.requests(),
        ["GET /tailnet/-/devices?fields=all", "GET /tailnet/-/acl"]
    );
    // Without the flag, nothing is read.
    let offline = tailnet.run(&ONLINE[..5]).await;
    assert_eq!(offline.ok(), "");
    assert!(tailnet.requests().is_empty());
}

#[tokio::test]
async fn a_policy_file_that_cannot_be_read_is_no_error() {
    let tailnet = tailnet().await;
    let fault = FaultSpec {
        path: Some("/api/v2/tailnet/*/acl".to_owned()),
        status: Some(403),
        body: Some(json!({"message": "calling actor does not have enough permissions"})),
        ..FaultSpec::new(FaultKind::Status)
    };
    tailnet.simulator.inject(fault).unwrap();
    let out = tailnet.run(&ONLINE).await.ok();
    for tag in ["tag:servers", "tag:future"] {
        let text = format!("no device has {tag}, and the policy file cannot be read");
        assert!(out.contains(&text), "{out}");
    }
}

#[tokio::test]
async fn invalid_manifests_and_unreadable_tailnets_are_errors() {
    let tailnet = tailnet().await;
    let bad = POLICIES.replace("authorized: true", "authorised: true");
    fs::write(tailnet.path("bad.yaml"), bad).unwrap();
    let ran = tailnet
        .run(&["validate", "-f", "bad.yaml", "--online"])
        .await;
    let out = ran.with_code(1);
    assert!(
        out.contains("unknown-field") && !out.contains("no-device"),
        "{out}"
    );
    assert!(
        tailnet.requests().is_empty(),
        "an invalid manifest needs no tailnet"
    );

    let mut refused = tailnet.tsdp(&ONLINE);
    refused.env("TAILSCALE_API_KEY", API_KEY.replace("cli", "old"));
    let refused = Ran::from(refused.output().await.unwrap());
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(
        refused.err.contains("valid (5 objects in 2 files)"),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("API token invalid"), "{}", refused.err);

    let other = POLICIES.replace(
        "spec: {device: {hostname: twin}",
        "spec: {tailnetRef: {name: lab}, device: {hostname: twin}",
    );
    fs::write(tailnet.path("policies.yaml"), other).unwrap();
    let ran = tailnet.run(&ONLINE).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("--tailnet-ref"), "{}", ran.err);
    let chosen = [&ONLINE[..], &["--tailnet-ref", "default"]].concat();
    let out = tailnet.run(&chosen).await.ok();
    assert!(
        out.contains("fra-ruter") && !out.contains("ambiguous-device"),
        "{out}"
    );
}
