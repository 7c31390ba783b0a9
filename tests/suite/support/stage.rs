use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use tsdp::{
    local::{Binaries, ControlPlane, ControllerManager},
    simulator::{self, LoggedRequest, Simulator},
};

use super::{
    Controller, Kubectl, control_plane, eventually,
    statuses::{Statuses, condition},
};

/// The longest wait for an expected state. Most take a second or two.
const PATIENCE: Duration = Duration::from_secs(40);
/// The credential of most tests.
pub const API_KEY: &str = "tskey-api-e2e";
pub const POLICY_FILE: &str =
    r#"{"tagOwners": {"tag:router": [], "tag:fra": [], "tag:db": [], "tag:ci": []}}"#;

/// A cluster with everything from `deploy/` but a running controller, a simulated tailnet, and the
/// connection between the two.
pub struct Stage {
    pub kubectl: Kubectl,
    pub simulator: Simulator,
    policies: Option<Statuses>,
    tailnets: Option<Statuses>,
    invites: Option<Statuses>,
    /// Acts as the shipped service account, with its permissions and no others.
    kubeconfig: PathBuf,
    control_plane: ControlPlane,
}

impl Stage {
    /// With the tailnet of the demo.
    pub async fn new() -> Self {
        Self::with(demo_devices(), API_KEY).await
    }

    /// With these devices, and a credential.
    pub async fn with(devices: Vec<Value>, api_key: &str) -> Self {
        let mut stage = Self::without_resources(devices, api_key).await;
        stage.install().await;
        stage.connect(api_key).await;
        stage
    }

    /// With the namespace and the permissions of the controller, but not yet its resources.
    pub async fn without_resources(devices: Vec<Value>, api_key: &str) -> Self {
        let options = simulator::Options {
            devices,
            api_keys: vec![api_key.into()],
            policy_file: Some(POLICY_FILE.to_owned()),
            ..simulator::Options::default()
        };
        let simulator = Simulator::start(options).await.unwrap();
        let control_plane = control_plane().await;
        let kubectl = Kubectl::admin(&control_plane);
        for file in [
            "deploy/namespace.yaml",
            "deploy/rbac.yaml",
            "deploy/examples/00-namespace.yaml",
        ] {
            kubectl
                .ok(&["apply", "--server-side", "-f", &in_repository(file)])
                .await;
        }
        let kubeconfig = control_plane
            .kubeconfig_for("tsdp-system", "tsdp")
            .await
            .unwrap();
        Self {
            kubectl,
            simulator,
            policies: None,
            tailnets: None,
            invites: None,
            kubeconfig,
            control_plane,
        }
    }

    /// Installs all of `deploy/` and records each status from then on.
    pub async fn install(&mut self) {
        self.deploy().await;
        let crds = [
            "crd/tailscaledevicepolicies.tailnet.dev",
            "crd/tailscaletailnets.tailnet.dev",
            "crd/tailscaledeviceinvites.tailnet.dev",
        ];
        self.kubectl.wait_for("condition=Established", &crds).await;
        let watch = |kind, plural| Some(Statuses::watch(self.control_plane.client(), kind, plural));
        self.policies = watch("TailscaleDevicePolicy", "tailscaledevicepolicies");
        self.tailnets = watch("TailscaleTailnet", "tailscaletailnets");
        self.invites = watch("TailscaleDeviceInvite", "tailscaledeviceinvites");
    }

    /// Applies `deploy/`. Its Deployment has no pods: nothing here creates any.
    pub async fn deploy(&self) {
        let deploy = in_repository("deploy");
        self.kubectl
            .ok(&["apply", "--server-side", "-k", &deploy])
            .await;
    }

    /// Creates the Secret and the connection `default`.
    pub async fn connect(&self, api_key: &str) {
        self.secret(&json!({"api_key": api_key})).await;
        self.kubectl.apply(&self.tailnet_manifest()).await;
    }

