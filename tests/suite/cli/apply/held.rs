use super::*;

/// A policy that would change 75 devices, and one that would change 15.
fn many_and_few() -> String {
    let few = servers("keyExpiry: Enabled")
        .replace("name: servers", "name: exits")
        .replace("tag:server", "tag:exit");
    servers("keyExpiry: Enabled") + "\n---\n" + &few
}

const RELEASE: &str = "Type 'network/servers' to confirm: ";

#[tokio::test]
async fn yes_does_not_cover_changes_over_the_limit_and_small_repairs_are_made() {
    let tailnet = Tailnet::large().await;
    let ran = apply(&tailnet, &many_and_few(), &["--yes"]).await;
    let message = "the limit of changed devices (10%, 29 devices) holds network/servers: 75 changes on \
                75 devices. Raise --max-changed-devices";
    assert!(ran.err.contains(message), "{}", ran.err);
    let out = ran.with_code(2);
    assert!(
        out.contains("held: 75 devices would change, the limit is 29 per hour"),
        "{out}"
    );
    assert!(out.ends_with("\n15 changes made, 75 held.\n"), "{out}");
    assert_eq!(writes(&tailnet).len(), 15);
    // The number in the flag proves that the user has read it.
    let ran = apply(
        &tailnet,
        &many_and_few(),
        &["--yes", "--max-changed-devices", "74"],
    )
    .await;
    assert!(
        ran.with_code(2)
            .ends_with(", 75 held; 2 policies, 299 devices in the tailnet.\n")
    );
    let ran = apply(
        &tailnet,
        &many_and_few(),
        &["--yes", "--max-changed-devices", "75"],
    )
    .await;
    assert!(ran.ok().ends_with("\n75 changes made.\n"));
    plan(&tailnet).await.ok();
}

#[tokio::test]
async fn changes_over_the_limit_are_approved_on_a_terminal_by_name() {
    let tailnet = Tailnet::large().await;
    fs::write(tailnet.path("policies.yaml"), many_and_few()).unwrap();
    for (typed, made, code) in [("yes", 15, 2), ("network/servers", 75, 0)] {
        let mut terminal = Terminal::open(&tailnet, &["apply", "-f", "policies.yaml"]);
        let shown = terminal.until(RELEASE).await;
        let asked = "The limit of changed devices (10%, 29 devices) holds network/servers: 75 changes on \
                     75 devices.";
        assert!(shown.contains(asked), "{shown}");
        terminal.type_line(typed).await;
        terminal.until(QUESTION).await;
        terminal.type_line("yes").await;
        let (rest, ended) = terminal.end().await;
        assert!(rest.contains(&format!("{made} changes made")), "{rest}");
        assert_eq!(ended, Some(code), "{rest}");
    }
}

#[tokio::test]
async fn a_policy_that_requires_approval_is_approved_by_its_name_alone() {
    let tailnet = Tailnet::large().await;
    let policy = without_limit(&servers("keyExpiry: Enabled, enforcement: Approve"));
    let ran = apply(&tailnet, &policy, &["--yes"]).await;
    assert!(
        ran.err.contains("Add --approve network/servers"),
        "{}",
        ran.err
    );
    let out = ran.with_code(2);
    assert!(out.contains("No change now, 75 held"), "{out}");
    for (name, message) in [
        ("network/server", "found no such policy"),
        ("servers", "NAMESPACE/NAME"),
    ] {
        let ran = apply(&tailnet, &policy, &["--yes", "--approve", name]).await;
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains(message), "{}", ran.err);
    }
    let enforced = without_limit(&servers("keyExpiry: Enabled"));
    let ran = apply(
        &tailnet,
        &enforced,
        &["--yes", "--approve", "network/servers"],
    )
    .await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("the policy needs no approval"),
        "{}",
        ran.err
    );
    assert_eq!(writes(&tailnet), [""; 0]);

    let ran = apply(
        &tailnet,
        &policy,
        &["--yes", "--approve", "network/servers"],
    )
    .await;
    assert!(ran.ok().ends_with("\n75 changes made.\n"));
}

#[tokio::test]
async fn an_approval_on_a_terminal_shows_the_plan_that_follows_from_it() {
    let tailnet = Tailnet::large().await;
    let policy = without_limit(&servers("keyExpiry: Enabled, enforcement: Approve"));
    fs::write(tailnet.path("policies.yaml"), policy).unwrap();
    let mut terminal = Terminal::open(&tailnet, &["apply", "-f", "policies.yaml"]);
    let shown = terminal.until(RELEASE).await;
    assert!(
        shown.contains("network/servers is pending approval: 75 changes on 75 devices."),
        "{shown}"
    );
    terminal.type_line("network/servers").await;
    let shown = terminal.until(QUESTION).await;
    assert!(
        shown.contains("\n75 changes on 75 devices (0 disruptive); "),
        "{shown}"
    );
    terminal.type_line("yes").await;
    let (rest, code) = terminal.end().await;
    assert!(rest.contains("75 changes made."), "{rest}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn disruptions_without_permission_and_observed_changes_are_shown_and_never_sent() {
    let tailnet = Tailnet::demo().await;
    let kiosk = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
                 metadata: {name: laptops}, spec: {deviceSelector: {users: [\"*@example.com\"]}, \
                 tags: [\"tag:ci\"]}}";
    let out = apply(&tailnet, kiosk, &["--yes"]).await.with_code(2);
    assert!(out.contains("write allowDisruption: [FirstTag]"), "{out}");
    let observing = servers("keyExpiry: Disabled, enforcement: Observe");
    let observing = observing.replace("tag:server", "tag:router");
    let out = apply(&tailnet, &observing, &["--yes"]).await.ok();
    assert!(out.contains("only shown"), "{out}");
    assert_eq!(writes(&tailnet), [""; 0]);
}

#[tokio::test]
async fn the_held_entries_of_a_shared_list_are_not_sent_with_other_entries() {
    let tailnet = Tailnet::large().await;
    let policy = |name: &str, selector: &str, route: &str| {
        format!(
            "---\n{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
             metadata: {{name: {name}}}, spec: {{deviceSelector: {{{selector}}}, \
             enabledRoutes: [{route}], ownership: {{enabledRoutes: AtLeast}}, keyExpiry: Enabled}}}}\n"
        )
    };
    let few = policy("few", "tags: [\"tag:exit\"]", "10.77.0.0/16");
    let all = policy("many", "os: [linux], trustClaims: true", "10.88.0.0/16");
    let out = apply(&tailnet, &(few + &all), &["--yes"])
        .await
        .with_code(2);
    let summary = out.lines().last().unwrap();
    assert!(summary.starts_with("30 changes made, "), "{summary}");
    assert!(!summary.contains("other than planned"), "{summary}");
    let devices = tailnet.simulator.devices().unwrap();
    let with = |route: &str| {
        let has = |device: &&Value| device["enabledRoutes"].to_string().contains(route);
        devices.iter().filter(has).count()
    };
    assert_eq!((with("10.77.0.0/16"), with("10.88.0.0/16")), (15, 0));
}
