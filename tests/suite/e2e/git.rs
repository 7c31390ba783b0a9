//! The controller causes no difference between Git and the cluster: neither `kubectl diff` nor a second
//! `kubectl apply` finds one after a reconcile.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use super::invites;
use crate::{
    examples::files,
    support::{Stage, eventually},
};

const KINDS: &str = "tsdp,tstn,tsdi";

/// The manifests of deploy/connect and deploy/examples in a separate folder, with the simulator's address instead of the real
/// API's.
fn examples(stage: &Stage) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let url = stage.simulator.url().clone();
    let mut copies = Vec::new();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let all = ["connect", "examples"].map(|name| files(&deploy.join(name)));
    for path in all.into_iter().flatten() {
        let text = fs::read_to_string(&path).unwrap();
        let copy = folder.path().join(path.file_name().unwrap());
        let text = text.replace("https://api.tailscale.com", &url);
        fs::write(&copy, text).unwrap();
        copies.push(copy);
    }
    copies.sort();
    (folder, copies)
}

/// Waits until the controller has reported on every object's present generation.
async fn wait_until_reconciled(stage: &Stage) {
    eventually(Duration::from_secs(40), async || {
        let all = stage.kubectl.get(&["-A", KINDS]).await;
        let behind = |object: &&Value| {
            let status = &object["status"];
            status["observedGeneration"] != object["metadata"]["generation"]
                || status["conditions"]
                    .as_array()
                    .is_none_or(|all| all.iter().any(|one| one["reason"] == "Progressing"))
        };
        let behind: Vec<_> = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(behind)
            .map(|object| object["metadata"]["name"].clone())
            .collect();
        if behind.is_empty() {
            Ok(())
        } else {
            Err(format!("not reported yet: {behind:?}"))
        }
    })
    .await;
}

async fn generations(stage: &Stage) -> BTreeMap<String, Value> {
    let all = stage.kubectl.get(&["-A", KINDS]).await;
    let version = |object: &Value| {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        (name, object["metadata"]["generation"].clone())
    };
    all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(version)
        .collect()
}

async fn shows_nothing_new(stage: &Stage, how: &[&str]) {
    let (_folder, examples) = examples(stage);
    for file in &examples {
        let file = file.to_str().unwrap();
        stage
            .kubectl
            .ok(&[&["apply", "-f", file], how].concat())
            .await;
    }
    wait_until_reconciled(stage).await;
    let before = generations(stage).await;
    for file in &examples {
        let file = file.to_str().unwrap();
        // kubectl fails with the difference.
        let difference = stage
            .kubectl
            .ok(&[&["diff", "-f", file], how].concat())
            .await;
        assert_eq!(difference, "", "{file} {how:?}");
        let applied = stage
            .kubectl
            .ok(&[&["apply", "-f", file], how].concat())
            .await;
        let unchanged = if how.is_empty() {
            " unchanged"
        } else {
            " serverside-applied"
        };
        for line in applied.lines() {
            assert!(line.ends_with(unchanged), "{file} {how:?}: {line}");
        }
    }
    assert_eq!(generations(stage).await, before, "{how:?}");
}

#[tokio::test]
async fn no_example_differs_from_the_cluster_after_the_controller_has_worked_on_it() {
    let stage = invites::stage().await;
    let _controller = invites::controller(&stage).await;
    shows_nothing_new(&stage, &[]).await;

    stage
        .kubectl
        .ok(&["delete", "-n", "network", "--all", "tsdp,tsdi"])
        .await;
    stage.kubectl.ok(&["delete", "--all", "tstn"]).await;
    shows_nothing_new(&stage, &["--server-side", "--force-conflicts"]).await;
}
