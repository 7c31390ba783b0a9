//! The life of a release on a real API server: install, upgrade, uninstall, and install again.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tsdp::{
    local::ControlPlane,
    simulator::{self, Simulator},
};

use crate::{
    examples::files,
    support::{CHART, Controller, Helm, Kubectl, calls, control_plane, eventually},
};

const POLICY: &str = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
    metadata: {name: router, namespace: network}, \
    spec: {device: {hostname: router}, keyExpiry: Disabled}}";

/// A cluster, a tailnet with one router, and Helm.
struct Scene {
    helm: Helm,
    kubectl: Kubectl,
    simulator: Simulator,
    control_plane: ControlPlane,
}

impl Scene {
    async fn new() -> Self {
        let router =
            json!({"hostname": "router", "tags": ["tag:router"], "keyExpiryDisabled": false});
        let options = simulator::Options {
            devices: vec![router],
            api_keys: vec!["tskey-api-helm".into()],
            ..simulator::Options::default()
        };
        let simulator = Simulator::start(options).await.unwrap();
        let control_plane = control_plane().await;
        let (helm, kubectl) = (Helm::admin(&control_plane), Kubectl::admin(&control_plane));
        kubectl.ok(&["create", "namespace", "network"]).await;
        Self {
            helm,
            kubectl,
            simulator,
            control_plane,
        }
    }

    fn values(&self, poll_interval: &str) -> String {
        json!({
            "credentials": {"create": true, "data": {"api_key": "tskey-api-helm"}},
            "tailnet": {"create": true, "spec": {
                "apiURL": self.simulator.url(),
                "pollInterval": poll_interval,
                "allowedPolicies": [{"namespaces": {"names": ["network"]}}],
            }},
        })
        .to_string()
    }

    async fn helm(&self, command: &str, chart: &str, values: &str) -> String {
        let create: &[&str] = if command == "install" {
            &["--create-namespace"]
        } else {
            &[]
        };
        let args = [command, "tsdp", chart, "--namespace=tsdp-system"];
        self.helm.ok(&[&args, create].concat(), values).await
    }

    /// Starts the controller with the permissions of the release, and waits until the policy is in sync.
    async fn controls(&self) -> Controller {
        let account = self.control_plane.kubeconfig_for("tsdp-system", "tsdp");
        let controller = Controller::ready(&account.await.unwrap(), &[], &[]).await;
        self.kubectl
            .wait_for("condition=Ready", &["tsdp/router", "-n", "network"])
            .await;
        controller
    }

    /// The fields of an object that a change of it would change.
    async fn identity(&self, what: &[&str]) -> (Value, Value) {
        let object = self.kubectl.get(what).await;
        let metadata = &object["metadata"];
        (metadata["uid"].clone(), metadata["generation"].clone())
    }
}

/// The chart as an earlier version, with definitions that lack a field and without its Services.
fn earlier_chart() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files(Path::new(CHART)) {
        let name = file.strip_prefix(CHART).unwrap();
        if name.ends_with("services.yaml") {
            continue;
        }
        let mut text = fs::read_to_string(&file).unwrap();
        if name.ends_with("Chart.yaml") {
            text = text
                .lines()
                .map(|line| match line.split_once(": ") {
                    Some((key @ ("version" | "appVersion"), _)) => format!("{key}: 0.0.9\n"),
                    _ => format!("{line}\n"),
                })
                .collect();
        }
        if name.ends_with("tailscaletailnets.yaml") {
            let mut definition: Value = serde_yaml::from_str(&text).unwrap();
            let columns = definition.pointer_mut("/spec/versions/0/additionalPrinterColumns");
            columns.unwrap().as_array_mut().unwrap().truncate(1);
            text = format!(
                "# Earlier.\n{}",
                serde_yaml::to_string(&definition).unwrap()
            );
            // The template replaces the line of the metadata.
            assert!(text.contains("\nmetadata:\n"), "{text}");
        }
        let target = folder.path().join(name);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, text).unwrap();
    }
    folder
}

