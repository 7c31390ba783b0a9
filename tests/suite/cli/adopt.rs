//! A tailnet full of settings that were made by hand is adopted, as README.md says.

use std::{fs, time::Duration};

use serde_json::json;
use tsdp::simulator;

use crate::{
    docs::blocks,
    support::{Stage, calls, eventually},
};

/// The commands of README's section.
fn commands() -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let section = readme.split("## Adopt an existing tailnet").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    blocks(section, "sh").concat()
}

#[tokio::test]
async fn the_commands_of_the_readme_adopt_a_tailnet_and_send_nothing() {
    const API_KEY: &str = "tskey-api-adopt";
    let mut devices = simulator::generate(30, 11);
    devices[0]["attributes"] = json!({"custom:tier": "gold", "custom:on": "on"});
    devices[1]["enabledRoutes"] = json!(["::/0"]);
    let stage = Stage::with(devices, API_KEY).await;
    let before = stage.simulator.devices().unwrap();
    let folder = tempfile::tempdir().unwrap();

    let script = commands().replace("tskey-api-...", API_KEY);
    assert!(script.contains(API_KEY), "{script}");
    let mut shell = stage.kubectl.shell(&script);
    shell
        .current_dir(folder.path())
        .env("TAILSCALE_BASE_URL", stage.simulator.url());
    let output = shell.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{error}");
    assert!(told.contains("Nothing to change; "), "{told}");

    let exported = fs::read_dir(folder.path().join("tailnet")).unwrap().count();
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
    stage.polls(2).await;
    assert_eq!(calls(&stage.simulator), [""; 0]);
    assert_eq!(stage.simulator.devices().unwrap(), before);
    drop(controller);
}
