//! The program as a process, and its simulated tailnet.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};
use tsdp::simulator::{self, Simulator};

use crate::support::on_terminal;

pub const API_KEY: &str = "tskey-api-cli";
/// In the folder of each [`Tailnet`]: the policies of the demo.
pub const EXAMPLES: &str = "examples";
/// A tailnet without a limit of changed devices.
pub const NO_LIMIT: &str = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, \
     metadata: {name: default}, \
     spec: {credentialsSecret: {name: tailscale}, maxChangedDevices: 100%, allowedPolicies: [{}]}}";
/// Variables that would override those of a test.
const INHERITED: [&str; 12] = [
    "TAILSCALE_API_KEY",
    "TAILSCALE_OAUTH_CLIENT_ID",
    "TAILSCALE_OAUTH_CLIENT_SECRET",
    "TAILSCALE_IDENTITY_TOKEN",
    "TAILSCALE_TAILNET",
    "TAILSCALE_BASE_URL",
    "OAUTH_CLIENT_ID",
    "OAUTH_CLIENT_SECRET",
    "NO_COLOR",
    "COLUMNS",
    "TSDP_LOG",
    "KUBECONFIG",
];

/// The program with its own environment.
pub fn program() -> Command {
    program_of(env!("CARGO_BIN_EXE_tsdp"))
}

fn program_of(path: &str) -> Command {
    let mut command = Command::new(path);
    for name in INHERITED {
        command.env_remove(name);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let ran = Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        let reported = format!("{}{}", ran.out, ran.err);
        assert!(
            !reported.contains(API_KEY),
            "a credential is printed: {reported}"
        );
        ran
    }
}

impl Ran {
    /// The output, if the exit code was this one.
    pub fn with_code(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self.out
    }

    pub fn ok(self) -> String {
        self.with_code(0)
    }
}

/// A simulated tailnet, and a folder for files.
pub struct Tailnet {
    pub simulator: Simulator,
    pub folder: TempDir,
}

impl Tailnet {
    pub async fn of(devices: Vec<Value>) -> Self {
        Self::with(simulator::Options {
            devices,
            ..simulator::Options::default()
        })
        .await
    }

    /// A tailnet with a policy file of its own.
    pub async fn with_policy_file(devices: Vec<Value>, policy_file: &str) -> Self {
        Self::with(simulator::Options {
            devices,
            policy_file: Some(policy_file.to_owned()),
            ..simulator::Options::default()
        })
        .await
    }

    /// The tailnet of the demo, with owners for the tags of its policies.
    pub async fn demo() -> Self {
        Self::with(simulator::Options {
            devices: demo_devices(),
            policy_file: Some(crate::support::POLICY_FILE.to_owned()),
            ..simulator::Options::default()
        })
        .await
    }

    async fn with(options: simulator::Options) -> Self {
        let options = simulator::Options {
            api_keys: vec![API_KEY.into()],
            ..options
        };
        let folder = tempfile::tempdir().unwrap();
        lay_examples(&folder.path().join(EXAMPLES));
        Self {
            simulator: Simulator::start(options).await.unwrap(),
            folder,
        }
    }

    /// Three hundred devices of all kinds, some with attributes, and some with settings that no policy can
    /// declare.
    pub async fn large() -> Self {
        let mut devices = simulator::generate(300, 5);
        for (number, device) in devices.iter_mut().enumerate() {
            if device["isExternal"] == true {
                continue;
            }
            if number % 3 == 0 {
                device["attributes"] = json!({"custom:tier": "gold", "custom:rank": number % 2});
            }
            if number % 50 == 1 {
                device["enabledRoutes"] = json!(["::/0"]);
            }
        }
        Self::of(devices).await
    }

    /// The program, connected to this tailnet.
    pub fn tsdp(&self, args: &[&str]) -> Command {
        let mut command = program();
        command
            .args(args)
            .args(["--requests-per-second", "1000"])
            .current_dir(self.folder.path())
            .env("TAILSCALE_API_KEY", API_KEY)
            .env("TAILSCALE_BASE_URL", self.simulator.url());
        command
    }

    pub async fn run(&self, args: &[&str]) -> Ran {
        self.tsdp(args).output().await.unwrap().into()
    }

    /// Like [`Tailnet::run`], with this standard input.
    pub async fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.tsdp(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        child.wait_with_output().await.unwrap().into()
    }

    /// Runs a shell command with `tsdp` on a real terminal where somebody types.
    pub async fn on_terminal(&self, line: &str, columns: u16, typed: &str) -> Ran {
        let folder = Path::new(env!("CARGO_BIN_EXE_tsdp")).parent().unwrap();
        let line = on_terminal(line, columns, typed);
        let mut shell = program_of("bash");
        let ran = shell
            .args(["-euo", "pipefail", "-c"])
            .arg(format!("PATH={}:$PATH; {line}", folder.display()))
            .current_dir(self.folder.path())
            .env("TERM", "xterm-256color")
            .env("TAILSCALE_API_KEY", API_KEY)
            .env("TAILSCALE_BASE_URL", self.simulator.url());
        let mut ran = Ran::from(ran.output().await.unwrap());
        ran.out = ran.out.replace("\r\n", "\n");
        ran
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The requests so far, as `GET /tailnet/-/devices?fields=all`. Clears them.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.simulator.requests();
        self.simulator.clear_requests();
        requests
            .iter()
            .map(|request| {
                let path = request.path.trim_start_matches("/api/v2");
                format!("{} {path}", request.method)
            })
            .collect()
    }
}

/// The devices of the demo, each with a few differences from `deploy/examples`.
pub fn demo_devices() -> Vec<Value> {
    crate::support::demo_devices()
}

/// Copies the policies of the demo into a folder, with a tailnet without a limit of changed devices.
fn lay_examples(folder: &Path) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    fs::create_dir(folder).unwrap();
    for name in [
        "amelie-laptop",
        "ci-runner",
        "fra-router",
        "lobby-kiosk",
        "old-gateway",
        "orders-db",
    ] {
        let file = format!("{name}.yaml");
        fs::copy(examples.join(&file), folder.join(&file)).unwrap();
    }
    fs::write(folder.join("tailnet.yaml"), NO_LIMIT).unwrap();
}
