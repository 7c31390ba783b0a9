//! Adopts a tailnet with settings that were made by hand, as docs/get-started.md describes.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use tsdp::simulator;

use crate::{
    docs::blocks,
    support::{Stage, calls, eventually},
};

/// The commands of the section of docs/get-started.md.
fn commands() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/get-started.md");
    let page = fs::read_to_string(page).unwrap();
    let section = page.split("## Adopt an existing tailnet").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    blocks(section, "sh").concat()
}

/// Runs a script that must succeed, with `tsdp` and `kubectl`.
async fn run(stage: &Stage, folder: &Path, script: &str, variables: &[(&str, &str)]) -> String {
    let mut shell = stage.kubectl.shell(script);
    shell
        .current_dir(folder)
        .env("TAILSCALE_BASE_URL", stage.simulator.url())
        .envs(variables.iter().copied());
    let output = shell.output().await.unwrap();
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{reported}{error}");
    reported
}

#[tokio::test]
async fn documented_commands_adopt_a_tailnet_and_send_nothing() {
    const API_KEY: &str = "tskey-api-adopt";
    let mut devices = simulator::generate(30, 11);
    devices[0]["attributes"] = json!({"custom:tier": "gold", "custom:on": "on"});
    devices[1]["enabledRoutes"] = json!(["::/0"]);
    let stage = Stage::with(devices, API_KEY).await;
    let before = stage.simulator.devices().unwrap();
    let folder = tempfile::tempdir().unwrap();

    let script = commands().replace("tskey-api-...", API_KEY);
    assert!(script.contains(API_KEY), "{script}");
    let reported = run(&stage, folder.path(), &script, &[]).await;
    assert!(reported.contains("Nothing to change; "), "{reported}");

    let files = fs::read_dir(folder.path().join("tailnet")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let exported: usize = texts.map(|text| text.matches("\nkind: ").count()).sum();
    let controller = stage.controller().await;
    eventually(Duration::from_mins(1), async || {
        let ready = stage.policies_ready();
        if ready == exported {
            Ok(())
        } else {
            Err(format!("{ready} of {exported} policies are as declared"))
        }
    })
    .await;
    let from_cluster = "tsdp plan --from-cluster && tsdp devices --from-cluster -o json";
    let reported = run(
        &stage,
        folder.path(),
        from_cluster,
        &[("TAILSCALE_API_KEY", API_KEY)],
    )
    .await;
    let (plan, devices) = reported.split_once('\n').unwrap();
    assert!(plan.starts_with("Nothing to change; "), "{plan}");
    let devices: Vec<Value> = serde_json::from_str(devices).unwrap();
    let unmanaged = devices
        .iter()
        .filter(|device| device["managedBy"] == json!([]));
    // The others have nothing but defaults, will leave by themselves, or are not the tailnet's own.
    assert!(
        unmanaged
            .clone()
            .all(|device| device["tags"] == json!([]) || device["ephemeral"] == true),
        "{devices:#?}"
    );
    assert!(unmanaged.count() < devices.len());
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
    assert_eq!(stage.simulator.devices().unwrap(), before);
    drop(controller);
}
