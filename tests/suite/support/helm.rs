use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};
use tsdp::local::ControlPlane;

use super::{documents, go_tool};

/// The chart of the repository.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/helm/tsdp");

/// Helm (pinned in `tests/helm/go.mod`, or `$HELM`) with settings and caches of its own.
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: TempDir,
}

impl Helm {
    /// Without a cluster.
    pub fn new() -> Self {
        Self {
            program: go_tool("tests/helm", "helm", "HELM"),
            kubeconfig: None,
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// As the administrator of this cluster.
    pub fn admin(control_plane: &ControlPlane) -> Self {
        Self {
            kubeconfig: Some(control_plane.kubeconfig()),
            ..Self::new()
        }
    }

    /// Runs it with values, as YAML. Returns its output, whether or not it fails.
    pub async fn run(&self, args: &[&str], values: &str) -> Output {
        let home = self.home.path();
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
            .env("KUBECACHEDIR", home.join("kube"))
            .env(
                "KUBECONFIG",
                self.kubeconfig
                    .as_deref()
                    .unwrap_or(Path::new("/nonexistent")),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if !values.is_empty() {
            command.args(["--values", "-"]);
        }
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start {}: {error}", self.program.display());
        });
        let mut input = child.stdin.take().unwrap();
        // The write fails if Helm ends without reading. Its output then says why.
        let _ = input.write_all(values.as_bytes()).await;
        drop(input);
        child.wait_with_output().await.unwrap()
    }

    /// Its output. Panics with the error if it fails.
    pub async fn ok(&self, args: &[&str], values: &str) -> String {
        let output = self.run(args, values).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "helm {}: {error}\nvalues: {values}",
            args.join(" ")
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its error. Panics if it succeeds.
    pub async fn refused(&self, args: &[&str], values: &str) -> String {
        let output = self.run(args, values).await;
        assert!(
            !output.status.success(),
            "helm {} was not refused with {values}",
            args.join(" ")
        );
        String::from_utf8(output.stderr).unwrap()
    }

    /// The objects of the chart with these values, as for the release `tsdp` in `tsdp-system`.
    pub async fn objects(&self, values: &str) -> Vec<Value> {
        let args = [
            "template",
            "tsdp",
            CHART,
            "--namespace=tsdp-system",
            "--kube-version=1.34.0",
        ];
        documents(&self.ok(&args, values).await)
    }
}
