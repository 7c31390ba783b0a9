use std::fs;

use serde_json::{Value, json};
use tsdp::simulator::{self, FaultKind, FaultSpec};

use super::tailnet::{API_KEY, EXAMPLES, NO_LIMIT, Ran, Tailnet, demo_devices};
use crate::docs::blocks;

/// A policy for all servers, in a tailnet without a limit of changed devices.
fn for_servers(spec: &str) -> String {
    format!("{NO_LIMIT}\n---\n{}", policy_for_servers(spec))
}

fn policy_for_servers(spec: &str) -> String {
    format!(
        "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
         metadata: {{name: servers}}, spec: {{deviceSelector: {{tags: [\"tag:server\"]}}, {spec}}}}}"
    )
}

async fn table(tailnet: &Tailnet, more: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = tailnet.tsdp(&[&["plan", "-f", EXAMPLES], more].concat());
    let command = command
        .env("COLUMNS", "110")
        .envs(variables.iter().copied());
    command.output().await.unwrap().into()
}

#[tokio::test]
async fn a_plan_shows_changes_reasons_and_disruptions() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let plain = table(&tailnet, &[], &[]).await.with_code(2);
    insta::assert_snapshot!(plain, @r#"
    DEVICES        SETTING        CHANGE
    ci-runner      tags           +tag:ci
                   (disruptive: takes the device from ci@example.com for good; declared by network/ci-runner)
    fra-router     enabledRoutes  +fd7a:10::/48 -192.168.0.0/24
                   (disruptive: withdraws 192.168.0.0/24; declared by network/fra-router)
    ip-10-0-3-7    tags           +tag:db
                   (disruptive: takes the device from ops@example.com for good; declared by network/orders-db)
    ip-10-0-3-7    ipv4           100.90.1.7 → 100.80.0.10
                   (disruptive: breaks connections to the old address; declared by network/orders-db)
    lobby-kiosk    authorized     true → false
                   (disruptive: takes the device out of the tailnet; declared by network/lobby-kiosk)
    lobby-kiosk    enabledRoutes  -10.9.0.0/24
                   (disruptive: withdraws 10.9.0.0/24; declared by network/lobby-kiosk)
    old-gateway    enabledRoutes  -172.16.0.0/12
                   (disruptive: withdraws 172.16.0.0/12; declared by network/old-gateway)
    old-gateway    exitNode       -0.0.0.0/0 -::/0
                   (disruptive: is no longer an exit node; declared by network/old-gateway)
    amelie-laptop  keyExpiry      Disabled → Enabled  (declared by network/amelie-laptop)
    amelie-laptop  postureAttributes[custom:audited]  none → true until 2035-01-01T00:00:00Z
                   (declared by network/amelie-laptop)
    amelie-laptop  postureAttributes[custom:patchLevel]  none → 12  (declared by network/amelie-laptop)
    amelie-laptop  postureAttributes[custom:tier]  "silver" → "gold"  (declared by network/amelie-laptop)
    ci-runner      authorized     false → true  (declared by network/ci-runner)
    fra-router     tags           +tag:fra  (declared by network/fra-router)
    fra-router     keyExpiry      Enabled → Disabled  (declared by network/fra-router)
    fra-router     exitNode       +0.0.0.0/0 +::/0  (declared by network/fra-router)
    ip-10-0-3-7    keyExpiry      Enabled → Disabled  (declared by network/orders-db)
    ip-10-0-3-7    name           ip-10-0-3-7 → orders-db  (declared by network/orders-db)

    18 changes on 6 devices (8 disruptive); 6 policies, 8 devices in the tailnet.
    "#);
    let requests = tailnet.requests();
    let lists = requests
        .iter()
        .filter(|request| request.contains("/devices"));
    assert_eq!(lists.count(), 1);
    let attributes = requests
        .iter()
        .filter(|request| request.ends_with("/attributes"));
    assert_eq!((attributes.count(), requests.len()), (1, 2), "{requests:?}");

    let always = ["--color", "always"];
    for (args, variables) in [
        (&["--color", "never"], &[][..]),
        (&["--color", "auto"], &[("NO_COLOR", "1")]),
    ] {
        let reported = table(&tailnet, args, variables).await.with_code(2);
        assert_eq!(reported, plain, "{args:?} {variables:?}");
    }
    let colored = table(&tailnet, &always, &[]).await.with_code(2);
    // What someone wrote takes precedence over a default for all programs.
    let despite = table(&tailnet, &always, &[("NO_COLOR", "1")]).await;
    assert_eq!(despite.with_code(2), colored);
    let lines = |text: &str, part: &str| -> String {
        let lines = text.lines().filter(|line| line.contains(part));
        lines.collect::<Vec<_>>().join("\n").replace('\u{1b}', "␛")
    };
    insta::assert_snapshot!(lines(&colored, "fra-router  "), @r#"
    fra-router     ␛[31menabledRoutes  +fd7a:10::/48 -192.168.0.0/24␛[39m
    fra-router     ␛[32mtags           +tag:fra  (declared by network/fra-router)␛[39m
    fra-router     ␛[32mkeyExpiry      Enabled → Disabled  (declared by network/fra-router)␛[39m
    fra-router     ␛[32mexitNode       +0.0.0.0/0 +::/0  (declared by network/fra-router)␛[39m
    "#);
}

#[tokio::test]
async fn on_a_terminal_a_plan_uses_its_width_and_colors() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let command = format!("tsdp plan -f {EXAMPLES}");
    let run = async |line: &str| {
        let screen = tailnet.on_terminal(line, 110, "").await.with_code(2);
        // The progress of the reads is shown for a moment and erased.
        screen
            .rsplit_once("\u{1b}[K")
            .map(|(_, text)| text.to_owned())
            .unwrap_or(screen)
    };
    let always = table(&tailnet, &["--color", "always"], &[])
        .await
        .with_code(2);
    assert_eq!(run(&command).await, always);
    let plain = table(&tailnet, &[], &[]).await.with_code(2);
    assert_eq!(run(&format!("NO_COLOR=1 {command}")).await, plain);
    assert_ne!(always, plain);
    let lines = plain.lines().map(|line| line.chars().count());
    assert!(lines.clone().all(|width| width <= 110) && lines.max() > Some(90));
}

#[tokio::test]
async fn the_exit_code_distinguishes_no_changes_changes_and_errors() {
    let tailnet = Tailnet::large().await;
    let plan = ["plan", "-f", "-"];
    let run = async |spec: &str| tailnet.run_with(&plan, &for_servers(spec)).await;

    let reported = run("keyExpiry: Disabled").await.ok();
    insta::assert_snapshot!(reported, @"Nothing to change; 1 policy, 299 devices in the tailnet.");
    let reported = run("postureAttributes: {custom:site: {string: a}}")
        .await
        .with_code(2);
    insta::assert_snapshot!(reported.lines().last().unwrap(), @"75 changes on 75 devices (0 disruptive); 1 policy, 299 devices in the tailnet.");
    let reported = run("authorized: false, allowDisruption: [Deauthorize]")
        .await
        .with_code(2);
    assert!(
        reported.contains("disruptive: takes the device out of the tailnet"),
        "{reported}"
    );
    // A policy that observes needs no approval, but its changes are shown.
    let reported = run("keyExpiry: Enabled, enforcement: Observe").await.ok();
    insta::assert_snapshot!(reported.lines().last().unwrap(), @"No change now, 75 only shown; 1 policy, 299 devices in the tailnet.");

    assert_eq!(run("keyExpiry: Off").await.code, Some(1));
    assert_eq!(tailnet.run(&["plan", "-f", "absent"]).await.code, Some(1));
    assert_eq!(tailnet.run(&["plan"]).await.code, Some(1));
    assert_eq!(tailnet.run(&["plan", "--no-such-flag"]).await.code, Some(1));
    tailnet
        .simulator
        .inject(FaultSpec::new(FaultKind::Html))
        .unwrap();
    assert_eq!(run("keyExpiry: Disabled").await.code, Some(1));
}

#[tokio::test]
async fn changes_over_the_limit_are_held_and_small_repairs_are_not() {
    let tailnet = Tailnet::large().await;
    let few = policy_for_servers("keyExpiry: Enabled")
        .replace("name: servers", "name: exits")
        .replace("tag:server", "tag:exit");
    let policies = policy_for_servers("keyExpiry: Enabled") + "\n---\n" + &few;
    let reported = tailnet.run_with(&["plan", "-f", "-"], &policies).await;
    let reported = reported.with_code(2);
    insta::assert_snapshot!(reported.lines().last().unwrap(), @"15 changes on 15 devices (0 disruptive), 75 held; 2 policies, 299 devices in the tailnet.");
    let held = "75 devices  keyExpiry  Disabled → Enabled  (held: 75 devices would change, the limit is 29 per hour";
    assert!(reported.contains(held), "{reported}");
}

#[tokio::test]
async fn held_changes_are_shown_with_what_to_do() {
    let devices = vec![
        json!({"hostname": "laptop", "name": "laptop.tail1.ts.net", "os": "macOS",
               "keyExpiryDisabled": true, "created": "2024-01-01T00:00:00Z",
               "expires": "2025-01-01T00:00:00Z"}),
        json!({"hostname": "other", "name": "other.tail1.ts.net", "addresses": ["100.80.0.1"]}),
    ];
    let tailnet = Tailnet::of(devices).await;
    let policy = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: tailnet.dev/v1alpha1\nkind: TailscaleDevicePolicy\n\
             metadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    let policies = policy(
        "fleet",
        "{deviceSelector: {os: [macOS], trustClaims: true}, tags: [\"tag:a\"], keyExpiry: Enabled}",
    ) + &policy("laptop", "{device: {hostname: laptop}, ipv4: 100.80.0.1}")
        + &policy("later", "{device: {hostname: laptop}, keyExpiry: Disabled}")
        + &policy("gone", "{device: {hostname: gone}, keyExpiry: Enabled}");
    let mut reported = tailnet
        .run_with(&["plan", "-f", "-", "--allow-missing"], &policies)
        .await
        .with_code(2);
    let other = tailnet.simulator.devices().unwrap();
    for device in &other {
        let node = device["nodeId"].as_str().unwrap();
        reported = reported.replace(node, device["hostname"].as_str().unwrap());
    }
    insta::assert_snapshot!(reported, @r#"
    DEVICES  SETTING    CHANGE
    laptop   tags       +tag:a  (held: the first tag takes the device from its user, and no request gives it back: write allowDisruption: [FirstTag] to allow it; declared by default/fleet)
    laptop   keyExpiry  Disabled → Enabled  (held: the key's expiry lies in the past, so the device would be cut off until someone logs in to it: write allowDisruption: [ExpiredKey] to allow it; declared by default/fleet)
    laptop   ipv4       100.64.0.1 → 100.80.0.1  (disruptive: breaks connections to the old address; held: other (other) has this address: give that device another address first; declared by default/laptop)

    default/gone: no device has the hostname gone
    default/later: overridden by default/fleet, which declares another keyExpiry for laptop. Edit one of the two

    No change now, 3 held (3 disruptive); 4 policies, 2 devices in the tailnet.
    "#);
}

#[tokio::test]
async fn json_and_markdown_show_the_same_plan() {
    let mut devices = demo_devices();
    devices[1]["attributes"]["custom:tier"] = json!("`| <b>@amelie");
    let tailnet = Tailnet::of(devices).await;
    let run = async |form: &str| {
        let args = ["plan", "-f", EXAMPLES, "-o", form];
        tailnet.run(&args).await.with_code(2)
    };
    let json: Value = serde_json::from_str(&run("json").await).unwrap();
    let yaml: Value = serde_yaml::from_str(&run("yaml").await).unwrap();
    assert_eq!(json, yaml);
    let first = &json["changes"][0];
    let expected = json!({
        "device": "amelie-laptop", "nodeId": first["nodeId"], "field": "keyExpiry",
        "before": "Disabled", "after": "Enabled", "why": "declared",
        "policies": ["network/amelie-laptop"],
    });
    assert_eq!(*first, expected);
    let lost = json["changes"].as_array().unwrap().iter();
    assert_eq!(
        lost.filter(|change| change["disruptive"].is_string())
            .count(),
        8
    );
    let totals = json!({
        "devices": 8, "policies": 6, "changes": 18, "changedDevices": 6, "disruptive": 8, "held": 0,
        "heldDisruptive": 0, "refused": 0,
        "onlyShown": 0, "released": 0, "unread": 0,
    });
    assert_eq!(json["totals"], totals);

    let markdown = run("markdown").await;
    let shown: Vec<_> = markdown.lines().take(8).collect();
    let shown = shown.join("\n").replace('\u{2060}', "");
    insta::assert_snapshot!(shown, @r#"
    ### tsdp plan

    18 changes on 6 devices (8 disruptive); 6 policies, 8 devices in the tailnet.

    | devices | setting | change | why |
    |---|---|---|---|
    | `ci-runner` | `tags` | `+tag:ci` | **disruptive**: takes the device from ci@example.com for good; declared by network/ci-runner |
    | `fra-router` | `enabledRoutes` | `+fd7a:10::/48 -192.168.0.0/24` | **disruptive**: withdraws 192.168.0.0/24; declared by network/fra-router |
    "#);
    assert!(
        markdown.contains(r#"| `"'\| <b>@amelie" → "gold"` |"#),
        "{markdown}"
    );
}

#[tokio::test]
async fn lists_are_arrays_in_json() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let plan = tailnet.run(&["diff", "-f", EXAMPLES, "-o", "json"]).await;
    let plan: Value = serde_json::from_str(&plan.with_code(2)).unwrap();
    let changes = plan["changes"].as_array().unwrap();
    let of = |device: &str, field: &str| {
        let mut all = changes.iter();
        let change = all.find(|it| it["device"] == device && it["field"] == field);
        let change = change.unwrap();
        json!([change["before"], change["after"]])
    };
    let tags = json!([["tag:router"], ["tag:fra", "tag:router"]]);
    assert_eq!(of("fra-router", "tags"), tags);
    let exit_node = json!([[], ["0.0.0.0/0", "::/0"]]);
    assert_eq!(of("fra-router", "exitNode"), exit_node);
    assert_eq!(
        of("fra-router", "keyExpiry"),
        json!(["Enabled", "Disabled"])
    );
}

#[tokio::test]
async fn all_names_each_device_of_a_change_that_many_share() {
    let tailnet = Tailnet::large().await;
    let policies = for_servers("postureAttributes: {custom:site: {string: a}}");
    let shown = async |more: &[&str]| {
        let args = [&["plan", "-f", "-"], more].concat();
        tailnet.run_with(&args, &policies).await.with_code(2)
    };
    let grouped = shown(&[]).await;
    let row = "\n75 devices  postureAttributes[custom:site]  none → \"a\"  (declared by default/servers)\n\n";
    assert!(grouped.contains(row), "{grouped}");
    let named = shown(&["--all"]).await;
    let below = named.lines().find(|line| line.starts_with("  ")).unwrap();
    assert_eq!(below.split(", ").count(), 75, "{named}");
    let comment = shown(&["-o", "markdown"]).await;
    assert!(comment.contains("\n| 75 devices | "), "{comment}");
}

#[tokio::test]
async fn a_plan_is_saved_among_its_manifests_again_and_again() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let save = ["plan", "-f", EXAMPLES, "--out", "examples/plan.json"];
    for _ in 0..2 {
        tailnet.run(&save).await.with_code(2);
    }
    // Another command must not overlook it.
    let ran = tailnet.run(&["plan", "-f", EXAMPLES]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err
            .contains("this is a plan that tsdp plan --out saved"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_flag_for_a_cluster_that_is_not_read_is_refused() {
    let tailnet = Tailnet::of(demo_devices()).await;
    for command in [&["plan"][..], &["apply", "--yes"], &["devices"]] {
        for flag in ["--kubeconfig", "--context"] {
            let ran = tailnet
                .run(&[command, &["-f", EXAMPLES, flag, "x"]].concat())
                .await;
            assert_eq!(ran.code, Some(1));
            assert!(ran.err.contains("--from-cluster"), "{}", ran.err);
        }
    }
    let absent = ["plan", "--from-cluster", "--kubeconfig", "absent"];
    let ran = tailnet.run(&absent).await;
    assert_eq!(
        ran.err,
        "tsdp: cannot read the kubeconfig absent: No such file or directory (os error 2). Name another one \
         with KUBECONFIG or --kubeconfig\n"
    );
    assert_eq!(tailnet.requests(), [""; 0]);
}

#[tokio::test]
async fn a_saved_plan_has_its_policies_and_devices_and_no_secret() {
    let tailnet = Tailnet::of(demo_devices()).await;
    let save = async |name: &str| -> Value {
        let args = ["plan", "-f", EXAMPLES, "--out", name];
        tailnet.run(&args).await.with_code(2);
        let text = fs::read_to_string(tailnet.path(name)).unwrap();
        assert!(!text.contains(API_KEY));
        serde_json::from_str(&text).unwrap()
    };
    let first = save("first.json").await;
    assert_eq!(first["format"], 6);
    assert_eq!(first["policies"].as_array().unwrap().len(), 6);
    assert_eq!(first["changes"].as_array().unwrap().len(), 18);
    let again = save("again.json").await;
    assert_eq!(first["policiesHash"], again["policiesHash"]);
    assert_eq!(first["devices"], again["devices"]);

    let router = tailnet.simulator.devices().unwrap()[0]["nodeId"].clone();
    let router = router.as_str().unwrap();
    let seen = json!({"lastSeen": "2026-01-01T00:00:00Z", "connectedToControl": false});
    tailnet.simulator.patch_device(router, &seen).unwrap();
    assert_eq!(save("seen.json").await["devices"], first["devices"]);
    let drift = json!({"enabledRoutes": []});
    tailnet.simulator.patch_device(router, &drift).unwrap();
    let moved = save("moved.json").await;
    assert_ne!(moved["devices"][router], first["devices"][router]);
    let devices = first["devices"].as_object().unwrap();
    let unmoved = devices
        .iter()
        .filter(|(node, found)| moved["devices"][*node] == **found);
    assert_eq!(unmoved.count(), devices.len() - 1);
}

#[tokio::test]
async fn a_tailnet_of_10_000_devices_is_planned_by_one_request() {
    let tailnet = Tailnet::of(simulator::generate(10_000, 3)).await;
    let spec = "keyExpiry: Enabled, enabledRoutes: [\"10.0.0.0/16\"]";
    let ran = tailnet
        .run_with(&["plan", "-f", "-", "-o", "json"], &for_servers(spec))
        .await;
    let plan: Value = serde_json::from_str(&ran.with_code(2)).unwrap();
    assert_eq!(plan["totals"]["changedDevices"], 2500);
    assert_eq!(tailnet.requests(), ["GET /tailnet/-/devices?fields=all"]);
}

/// The scripts of the jobs on the page, from their YAML.
fn scripts(page: &str, language: &str) -> Vec<String> {
    let mut scripts = Vec::new();
    for block in blocks(page, language) {
        let block: Value = serde_yaml::from_str(&block).unwrap();
        let steps = block.pointer("/jobs/plan/steps").and_then(Value::as_array);
        let steps = steps.into_iter().flatten().map(|step| &step["run"]);
        let lines = block.pointer("/plan/script").and_then(Value::as_array);
        let all = steps.chain(lines.into_iter().flatten());
        scripts.extend(all.filter_map(Value::as_str).map(str::to_owned));
    }
    scripts
}

#[tokio::test]
async fn the_jobs_of_the_page_plan_and_distinguish_changes_from_errors() {
    let scripts = scripts(include_str!("../../../docs/plan.md"), "yaml");
    let mut scripts = scripts.iter().map(String::as_str);
    let github = scripts.find(|script| script.contains("tsdp plan")).unwrap();
    let rest: Vec<_> = scripts.collect();
    let at = rest
        .iter()
        .position(|line| line.contains("tsdp plan"))
        .unwrap();
    let gitlab = rest[at..=at + 1].join("\n");

    let tailnet = Tailnet::of(demo_devices()).await;
    let policies = tailnet.path("policies");
    for script in [github, &gitlab] {
        let run = async || {
            let path = std::env::var("PATH").unwrap();
            let program = std::path::Path::new(env!("CARGO_BIN_EXE_tsdp"))
                .parent()
                .unwrap();
            let mut shell = tokio::process::Command::new("bash");
            shell
                // As GitHub starts a step.
                .args(["-e", "-o", "pipefail", "-c", script])
                .current_dir(tailnet.folder.path())
                .env("PATH", format!("{}:{path}", program.display()))
                .env("TAILSCALE_API_KEY", API_KEY)
                .env("TAILSCALE_BASE_URL", tailnet.simulator.url());
            shell.output().await.unwrap().status.success()
        };
        assert!(!run().await, "there are no policies: {script}");
        fs::create_dir(&policies).unwrap();
        fs::copy(
            tailnet.path("examples/fra-router.yaml"),
            policies.join("a.yaml"),
        )
        .unwrap();
        assert!(run().await, "changes are no error: {script}");
        let plan = fs::read_to_string(tailnet.path("plan.md")).unwrap();
        assert!(
            plan.starts_with("### tsdp plan\n\n4 changes on 1 device (1 disruptive); "),
            "{plan}"
        );
        fs::write(policies.join("b.yaml"), "kind: [").unwrap();
        assert!(!run().await, "what is no manifest is an error: {script}");
        fs::remove_dir_all(&policies).unwrap();
    }
}

#[tokio::test]
async fn a_plan_shows_what_the_guardrails_deny_and_hold() {
    let devices = vec![
        json!({"hostname": "a", "tags": ["tag:server"], "keyExpiryDisabled": false}),
        json!({"hostname": "b", "tags": ["tag:server", "tag:never"], "keyExpiryDisabled": false}),
    ];
    let tailnet = Tailnet::of(devices).await;
    let guards = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, metadata: {name: default}, \
                  spec: {credentialsSecret: {name: tailscale}, protectedDevices: [{tags: ['tag:never']}], \
                  allowedPolicies: [{namespaces: {names: [default]}, fields: [keyExpiry]}]}}";
    let held = format!(
        "{guards}\n---\n{}",
        policy_for_servers("keyExpiry: Disabled")
    );
    let args = ["plan", "-f", "-", "-o", "json"];
    let plan: Value =
        serde_json::from_str(&tailnet.run_with(&args, &held).await.with_code(2)).unwrap();
    assert_eq!(plan["totals"]["changes"], 1);
    assert_eq!(plan["totals"]["held"], 1);
    let held = plan["changes"].as_array().unwrap().iter();
    let held: Vec<&str> = held.filter_map(|change| change["held"].as_str()).collect();
    assert_eq!(
        held,
        ["no policy may change this device: it is one of protectedDevices of the TailscaleTailnet"]
    );
    let refused = format!("{guards}\n---\n{}", policy_for_servers("exitNode: true"));
    let plan = tailnet
        .run_with(&["plan", "-f", "-"], &refused)
        .await
        .with_code(2);
    assert_eq!(
        plan,
        "default/servers: not allowed: spec.exitNode: no rule of allowedPolicies allows this field. To \
         allow it, give the TailscaleTailnet a rule such as allowedPolicies: [{namespaces: {names: \
         [default]}, fields: [exitNode]}]\n\nNo change now, 1 policy not allowed; 1 policy, 2 devices in \
         the tailnet.\n"
    );
}
