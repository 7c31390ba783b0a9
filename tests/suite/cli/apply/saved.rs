use super::*;

const APPLY: [&str; 3] = ["apply", "plan.json", "--yes"];

async fn keep(tailnet: &Tailnet) -> Value {
    let args = ["plan", "-f", EXAMPLES, "--out", "plan.json"];
    tailnet.run(&args).await.with_code(2);
    let text = fs::read_to_string(tailnet.path("plan.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn write(tailnet: &Tailnet, plan: &Value) {
    fs::write(tailnet.path("plan.json"), plan.to_string()).unwrap();
}

/// Applies the plan, checks that nothing is sent, and returns the error.
async fn refused(tailnet: &Tailnet) -> String {
    tailnet.requests();
    let ran = tailnet.run(&APPLY).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(writes(tailnet), [""; 0]);
    ran.err
}

#[tokio::test]
async fn a_saved_plan_is_applied_as_shown() {
    let tailnet = Tailnet::demo().await;
    keep(&tailnet).await;
    // The saved plan counts, not the present manifests.
    fs::remove_dir_all(tailnet.path(EXAMPLES)).unwrap();
    let ran = tailnet.run(&APPLY).await;
    assert!(ran.err.contains(" seconds ago by tsdp "), "{}", ran.err);
    let out = ran.ok();
    assert!(
        out.contains("\n18 changes on 6 devices (8 disruptive); "),
        "{out}"
    );
    assert!(out.ends_with("\n18 changes made.\n"), "{out}");
    // After the apply, the tailnet is no longer in the state of the plan.
    let message = refused(&tailnet).await;
    assert!(
        message.contains("the tailnet has changed since"),
        "{message}"
    );
}

#[tokio::test]
async fn a_saved_plan_is_recognized_by_its_format() {
    let tailnet = Tailnet::demo().await;
    keep(&tailnet).await;
    let ran = tailnet.run(&["apply", "-f", "plan.json", "--yes"]).await;
    assert!(ran.ok().ends_with("\n18 changes made.\n"));
    let ran = tailnet.run(&["apply", EXAMPLES, "--yes"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("Add -f examples"), "{}", ran.err);
    let ran = tailnet.run(&["apply", "absent.json", "--yes"]).await;
    assert!(ran.err.contains("cannot read absent.json"), "{}", ran.err);
}

#[tokio::test]
async fn a_saved_plan_is_refused_if_one_of_its_devices_changed() {
    let tailnet = Tailnet::demo().await;
    keep(&tailnet).await;
    let router = node(&tailnet, "fra-router");
    let patch = |patch: Value| tailnet.simulator.patch_device(&router, &patch).unwrap();
    let before = device(&tailnet, "fra-router");
    patch(json!({"enabledRoutes": [], "keyExpiryDisabled": true}));
    let message = refused(&tailnet).await;
    assert!(
        message.contains("\n  fra-router: enabledRoutes, keyExpiry\n"),
        "{message}"
    );
    patch(json!({
        "enabledRoutes": before["enabledRoutes"], "keyExpiryDisabled": before["keyExpiryDisabled"],
        "lastSeen": "2026-01-01T00:00:00Z",
    }));
    let gateway = node(&tailnet, "old-gateway");
    tailnet.simulator.remove_device(&gateway).unwrap();
    let message = refused(&tailnet).await;
    assert!(
        message.contains(&format!("old-gateway ({gateway}) is gone")),
        "{message}"
    );
    assert!(!message.contains("fra-router:"), "{message}");
}

#[tokio::test]
async fn a_plan_that_was_edited_or_is_not_for_this_program_or_tailnet_is_refused() {
    let tailnet = Tailnet::demo().await;
    let plan = keep(&tailnet).await;
    let mut edited = plan.clone();
    edited["policies"][0]["spec"]["priority"] = json!(7);
    write(&tailnet, &edited);
    assert!(refused(&tailnet).await.contains("plan.json was edited"));

    let mut edited = plan.clone();
    edited["changes"].as_array_mut().unwrap().pop();
    write(&tailnet, &edited);
    assert!(
        refused(&tailnet)
            .await
            .contains("ask for other changes than the plan")
    );

    let mut edited = plan.clone();
    edited["maxChangedDevices"] = json!("1");
    write(&tailnet, &edited);
    assert!(
        refused(&tailnet)
            .await
            .contains("ask for other changes than the plan")
    );

    let mut newer = plan.clone();
    newer["format"] = json!(99);
    newer["madeBy"] = json!("tsdp 9.0.0");
    write(&tailnet, &newer);
    let message = refused(&tailnet).await;
    assert!(
        message.contains("a plan of format 99, made by tsdp 9.0.0"),
        "{message}"
    );

    write(&tailnet, &plan);
    let other = Tailnet::of(vec![json!({"hostname": "a", "name": "a.tail9.ts.net"})]).await;
    write(&other, &plan);
    let message = refused(&other).await;
    assert!(message.contains("and this is tail9.ts.net"), "{message}");
    assert!(
        tailnet
            .run(&APPLY)
            .await
            .ok()
            .ends_with("\n18 changes made.\n")
    );
}

#[tokio::test]
async fn the_limit_of_a_saved_plan_is_approved_like_that_of_manifests() {
    let tailnet = Tailnet::large().await;
    fs::write(tailnet.path("a.yaml"), servers("keyExpiry: Enabled")).unwrap();
    let args = ["plan", "-f", "a.yaml", "--out", "plan.json"];
    tailnet.run(&args).await.with_code(2);
    let out = tailnet.run(&APPLY).await.with_code(2);
    assert!(
        out.ends_with("No change now, 75 held; 1 policy, 299 devices in the tailnet.\n"),
        "{out}"
    );
    let args = [&APPLY[..], &["--max-changed-devices", "100%"]].concat();
    assert!(
        tailnet
            .run(&args)
            .await
            .ok()
            .ends_with("\n75 changes made.\n")
    );
}

/// The guardrails are part of the saved plan, whatever the manifests say now.
#[tokio::test]
async fn the_guardrails_are_saved_with_the_plan_and_apply_to_it() {
    let devices = vec![
        json!({"hostname": "a", "tags": ["tag:server"], "keyExpiryDisabled": false}),
        json!({"hostname": "b", "tags": ["tag:server", "tag:never"], "keyExpiryDisabled": false}),
    ];
    let tailnet = Tailnet::of(devices).await;
    let guards = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, metadata: {name: default}, \
                  spec: {credentialsSecret: {name: tailscale}, maxChangedDevices: 100%, \
                  protectedDevices: [{tags: ['tag:never']}], \
                  allowedPolicies: [{namespaces: {matchLabels: {team: a}}, fields: [keyExpiry]}]}}\n---\n\
                  {apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {team: a}}}";
    let policy = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, metadata: {{name: {name}, \
             namespace: default}}, spec: {{deviceSelector: {{tags: [\"tag:server\"]}}, {spec}}}}}"
        )
    };
    let keys = policy("keys", "keyExpiry: Disabled");
    let refused = policy("exits", "exitNode: true");
    fs::write(
        tailnet.path("all.yaml"),
        format!("{guards}\n---\n{keys}\n---\n{refused}"),
    )
    .unwrap();
    let args = ["plan", "-f", "all.yaml", "--out", "plan.json"];
    tailnet.run(&args).await.with_code(2);
    let text = fs::read_to_string(tailnet.path("plan.json")).unwrap();
    let plan: Value = serde_json::from_str(&text).unwrap();
    let mut edited = plan.clone();
    edited["guardrails"]["tailnet"]["protectedDevices"] = json!([]);
    write(&tailnet, &edited);
    let ran = tailnet.run(&APPLY).await;
    assert!(ran.err.contains("plan.json was edited"), "{}", ran.err);
    write(&tailnet, &plan);
    tailnet.requests();
    let out = tailnet.run(&APPLY).await.with_code(2);
    assert!(out.ends_with("\n1 change made, 1 held.\n"), "{out}");
    assert!(
        out.contains("default/exits: not allowed: spec.exitNode"),
        "{out}"
    );
    assert_eq!(writes(&tailnet).len(), 1);
}
