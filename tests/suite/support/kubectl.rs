use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};
use tsdp::local::ControlPlane;

/// The kubectl of a control plane for one of its users.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// As the administrator.
    pub fn admin(control_plane: &ControlPlane) -> Self {
        Self::with(control_plane, &control_plane.kubeconfig())
    }

    /// As the user of this kubeconfig.
    pub fn with(control_plane: &ControlPlane, kubeconfig: &Path) -> Self {
        Self {
            program: control_plane.kubectl().to_owned(),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    /// Runs it and returns its output, whether or not it fails.
    pub async fn run(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(&self.program)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            // kubectl's cache of API types would mix up control planes on the same port.
            .env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"))
            .env("KUBECTL_KUBERC", "false")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program.display()));
        let mut input = child.stdin.take().unwrap();
        // The write fails if kubectl ends without reading. Its output then says why.
        let _ = input.write_all(stdin.as_bytes()).await;
        drop(input);
        child.wait_with_output().await.unwrap()
    }

    /// A shell in which `kubectl` is this one and `tsdp` is the program.
    pub fn shell(&self, script: &str) -> Command {
        let programs = [&self.program, Path::new(env!("CARGO_BIN_EXE_tsdp"))];
        let folders = programs.map(|program| program.parent().unwrap().to_owned());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = folders.into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"))
            .env("KUBECTL_KUBERC", "false")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Its output. Panics with the error if it fails.
    pub async fn ok(&self, args: &[&str]) -> String {
        succeeded(args, self.run(args, "").await)
    }

    /// Its error. Panics if it succeeds.
    pub async fn refused(&self, args: &[&str]) -> String {
        failed(args, self.run(args, "").await)
    }

    /// `kubectl apply` of a manifest.
    pub async fn apply(&self, yaml: &str) -> String {
        let args = ["apply", "-f", "-"];
        succeeded(&args, self.run(&args, yaml).await)
    }

    /// The error of `kubectl apply` for a manifest that must be refused.
    pub async fn apply_refused(&self, yaml: &str) -> String {
        let args = ["apply", "-f", "-"];
        failed(&args, self.run(&args, yaml).await)
    }

    /// An object, or a list: `get(&["tsdp", "router", "-n", "network"])`.
    pub async fn get(&self, what: &[&str]) -> Value {
        let args = [&["get", "-o", "json"], what].concat();
        let text = self.ok(&args).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error} in {text}"))
    }

    /// Installs the CRDs of the project, and waits until the API server serves them.
    pub async fn install_crds(&self) {
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
        self.ok(&["apply", "--server-side", "-k", crds]).await;
        self.wait_for("condition=Established", &["crd", "--all"])
            .await;
    }

    /// Waits for a condition with `kubectl wait`: `wait_for("condition=Ready", &["tsdp/router"])`. Shows
    /// the objects on failure.
    pub async fn wait_for(&self, condition: &str, what: &[&str]) {
        let condition = format!("--for={condition}");
        let args = [&["wait", &condition, "--timeout=30s"], what].concat();
        let output = self.run(&args, "").await;
        if !output.status.success() {
            let state = self.run(&[&["get", "-o", "yaml"], what].concat(), "").await;
            panic!(
                "kubectl {}: {}\n{}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&state.stdout)
            );
        }
    }
}

fn succeeded(args: &[&str], output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "kubectl {}: {error}",
        args.join(" ")
    );
    String::from_utf8(output.stdout).unwrap()
}

fn failed(args: &[&str], output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        !output.status.success(),
        "kubectl {} was not refused: {said}",
        args.join(" ")
    );
    String::from_utf8(output.stderr).unwrap()
}
