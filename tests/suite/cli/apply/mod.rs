//! `tsdp apply`, against the simulator.

mod held;
mod interrupted;
mod page;
mod pruned;
mod pruned_from_git;
mod saved;
mod terminal;

use std::fs;

use serde_json::{Value, json};
use tsdp::simulator::{FaultKind, FaultSpec};

use self::terminal::Terminal;
use super::tailnet::{API_KEY, EXAMPLES, NO_LIMIT, Ran, Tailnet};

const SERVERS: &str = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
     metadata: {name: servers, namespace: network}, \
     spec: {deviceSelector: {tags: [\"tag:server\"]}, SPEC}}";

/// A policy for all servers of the large tailnet.
fn servers(spec: &str) -> String {
    SERVERS.replace("SPEC", spec)
}

fn without_limit(policies: &str) -> String {
    format!("{NO_LIMIT}\n---\n{policies}")
}

/// The requests that change something.
fn writes(tailnet: &Tailnet) -> Vec<String> {
    let mut requests = tailnet.requests();
    requests.retain(|request| !request.starts_with("GET "));
    requests
}

fn device(tailnet: &Tailnet, hostname: &str) -> Value {
    let devices = tailnet.simulator.devices().unwrap();
    let mut devices = devices.into_iter();
    devices.find(|it| it["hostname"] == hostname).unwrap()
}

fn node(tailnet: &Tailnet, hostname: &str) -> String {
    device(tailnet, hostname)["nodeId"].as_str().unwrap().into()
}

fn status(path: &str, status: u16) -> FaultSpec {
    FaultSpec {
        path: Some(path.to_owned()),
        status: Some(status),
        body: Some(json!({"message": "no"})),
        ..FaultSpec::new(FaultKind::Status)
    }
}

/// `tsdp apply` of these policies, from a file.
async fn apply(tailnet: &Tailnet, policies: &str, more: &[&str]) -> Ran {
    fs::write(tailnet.path("policies.yaml"), policies).unwrap();
    tailnet
        .run(&[&["apply", "-f", "policies.yaml"], more].concat())
        .await
}

async fn plan(tailnet: &Tailnet) -> Ran {
    tailnet.run(&["plan", "-f", "policies.yaml"]).await
}

const QUESTION: &str = "Type 'yes' to confirm: ";

#[tokio::test]
async fn apply_makes_and_reports_the_planned_changes_and_nothing_is_left() {
    let tailnet = Tailnet::demo().await;
    let ran = tailnet.run(&["apply", "-f", EXAMPLES, "--yes"]).await;
    assert!(!format!("{ran:?}").contains(API_KEY));
    assert_eq!(ran.err, "");
    let out = ran.ok();
    assert!(out.starts_with("DEVICES "), "{out}");
    assert!(
        out.contains("\n18 changes on 6 devices (8 disruptive); "),
        "{out}"
    );
    let line = "\nfra-router tags: tag:router → tag:fra,tag:router\n";
    assert_eq!(out.matches(line).count(), 1, "{out}");
    assert!(out.ends_with("\n18 changes made.\n"), "{out}");
    // In the controller's order: authorization last.
    let made: Vec<_> = out
        .lines()
        .filter(|line| line.starts_with("ci-runner "))
        .collect();
    let reported = [
        "ci-runner tags: none → tag:ci",
        "ci-runner authorized: false → true",
    ];
    assert_eq!(made[made.len() - 2..], reported, "{out}");

    tailnet.requests();
    let out = tailnet.run(&["plan", "-f", EXAMPLES]).await.ok();
    assert!(out.starts_with("Nothing to change; "), "{out}");
    let out = tailnet.run(&["apply", "-f", EXAMPLES]).await.ok();
    assert!(out.starts_with("Nothing to change; "), "{out}");
    assert_eq!(writes(&tailnet), [""; 0]);
}

#[tokio::test]
async fn a_fleet_change_costs_one_request_each_and_one_list_to_verify() {
    let tailnet = Tailnet::large().await;
    let policies = without_limit(&servers("keyExpiry: Enabled"));
    let out = apply(&tailnet, &policies, &["--yes"]).await.ok();
    assert!(out.ends_with("\n75 changes made.\n"), "{out}");
    let requests = tailnet.requests();
    let lists = requests.iter().filter(|it| it.contains("/devices"));
    // To show the plan, before the first change, and after the last one.
    assert_eq!(lists.count(), 3, "{requests:?}");
    let keys = requests.iter().filter(|it| it.ends_with("/key"));
    assert_eq!((keys.count(), requests.len()), (75, 78), "{requests:?}");
    plan(&tailnet).await.ok();
}

#[tokio::test]
async fn attributes_of_a_fleet_are_sent_in_batches() {
    let tailnet = Tailnet::large().await;
    let policies = without_limit(&servers("postureAttributes: {custom:site: {string: a}}"));
    let out = apply(&tailnet, &policies, &["--yes"]).await.ok();
    assert!(out.ends_with("\n75 changes made.\n"), "{out}");
    let patch = "PATCH /tailnet/-/device-attributes";
    assert_eq!(writes(&tailnet), [patch, patch]);
    plan(&tailnet).await.ok();
}

#[tokio::test]
async fn without_a_terminal_nothing_is_sent_without_the_flag_yes() {
    let tailnet = Tailnet::demo().await;
    let ran = tailnet.run(&["apply", "-f", EXAMPLES]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("18 changes on 6 devices"), "{}", ran.out);
    assert!(ran.err.contains("Add --yes"), "{}", ran.err);
    assert_eq!(writes(&tailnet), [""; 0]);
}

#[tokio::test]
async fn on_a_terminal_only_yes_is_accepted() {
    let tailnet = Tailnet::demo().await;
    for answer in ["y", "", "no"] {
        let mut terminal = Terminal::open(&tailnet, &["apply", "-f", EXAMPLES]);
        let shown = terminal.until(QUESTION).await;
        assert!(shown.contains("18 changes on 6 devices"), "{shown}");
        assert!(
            shown.ends_with("Make these 18 changes on 6 devices? "),
            "{shown}"
        );
        terminal.type_line(answer).await;
        let (rest, code) = terminal.end().await;
        assert!(rest.contains("Nothing was sent."), "{rest}");
        assert_eq!(code, Some(1), "{answer}");
        assert_eq!(writes(&tailnet), [""; 0]);
    }
    let mut terminal = Terminal::open(&tailnet, &["apply", "-f", EXAMPLES]);
    terminal.until(QUESTION).await;
    terminal.type_line("yes").await;
    let (rest, code) = terminal.end().await;
    assert!(rest.contains("18 changes made."), "{rest}");
    // On a terminal it shows its progress.
    assert!(rest.contains("[#"), "{rest}");
    assert_eq!(code, Some(0), "{rest}");
}

#[tokio::test]
async fn differences_that_move_after_yes_are_left_and_reported() {
    let tailnet = Tailnet::demo().await;
    let mut terminal = Terminal::open(&tailnet, &["apply", "-f", EXAMPLES]);
    terminal.until(QUESTION).await;
    // One setting moves, one gets a new difference, and somebody else makes one change.
    let patch = |hostname: &str, patch: Value| {
        let node = node(&tailnet, hostname);
        tailnet.simulator.patch_device(&node, &patch).unwrap();
    };
    patch("fra-router", json!({"enabledRoutes": ["172.20.0.0/16"]}));
    patch("lobby-kiosk", json!({"tags": ["tag:fra"]}));
    patch("old-gateway", json!({"enabledRoutes": []}));
    terminal.type_line("yes").await;
    let (rest, code) = terminal.end().await;
    assert_eq!(code, Some(2), "{rest}");
    assert!(rest.contains("Different from the plan"), "{rest}");
    assert!(
        rest.contains("  fra-router enabledRoutes: 172.20.0.0/16 → 10.0.0.0/16,fd7a:10::/48"),
        "{rest}"
    );
    assert!(rest.contains("2 already in sync"), "{rest}");
    let left = device(&tailnet, "fra-router")["enabledRoutes"].clone();
    assert!(left.to_string().contains("172.20.0.0/16"), "{left}");
    let sent = writes(&tailnet);
    let router = node(&tailnet, "fra-router");
    assert!(
        sent.contains(&format!("POST /device/{router}/tags")),
        "{sent:?}"
    );
}

#[tokio::test]
async fn a_device_that_fails_stops_no_other_and_is_named_with_the_request() {
    let tailnet = Tailnet::demo().await;
    let router = node(&tailnet, "fra-router");
    let path = format!("/api/v2/device/{router}/tags");
    tailnet.simulator.inject(status(&path, 500)).unwrap();
    let ran = tailnet.run(&["apply", "-f", EXAMPLES, "--yes"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.out.ends_with("\n17 of 18 changes made, 1 failed.\n"),
        "{}",
        ran.out
    );
    let failed = ran.err.split_once("Failed:\n").unwrap().1;
    assert!(failed.starts_with("  fra-router tags: POST "), "{failed}");
    assert!(failed.contains("(HTTP 500, request REQ-"), "{failed}");
    let tries = writes(&tailnet);
    let tries = tries
        .iter()
        .filter(|it| it.ends_with(&format!("{router}/tags")));
    // Three tries of the engine, each with the retries of the client.
    assert!((3..=9).contains(&tries.count()));

    tailnet.simulator.clear_faults();
    let out = tailnet.run(&["apply", "-f", EXAMPLES, "--yes"]).await.ok();
    assert!(out.ends_with("\n1 change made.\n"), "{out}");
}

#[tokio::test]
async fn an_unreachable_tailnet_ends_apply_soon() {
    let tailnet = Tailnet::demo().await;
    let mut terminal = Terminal::open(&tailnet, &["apply", "-f", EXAMPLES]);
    terminal.until(QUESTION).await;
    tailnet
        .simulator
        .inject(status("/api/v2/tailnet/*/devices", 401))
        .unwrap();
    terminal.type_line("yes").await;
    let (rest, code) = terminal.end().await;
    assert!(
        rest.contains("0 of 18 changes made, 18 not sent."),
        "{rest}"
    );
    assert!(rest.contains("could no longer be reached:"), "{rest}");
    assert_eq!(code, Some(1));
    assert_eq!(writes(&tailnet), [""; 0]);
}

#[tokio::test]
async fn policies_of_a_cluster_are_left_to_the_controller() {
    let tailnet = Tailnet::demo().await;
    let ran = tailnet.run(&["apply", "--from-cluster", "--yes"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("kubectl get tsdp -A"), "{}", ran.err);
    let ran = tailnet.run(&["apply"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("Add -f"), "{}", ran.err);
    assert_eq!(tailnet.requests(), [""; 0]);
}

#[tokio::test]
async fn changes_are_green_when_color_is_requested() {
    let green = "\u{1b}[32mfra-router tags: tag:router → tag:fra,tag:router\u{1b}[39m\n";
    for (color, no_color, colored) in [
        ("always", false, true),
        ("always", true, true),
        ("auto", false, false),
        ("never", false, false),
    ] {
        let tailnet = Tailnet::demo().await;
        let args = ["apply", "-f", EXAMPLES, "--yes", "--color", color];
        let mut command = tailnet.tsdp(&args);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let ran = Ran::from(command.output().await.unwrap());
        assert_eq!(
            ran.out.contains(green),
            colored,
            "{color} {no_color}: {}",
            ran.out
        );
        assert_eq!(ran.ok().contains('\u{1b}'), colored);
    }
}

#[tokio::test]
async fn a_device_that_cannot_be_read_stops_no_other_and_is_named() {
    let tailnet = Tailnet::large().await;
    let devices = tailnet.simulator.devices().unwrap();
    let is_server = |device: &&Value| device["tags"].to_string().contains("\"tag:server\"");
    let server = devices.iter().find(is_server).unwrap();
    let text = |field: &str| server[field].as_str().unwrap();
    let (node, hostname) = (text("nodeId"), text("hostname"));
    let path = format!("/api/v2/device/{node}/attributes");
    tailnet.simulator.inject(status(&path, 500)).unwrap();
    let policies = without_limit(&servers("postureAttributes: {custom:site: {string: a}}"));
    let ran = apply(&tailnet, &policies, &["--yes"]).await;
    assert!(
        ran.err
            .contains(&format!("tsdp: {node} could not be read completely: GET ")),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains(&format!(
            "Not read:\n  {hostname}: GET /device/{node}/attributes"
        )),
        "{}",
        ran.err
    );
    let out = ran.with_code(1);
    assert!(out.ends_with("\n74 changes made, 1 not read.\n"), "{out}");
}