async fn columns(kubectl: &Kubectl) -> usize {
    let definition = kubectl.get(&["crd", "tailscaletailnets.tailnet.dev"]).await;
    let columns = definition.pointer("/spec/versions/0/additionalPrinterColumns");
    columns.unwrap().as_array().unwrap().len()
}

#[tokio::test]
async fn a_release_is_installed_upgraded_and_uninstalled() {
    let scene = Scene::new().await;
    let (kubectl, tailnet) = (&scene.kubectl, ["tstn", "default"]);
    let earlier = earlier_chart();

    // The connection comes with the first install, although its kind does not exist before.
    scene
        .helm(
            "install",
            earlier.path().to_str().unwrap(),
            &scene.values("1s"),
        )
        .await;
    kubectl.apply(POLICY).await;
    let controller = scene.controls().await;
    let (uid, generation) = scene.identity(&tailnet).await;
    assert_eq!(columns(kubectl).await, 1);

    // An upgrade changes the definitions, and edits the connection in place.
    scene.helm("upgrade", CHART, &scene.values("2s")).await;
    assert!(columns(kubectl).await > 1);
    let object = kubectl.get(&tailnet).await;
    assert_eq!(object["spec"]["pollInterval"], "2s");
    assert_eq!(object["metadata"]["uid"], uid);
    assert_ne!(object["metadata"]["generation"], generation);

    // The same once more changes nothing.
    let mut before = Vec::new();
    let kept = [
        &["deployment", "tsdp", "-n", "tsdp-system"][..],
        &["crd", "tailscaledevicepolicies.tailnet.dev"],
        &tailnet,
    ];
    for what in kept {
        before.push(scene.identity(what).await);
    }
    scene.helm("upgrade", CHART, &scene.values("2s")).await;
    for (what, before) in kept.iter().zip(&before) {
        assert_eq!(&scene.identity(what).await, before, "{what:?}");
    }

    // Policies, their statuses and the connection stay. The credential goes with the release.
    drop(controller);
    let status = kubectl.get(&["tsdp", "router", "-n", "network"]).await["status"].clone();
    let args = ["uninstall", "tsdp", "--namespace=tsdp-system", "--wait"];
    scene.helm.ok(&args, "").await;
    for gone in ["deployment/tsdp", "secret/tailscale", "serviceaccount/tsdp"] {
        let message = kubectl.refused(&["get", gone, "-n", "tsdp-system"]).await;
        assert!(message.contains("not found"), "{gone}: {message}");
    }
    let policy = kubectl.get(&["tsdp", "router", "-n", "network"]).await;
    assert_eq!(policy["status"], status);
    assert_eq!(scene.identity(&tailnet).await, before[2]);

    // Installed again, it continues with them.
    let requests = calls(&scene.simulator);
    scene.helm("install", CHART, &scene.values("2s")).await;
    let _controller = scene.controls().await;
    assert_eq!(scene.identity(&tailnet).await, before[2]);
    assert_eq!(
        calls(&scene.simulator),
        requests,
        "something was sent again"
    );
}

#[tokio::test]
async fn without_a_connection_the_notes_say_what_is_missing() {
    let scene = Scene::new().await;
    let notes = scene.helm("install", CHART, "replicas: 2").await;
    for words in [
        "kubectl -n tsdp-system create secret generic tailscale",
        "tailnet.create",
    ] {
        assert!(notes.contains(words), "{notes}");
    }
    let replicas = ["deployment", "tsdp", "-n", "tsdp-system"];
    eventually(Duration::from_secs(5), async || {
        let deployment = scene.kubectl.get(&replicas).await;
        if deployment["spec"]["replicas"] == 2 {
            Ok(())
        } else {
            Err(deployment.to_string())
        }
    })
    .await;
}