    /// Creates or changes the Secret with the credential.
    pub async fn secret(&self, data: &Value) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "tailscale", "namespace": "tsdp-system"},
            "stringData": data,
        });
        self.kubectl.apply(&secret.to_string()).await;
    }

    /// The connection to the simulator, with far more requests than the real API allows.
    pub fn tailnet_manifest(&self) -> String {
        let tailnet = json!({
            "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleTailnet",
            "metadata": {"name": "default"},
            "spec": {
                "apiURL": self.simulator.url(),
                "credentialsSecret": {"name": "tailscale"},
                "pollInterval": "1s",
                "attributesInterval": "2s",
                "requestBudget": {"perSecond": 200, "burst": 1000},
                // Most tests change most of their few devices.
                "maxChangedDevices": "100%",
                // Tests write policies into several namespaces.
                "allowedPolicies": [{}],
            },
        });
        tailnet.to_string()
    }

    /// Sets how many devices of the tailnet may be changed within an hour.
    pub async fn max_changed_devices(&self, limit: &str) {
        let patch = json!({"spec": {"maxChangedDevices": limit}}).to_string();
        self.kubectl
            .ok(&["patch", "tstn", "default", "--type=merge", "-p", &patch])
            .await;
    }

    /// Approves by the annotation of an object: `approve(&["tsdp", "nas", "-n", "network"], "plan:…")`.
    pub async fn approve(&self, object: &[&str], approval: &str) {
        let annotation = format!("tailnet.dev/approve={approval}");
        let args = [&["annotate", "--overwrite"], object, &[&annotation]].concat();
        self.kubectl.ok(&args).await;
    }

    /// Waits until a policy in `network` holds a plan that is not `before`, and gives its hash.
    pub async fn held_plan(&self, name: &str, before: &str) -> String {
        let name = format!("network/{name}");
        eventually(PATIENCE, async || {
            let object = self.policies.as_ref().unwrap().now(&name);
            let status = object.map(|object| object["status"].clone());
            let hash = status
                .as_ref()
                .and_then(|status| status["heldPlan"]["hash"].as_str());
            match hash {
                Some(hash) if hash != before => Ok(hash.to_owned()),
                _ => Err(format!("no new plan is held: {status:?}")),
            }
        })
        .await
    }

    /// Starts a kube-controller-manager, which terminates namespaces and collects garbage.
    pub async fn controller_manager(&self) -> ControllerManager {
        let binaries = Binaries::find_or_build().await.unwrap();
        let started = self.control_plane.controller_manager(&binaries).await;
        started.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A client of the administrator.
    pub fn client(&self) -> kube::Client {
        self.control_plane.client()
    }

    /// Starts the controller and waits until it is ready.
    pub async fn controller(&self) -> Controller {
        Controller::ready(&self.kubeconfig, &[], &[]).await
    }

    /// The kubeconfig of the shipped service account.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Applies a policy in the namespace `network`.
    pub async fn policy(&self, name: &str, spec: &str) {
        self.kubectl
            .apply(&format!(
                "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, \
                 metadata: {{name: {name}, namespace: network}}, spec: {spec}}}"
            ))
            .await;
    }

    /// Waits until the status of a policy in `network` is this, in the form of [`words`].
    pub async fn policy_says(&self, name: &str, expected: &str) {
        let name = format!("network/{name}");
        says(self.policies.as_ref().unwrap(), &name, expected).await;
    }

    /// Waits until the condition Ready of a policy in `network` has this reason.
    pub async fn policy_reason(&self, name: &str, reason: &str) {
        let name = format!("network/{name}");
        eventually(PATIENCE, async || {
            let words = self
                .policies
                .as_ref()
                .unwrap()
                .now(&name)
                .map_or(String::new(), |object| words(&object));
            if words.split([' ', ':']).nth(1) == Some(reason) {
                Ok(())
            } else {
                Err(words)
            }
        })
        .await;
    }

    /// The number of policies in sync at their present generation.
    pub fn policies_ready(&self) -> usize {
        let all = self.policies.as_ref().unwrap().all();
        all.iter()
            .filter(|object| words(object).starts_with("True"))
            .count()
    }

    /// Waits until the status of a tailnet is this, in the form of [`words`].
    pub async fn tailnet_says(&self, name: &str, expected: &str) {
        says(self.tailnets.as_ref().unwrap(), name, expected).await;
    }

    /// Waits until the status of an invite in `network` is this, in the form of [`words`].
    pub async fn invite_says(&self, name: &str, expected: &str) {
        let name = format!("network/{name}");
        says(self.invites.as_ref().unwrap(), &name, expected).await;
    }

    /// Waits for an Event about a policy in `network`. `note` is its full text.
    pub async fn event(&self, policy: &str, reason: &str, note: &str) {
        eventually(PATIENCE, async || {
            let events = self
                .kubectl
                .get(&["events.v1.events.k8s.io", "-n", "network"])
                .await;
            let events_seen: Vec<_> = events["items"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|event| event["regarding"]["name"] == policy)
                .map(|event| {
                    (
                        event["reason"].clone(),
                        normal(event["note"].as_str().unwrap_or_default()),
                    )
                })
                .collect();
            if events_seen.iter().any(|(r, n)| r == reason && n == note) {
                return Ok(());
            }
            Err(format!("no Event {reason} '{note}' among {events_seen:#?}"))
        })
        .await;
    }

    /// Waits until a device of the simulator has this state.
    pub async fn device_has(&self, id: &str, expected: Value) {
        eventually(PATIENCE, async || {
            let device = self.simulator.device(id).unwrap();
            let (now, expected_fields) = (&device, expected.as_object().unwrap());
            let wrong: Vec<_> = expected_fields
                .iter()
                .filter(|(field, value)| now[*field] != **value)
                .collect();
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(format!("{id} is {device}, expected {wrong:?}"))
            }
        })
        .await;
    }

    /// The nodeId of the device with a hostname.
    pub fn node(&self, hostname: &str) -> String {
        let devices = self.simulator.devices().unwrap();
        let device = devices
            .iter()
            .find(|device| device["hostname"] == hostname)
            .unwrap();
        device["nodeId"].as_str().unwrap().to_owned()
    }

    /// Waits for this many more polls.
    pub async fn polls(&self, times: usize) {
        let count = || lists(&self.simulator.requests());
        let before = count();
        eventually(PATIENCE, async || {
            let now = count();
            if now >= before + times {
                Ok(())
            } else {
                Err(format!("{} lists", now - before))
            }
        })
        .await;
    }
}

