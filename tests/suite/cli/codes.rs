//! Exit codes that a pipeline can trust: nothing that is missing or ignored looks like a tailnet in sync.

use std::fs;

use serde_json::json;

use super::tailnet::{EXAMPLES, Ran, Tailnet, demo_devices};

fn policy(name: &str, device: &str) -> String {
    format!(
        "---\napiVersion: tailnet.dev/v1alpha1\nkind: TailscaleDevicePolicy\n\
         metadata: {{name: {name}}}\nspec: {{device: {device}, keyExpiry: Enabled}}\n"
    )
}

fn fails_with(ran: &Ran, message: &str) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains(message), "{message}: {}", ran.err);
}

/// One device without anything to change, and two of one name.
async fn three_devices() -> Tailnet {
    Tailnet::of(vec![
        json!({"hostname": "router", "name": "router.tail1.ts.net"}),
        json!({"hostname": "twin", "name": "twin.tail1.ts.net"}),
        json!({"hostname": "twin", "name": "twin-1.tail1.ts.net"}),
    ])
    .await
}

#[tokio::test]
async fn a_policy_without_its_device_fails_plan_and_apply() {
    let tailnet = three_devices().await;
    for command in [&["plan"][..], &["apply", "--yes"]] {
        let run = async |more: &[&str], policies: &str| {
            let args = [command, &["-f", "-"], more].concat();
            tailnet.run_with(&args, policies).await
        };
        let found = policy("found", "{hostname: router}");
        run(&[], &found).await.ok();
        let policies = found.clone()
            + &policy("gone", "{hostname: gone}")
            + &policy("double", "{hostname: twin}");
        let ran = run(&[], &policies).await;
        let named = "found no device for 2 policies: default/gone, default/double.";
        fails_with(&ran, named);
        assert!(ran.err.trim_end().lines().last().unwrap().contains(named));
        let ran = run(&["--allow-missing"], &policies).await;
        assert!(!ran.err.contains("found no device"), "{}", ran.err);
        ran.ok();
    }
}

#[tokio::test]
async fn the_other_changes_are_made_before_a_missing_device_fails_apply() {
    let tailnet = Tailnet::of(vec![
        json!({"hostname": "router", "name": "router.tail1.ts.net", "keyExpiryDisabled": true}),
    ])
    .await;
    let policies = policy("found", "{hostname: router}") + &policy("gone", "{hostname: gone}");
    // One of one device is over the limit of 10%.
    let args = ["apply", "-f", "-", "--yes", "--max-changed-devices", "100%"];
    let ran = tailnet.run_with(&args, &policies).await;
    fails_with(&ran, "found no device for 1 policy: default/gone.");
    assert!(ran.out.ends_with("1 change made.\n"), "{}", ran.out);
}

#[tokio::test]
async fn no_policy_to_read_is_an_error() {
    let tailnet = three_devices().await;
    fs::create_dir(tailnet.path("empty")).unwrap();
    fs::write(tailnet.path("comment.yaml"), "# nothing\n").unwrap();
    for command in [&["plan"][..], &["apply", "--yes"]] {
        for path in ["empty", "comment.yaml", "-"] {
            let args = [command, &["-f", path]].concat();
            let ran = tailnet.run(&args).await;
            fails_with(&ran, &format!("found no policy in {path}. "));
            tailnet
                .run(&[&args[..], &["--allow-empty"]].concat())
                .await
                .ok();
        }
    }
}

#[tokio::test]
async fn a_misspelled_tailnet_is_an_error() {
    let tailnet = Tailnet::of(demo_devices()).await;
    for command in [&["plan"][..], &["apply", "--yes"], &["devices"]] {
        let args = [command, &["-f", EXAMPLES, "--tailnet-ref", "defualt"]].concat();
        let message =
            "--tailnet-ref defualt: no policy belongs to this TailscaleTailnet, only to default";
        fails_with(&tailnet.run(&args).await, message);
    }
}

