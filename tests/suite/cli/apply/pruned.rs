use std::{path::Path, process::Command};

use super::*;

pub(super) fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
         metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
    )
}

const BEFORE: &str = "postureAttributes: {custom:a: {string: x}, custom:b: {string: z}}";
pub(super) const AFTER: &str = "postureAttributes: {custom:a: {string: x}}";

/// A policy for one device and one for a fleet, with these attributes.
pub(super) fn policies(attributes: &str) -> String {
    policy(
        "one",
        &format!("device: {{hostname: fra-router}}, {attributes}"),
    ) + &policy(
        "fleet",
        &format!("deviceSelector: {{tags: [\"tag:old\"]}}, {attributes}"),
    )
}

/// A tailnet whose policies declared two attributes, which were set, and now declare one.
pub(super) async fn edited() -> Tailnet {
    let tailnet = Tailnet::demo().await;
    let gateway = node(&tailnet, "old-gateway");
    let tags = json!({"tags": ["tag:old"]});
    tailnet.simulator.patch_device(&gateway, &tags).unwrap();
    fs::create_dir(tailnet.path("now")).unwrap();
    fs::write(tailnet.path("now/a.yaml"), policies(BEFORE)).unwrap();
    tailnet.run(&["apply", "-f", "now", "--yes"]).await.ok();
    tailnet
}

fn edit(tailnet: &Tailnet) {
    fs::write(tailnet.path("now/a.yaml"), policies(AFTER)).unwrap();
}

pub(super) fn git(folder: &Path, args: &[&str]) {
    let ran = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.com"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

/// Plans and applies the pruning of keys that this earlier version declared.
async fn prunes(tailnet: &Tailnet, from: &str) {
    let args = ["-f", "now", "--prune-from", from];
    let out = tailnet
        .run(&[&["plan"], &args[..]].concat())
        .await
        .with_code(2);
    assert_eq!(out.matches("no longer declared").count(), 2, "{out}");
    assert!(out.contains("\n2 changes on 2 devices "), "{out}");
    let out = tailnet
        .run(&[&["apply", "--yes"], &args[..]].concat())
        .await
        .ok();
    assert!(
        out.contains("postureAttributes[custom:b]: \"z\" → none"),
        "{out}"
    );
    assert!(out.ends_with("\n2 changes made.\n"), "{out}");
    for hostname in ["fra-router", "old-gateway"] {
        let attributes = device(tailnet, hostname)["attributes"].clone();
        assert_eq!(attributes["custom:a"], "x", "{attributes}");
        assert!(attributes.get("custom:b").is_none(), "{attributes}");
    }
    tailnet.run(&[&["plan"], &args[..]].concat()).await.ok();
}

#[tokio::test]
async fn keys_that_are_no_longer_declared_are_deleted_if_an_earlier_folder_declares_them() {
    let tailnet = edited().await;
    fs::create_dir(tailnet.path("then")).unwrap();
    fs::copy(tailnet.path("now/a.yaml"), tailnet.path("then/a.yaml")).unwrap();
    edit(&tailnet);
    // Without the earlier folder, the key is unknown.
    tailnet.run(&["plan", "-f", "now"]).await.ok();
    prunes(&tailnet, "then").await;
}

#[tokio::test]
async fn keys_that_are_no_longer_declared_are_deleted_if_a_git_revision_declares_them() {
    let tailnet = edited().await;
    let folder = tailnet.folder.path();
    git(folder, &["init", "--quiet"]);
    git(folder, &["add", "now"]);
    git(folder, &["commit", "--quiet", "-m", "before"]);
    edit(&tailnet);
    fs::write(tailnet.path("now/.hidden.yaml"), "no: [manifest").unwrap();
    git(folder, &["add", "now"]);
    git(folder, &["commit", "--quiet", "-m", "after"]);
    for (from, message) in [
        ("no-such-revision", "git finds no such revision"),
        ("HEAD~7", "git finds no such revision"),
    ] {
        let args = ["plan", "-f", "now", "--prune-from", from];
        let ran = tailnet.run(&args).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains(message), "{}", ran.err);
    }
    tailnet
        .run(&["plan", "-f", "now", "--prune-from", "HEAD"])
        .await
        .ok();
    prunes(&tailnet, "HEAD~1").await;
}

#[tokio::test]
async fn a_saved_plan_records_keys_that_were_declared() {
    let tailnet = edited().await;
    fs::copy(tailnet.path("now/a.yaml"), tailnet.path("then.yaml")).unwrap();
    edit(&tailnet);
    let args = [
        "plan",
        "-f",
        "now",
        "--prune-from",
        "then.yaml",
        "--out",
        "plan.json",
    ];
    tailnet.run(&args).await.with_code(2);
    let out = tailnet.run(&["apply", "plan.json", "--yes"]).await.ok();
    assert!(out.ends_with("\n2 changes made.\n"), "{out}");
}

