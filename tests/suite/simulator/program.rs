//! `tsdp simulate` as a program.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{Api, send};

const TSDP: &str = env!("CARGO_BIN_EXE_tsdp");

/// Starts the program and waits for the line with its address.
async fn start(arguments: &[&str]) -> (Child, String) {
    let mut child = Command::new(TSDP)
        .args(["simulate", "--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .unwrap();
    (child, url.to_owned())
}

#[tokio::test]
async fn simulator_prints_its_address_serves_its_devices_and_ends_on_sigterm() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let yaml =
        "devices:\n- hostname: from-file\n  tags: [\"tag:a\"]\n  attributes: {custom:x: 1}\n";
    std::fs::write(file.path(), yaml).unwrap();
    let path = file.path().to_str().unwrap();
    let key = [
        "--api-key",
        "tskey-api-one",
        "--devices",
        path,
        "--count",
        "30",
    ];
    let (mut child, url) = start(&key).await;

    let client = Api::start().await.http;
    let list = |key| {
        client
            .get(format!("{url}tailnet/-/devices"))
            .bearer_auth(key)
    };
    let devices = send(list("tskey-api-one")).await.body;
    assert_eq!(devices["devices"].as_array().unwrap().len(), 31);
    assert_eq!(devices["devices"][0]["hostname"], "from-file");
    assert_eq!(send(list("tskey-api-two")).await.status, 401);

    let id = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn simulator_help_lists_every_switch_and_kind_of_fault() {
    let help = Command::new(TSDP)
        .args(["simulate", "--help"])
        .output()
        .await
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let api = Api::start().await;
    let switches = send(
        api.http
            .get(format!("{}/_sim/switches", api.simulator.url())),
    )
    .await
    .body;
    for name in switches.as_object().unwrap().keys() {
        assert!(
            help.contains(&format!("\n  {name} ")),
            "the switch {name} is missing:\n{help}"
        );
    }
    // The message for an unknown kind names all known ones.
    let unknown = json!({"kind": "?"}).to_string();
    let refused = api
        .http
        .post(format!("{}/_sim/faults", api.simulator.url()))
        .body(unknown);
    let answered = send(refused).await.body;
    let message = answered["message"].as_str().unwrap();
    let kinds: Vec<_> = message.split('`').skip(3).step_by(2).collect();
    assert_eq!(kinds.len(), 9, "{message}");
    for kind in kinds {
        assert!(
            help.contains(&format!("\n  {kind} ")),
            "the fault {kind} is missing:\n{help}"
        );
    }
}

#[test]
fn same_seed_generates_the_same_tailnet() {
    let devices = tsdp::simulator::generate(200, 7);
    assert_eq!(devices, tsdp::simulator::generate(200, 7));
    assert_eq!(
        devices[..50],
        tsdp::simulator::generate(50, 7),
        "more devices keep the first"
    );
    assert_ne!(devices, tsdp::simulator::generate(200, 8));
    let count = |is: fn(&Value) -> bool| devices.iter().filter(|device| is(device)).count();
    let exit_node = json!(["0.0.0.0/0", "::/0"]);
    let exit_nodes = devices
        .iter()
        .filter(|device| device["advertisedRoutes"] == exit_node);
    for (kind, count) in [
        ("tagged", count(|device| device["tags"] != json!([]))),
        ("shared in", count(|device| device["isExternal"] == true)),
        ("ephemeral", count(|device| device["isEphemeral"] == true)),
        (
            "unauthorized",
            count(|device| device["authorized"] == false),
        ),
        (
            "expired",
            count(|device| device["expires"].as_str().unwrap() < "2026"),
        ),
        (
            "routers",
            count(|device| device["hostname"].as_str().unwrap().contains("-router-")),
        ),
        ("exit nodes", exit_nodes.count()),
    ] {
        assert!(
            (1..200).contains(&count),
            "{count} of 200 devices are {kind}"
        );
    }
}

#[tokio::test]
async fn file_of_the_wrong_shape_is_refused_with_the_expected_shape() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "- hostname: a\n").unwrap();
    let path = file.path().to_str().unwrap();
    let ran = Command::new(TSDP)
        .args(["simulate", "--devices", path])
        .output()
        .await
        .unwrap();
    let error = String::from_utf8(ran.stderr).unwrap();
    assert!(!ran.status.success());
    assert!(
        error.contains(path) && error.contains("{\"devices\": [ … ]}"),
        "{error}"
    );
}