#[tokio::test]
async fn a_saved_plan_among_manifests_is_an_error() {
    let tailnet = Tailnet::demo().await;
    let save = ["plan", "-f", EXAMPLES, "--out", "plan.json"];
    tailnet.run(&save).await.with_code(2);
    let saved = fs::read_to_string(tailnet.path("plan.json")).unwrap();
    fs::write(
        tailnet.path("more.yaml"),
        policy("more", "{hostname: fra-router}"),
    )
    .unwrap();
    let message = "this is a plan that tsdp plan --out saved";
    for args in [
        &["plan", "-f", "plan.json"][..],
        &["plan", "-f", "-"],
        &["apply", "--yes", "-f", "-"],
        &["apply", "--yes", "-f", "plan.json", "-f", "more.yaml"],
        &["validate", "plan.json"],
    ] {
        let mut ran = tailnet.run_with(args, &saved).await;
        // validate reports on stdout.
        ran.err += &ran.out;
        fails_with(&ran, message);
        let help = ran.err.to_lowercase();
        assert!(
            help.contains("run tsdp apply with this file alone"),
            "{help}"
        );
    }
}

#[tokio::test]
async fn a_saved_plan_takes_no_arguments_about_manifests() {
    let tailnet = Tailnet::demo().await;
    let save = ["plan", "-f", EXAMPLES, "--out", "plan.json"];
    tailnet.run(&save).await.with_code(2);
    for more in [
        ["--prune-from", EXAMPLES],
        ["--tailnet-ref", "default"],
        ["-n", "network"],
        ["--controller-namespace", "network"],
    ] {
        let ran = tailnet
            .run(&[&["apply", "--yes", "-f", "plan.json"][..], &more].concat())
            .await;
        fails_with(&ran, "plan.json is a saved plan, which has its policies");
        let ran = tailnet
            .run(&[&["apply", "--yes", "plan.json"][..], &more].concat())
            .await;
        fails_with(&ran, "cannot be used with");
    }
}

#[tokio::test]
async fn a_document_that_is_no_object_is_an_error() {
    let tailnet = three_devices().await;
    let valid = policy("found", "{hostname: router}");
    for (document, message) in [
        ("replicas: 3\n", "apiVersion and kind are missing"),
        ("apiVersion: v1\n", "kind is missing"),
        ("kind: ConfigMap\n", "apiVersion is missing"),
        ("[{\"kind\": \"x\"}]\n", "found a list, expected an object"),
        ("hello\n", "found a single value, expected an object"),
    ] {
        let ran = tailnet
            .run_with(&["plan", "-f", "-"], &format!("{valid}---\n{document}"))
            .await;
        fails_with(&ran, message);
    }
    // kustomize lets these fields be left out.
    fs::create_dir(tailnet.path("folder")).unwrap();
    fs::write(tailnet.path("folder/found.yaml"), valid).unwrap();
    let kustomization = "resources: [found.yaml]\n";
    fs::write(tailnet.path("folder/kustomization.yaml"), kustomization).unwrap();
    tailnet.run(&["plan", "-f", "folder"]).await.ok();
}

#[tokio::test]
async fn the_errors_of_manifests_have_a_line_for_the_problem_and_one_for_the_remedy() {
    let tailnet = Tailnet::of(Vec::new()).await;
    let manifest = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, metadata: {name: nas}, spec: \
                    {device: {hostname: nas}, tags: [nas], tag: []}}";
    fs::write(tailnet.path("a.yaml"), manifest).unwrap();
    let plan = tailnet.run(&["plan", "-f", "a.yaml"]).await;
    let apply = tailnet.run(&["apply", "-f", "a.yaml", "--yes"]).await;
    assert_eq!((plan.code, &plan.err), (Some(1), &apply.err));
    insta::assert_snapshot!(plan.err, @r"
    tsdp: the manifests are not valid (tsdp validate shows the lines):
    error: a.yaml:1:127: spec.tags[0]: 'nas' is not a valid tag
    help: write tag:nas
    error: a.yaml:1:133: spec.tag: unknown field
    help: did you mean tags?
    ");
}