#[tokio::test]
async fn keys_of_another_device_or_of_a_deleted_policy_stay() {
    let tailnet = edited().await;
    fs::copy(tailnet.path("now/a.yaml"), tailnet.path("then.yaml")).unwrap();
    let other = policy(
        "one",
        &format!("device: {{hostname: lobby-kiosk}}, {AFTER}"),
    );
    fs::write(tailnet.path("now/a.yaml"), other).unwrap();
    let args = ["apply", "-f", "now", "--prune-from", "then.yaml", "--yes"];
    let ran = tailnet.run(&args).await;
    assert!(
        ran.err.contains("default/fleet is gone. Its settings stay"),
        "{}",
        ran.err
    );
    assert!(ran.ok().ends_with("\n1 change made.\n"));
    for hostname in ["fra-router", "old-gateway"] {
        assert_eq!(device(&tailnet, hostname)["attributes"]["custom:b"], "z");
    }
}

/// Gives the device tags and its own value of the key that is dropped.
fn give(tailnet: &Tailnet, hostname: &str, tags: &[&str]) {
    let id = node(tailnet, hostname);
    let change = json!({"tags": tags, "attributes": {"custom:b": "human"}});
    tailnet.simulator.patch_device(&id, &change).unwrap();
}

#[tokio::test]
async fn a_key_is_pruned_only_on_devices_that_the_earlier_manifest_targeted() {
    let tailnet = edited().await;
    give(&tailnet, "lobby-kiosk", &["tag:new"]);
    fs::copy(tailnet.path("now/a.yaml"), tailnet.path("then.yaml")).unwrap();
    let moved = policy(
        "fleet",
        &format!("deviceSelector: {{tags: [\"tag:new\"]}}, {AFTER}"),
    );
    fs::write(tailnet.path("now/a.yaml"), moved).unwrap();
    let args = ["apply", "-f", "now", "--prune-from", "then.yaml", "--yes"];
    tailnet.run(&args).await.ok();
    let kiosk = device(&tailnet, "lobby-kiosk")["attributes"].clone();
    assert_eq!(
        (&kiosk["custom:a"], &kiosk["custom:b"]),
        (&json!("x"), &json!("human"))
    );
    // A policy for one device may become one for many. The device stays the same.
    let both = policy(
        "one",
        &format!(
            "deviceSelector: {{hostnames: [\"fra-router\", \"lobby-kiosk\"], trustClaims: true}}, {AFTER}"
        ),
    );
    fs::write(tailnet.path("now/a.yaml"), both).unwrap();
    let out = tailnet.run(&args).await.ok();
    assert!(
        out.contains("postureAttributes[custom:b]: \"z\" → none"),
        "{out}"
    );
    assert_eq!(
        device(&tailnet, "lobby-kiosk")["attributes"]["custom:b"],
        "human"
    );
}

#[tokio::test]
async fn nothing_is_pruned_under_another_tailnet_ref() {
    let tailnet = edited().await;
    fs::copy(tailnet.path("now/a.yaml"), tailnet.path("then.yaml")).unwrap();
    let moved = policies(&format!("tailnetRef: {{name: other}}, {AFTER}"));
    fs::write(tailnet.path("now/a.yaml"), moved).unwrap();
    let args = ["plan", "-f", "now", "--prune-from", "then.yaml"];
    let ran = tailnet.run(&args).await;
    assert!(
        ran.err
            .contains("default/one had the tailnetRef default and now has other"),
        "{}",
        ran.err
    );
    ran.ok();
}

const DECLARED: &str = "keyExpiry: Disabled, enabledRoutes: [10.0.0.0/16], \
                        ownership: {enabledRoutes: AtLeast}, postureAttributes: {custom:a: {string: x}}";

/// fra-router with all fields of a policy that declares only `keep` now.
async fn reverted(deletion: &str, keep: &str) -> Tailnet {
    let tailnet = Tailnet::demo().await;
    let of = |fields: &str| {
        let spec =
            format!("device: {{hostname: fra-router}}, deletionPolicy: {deletion}, {fields}");
        policy("one", &spec)
    };
    fs::create_dir(tailnet.path("now")).unwrap();
    fs::write(tailnet.path("now/a.yaml"), of(DECLARED)).unwrap();
    tailnet.run(&["apply", "-f", "now", "--yes"]).await.ok();
    fs::copy(tailnet.path("now/a.yaml"), tailnet.path("then.yaml")).unwrap();
    fs::write(tailnet.path("now/a.yaml"), of(keep)).unwrap();
    tailnet
}