/// In every test, each observed status must follow the rules for all statuses.
impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let watched = [&self.policies, &self.tailnets, &self.invites];
        for statuses in watched.into_iter().flatten() {
            statuses.follow_the_rules();
        }
    }
}

/// The devices of `tsdp demo`, each with a few differences from `deploy/examples`.
pub fn demo_devices() -> Vec<Value> {
    simulator::read_devices(Path::new(&in_repository("src/cli/demo/tailnet.yaml"))).unwrap()
}

/// The requests that change something, as `POST /device/n1/tags`.
pub fn calls(simulator: &Simulator) -> Vec<String> {
    let requests = simulator.requests();
    let writes = requests.iter().filter(|request| request.method != "GET");
    writes
        .map(|request| {
            format!(
                "{} {}",
                request.method,
                request.path.trim_start_matches("/api/v2")
            )
        })
        .collect()
}

fn lists(requests: &[LoggedRequest]) -> usize {
    let of_list =
        |request: &&LoggedRequest| request.method == "GET" && request.path.contains("/devices");
    requests.iter().filter(of_list).count()
}

async fn says(statuses: &Statuses, name: &str, expected: &str) {
    eventually(PATIENCE, async || {
        let object = statuses.now(name).ok_or(format!("there is no {name}"))?;
        let now = words(&object);
        if now == expected {
            Ok(())
        } else {
            Err(format!(
                "{name} says\n  {now}\nexpected\n  {expected}\n{}",
                object["status"]
            ))
        }
    })
    .await;
}

/// A status in short: `False DeviceNotFound (Reconciling): No device …`, or `…` if it is not yet of the
/// present generation. Request ids, which differ each time, become `REQ-…`.
fn words(object: &Value) -> String {
    if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
        return "…".to_owned();
    }
    let Some(ready) = condition(object, "Ready") else {
        return "…".to_owned();
    };
    let text = |field: &str| ready[field].as_str().unwrap_or_default();
    let beside = ["Reconciling", "Stalled"]
        .into_iter()
        .find(|kind| condition(object, kind).is_some());
    let beside = beside.map_or(String::new(), |kind| format!(" ({kind})"));
    format!(
        "{} {}{beside}: {}",
        text("status"),
        text("reason"),
        normal(text("message"))
    )
}

/// A text without its variable parts.
fn normal(text: &str) -> String {
    let mut parts = text.split("REQ-");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "REQ-…" + part.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric())
    })
}

fn in_repository(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}