const REVERTED: [&str; 5] = ["plan", "-f", "now", "--prune-from", "then.yaml"];

#[tokio::test]
async fn a_removed_field_stays_as_it_is_under_retain() {
    let tailnet = reverted("Retain", "tags: [\"tag:router\"]").await;
    let out = tailnet.run(&REVERTED).await.ok();
    insta::assert_snapshot!(out, @r###"
fra-router: keyExpiry (Disabled) released: stays as it is (was declared by default/one)
fra-router: enabledRoutes (10.0.0.0/16,192.168.0.0/24) released: stays as it is (was declared by default/one)
fra-router: postureAttributes[custom:a] released: stays as it is (was declared by default/one)

Nothing to change, 3 released; 1 policy, 8 devices in the tailnet.
"###);
    let out = tailnet
        .run(&[&REVERTED[..], &["-o", "markdown"]].concat())
        .await
        .ok();
    insta::assert_snapshot!(out, @r#"
    ### tsdp plan

    Nothing to change, 3 released; 1 policy, 8 devices in the tailnet.

    - fra-router: keyExpiry (Disabled) released: stays as it is (was declared by default/one)
    - fra-router: enabledRoutes (10.0.0.0/16,192.168.0.0/24) released: stays as it is (was declared by default/one)
    - fra-router: postureAttributes\[custom:a\] released: stays as it is (was declared by default/one)
    "#);
    let out = tailnet
        .run(&[&REVERTED[..], &["-o", "json"]].concat())
        .await
        .ok();
    let mut plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(plan["totals"]["released"], 3);
    assert_eq!(plan["totals"]["changes"], 0);
    for setting in plan["released"].as_array_mut().unwrap() {
        setting["nodeId"].take();
    }
    insta::assert_snapshot!(serde_json::to_string_pretty(&plan["released"]).unwrap(), @r###"
[
  {
    "device": "fra-router",
    "field": "keyExpiry",
    "nodeId": null,
    "outcome": "released: stays as it is",
    "policy": "default/one",
    "value": "Disabled"
  },
  {
    "device": "fra-router",
    "field": "enabledRoutes",
    "nodeId": null,
    "outcome": "released: stays as it is",
    "policy": "default/one",
    "value": "10.0.0.0/16,192.168.0.0/24"
  },
  {
    "device": "fra-router",
    "field": "postureAttributes[custom:a]",
    "nodeId": null,
    "outcome": "released: stays as it is",
    "policy": "default/one"
  }
]
"###);
    // A policy that declares the field takes it over.
    let other = policy("two", "device: {hostname: fra-router}, keyExpiry: Disabled");
    fs::write(tailnet.path("now/b.yaml"), other).unwrap();
    let out = tailnet.run(&REVERTED).await.ok();
    assert!(!out.contains("keyExpiry"), "{out}");
}

#[tokio::test]
async fn a_removed_field_is_cleared_under_clear() {
    let tailnet = reverted("Clear", "tags: [\"tag:router\"]").await;
    let id = node(&tailnet, "fra-router");
    let before = tailnet.simulator.device(&id).unwrap();
    assert_eq!(before["attributes"]["custom:a"], "x");
    let out = tailnet.run(&REVERTED).await.with_code(2);
    insta::assert_snapshot!(out, @r#"
    DEVICES     SETTING        CHANGE
    fra-router  enabledRoutes  -10.0.0.0/16  (disruptive: withdraws 10.0.0.0/16; released by default/one)
    fra-router  postureAttributes[custom:a]  "x" → none  (released by default/one)

    fra-router: keyExpiry (Disabled) released: stays as it is (was declared by default/one)

    2 changes on 1 device (1 disruptive), 1 released; 1 policy, 8 devices in the tailnet.
    "#);
    let saved = [&REVERTED[..], &["--out", "plan.json"]].concat();
    tailnet.run(&saved).await.with_code(2);
    let out = tailnet.run(&["apply", "plan.json", "--yes"]).await.ok();
    assert!(out.ends_with("\n2 changes made.\n"), "{out}");
    let now = tailnet.simulator.device(&id).unwrap();
    assert!(now["attributes"].get("custom:a").is_none(), "{now}");
    assert_eq!(now["keyExpiryDisabled"], true);
    let routes = now["enabledRoutes"].as_array().unwrap();
    assert!(!routes.contains(&json!("10.0.0.0/16")), "{now}");
    tailnet.run(&REVERTED).await.ok();
}
