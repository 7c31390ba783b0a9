use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::eventually;

/// The program `tsdp controller` as a process, killed when dropped. A failed test shows its log.
pub struct Controller {
    child: Child,
    log: PathBuf,
    address: String,
    _folder: TempDir,
}

impl Controller {
    /// Starts it with a kubeconfig. Returns once it serves `/healthz`.
    pub async fn start(kubeconfig: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("controller.log");
        let program =
            std::env::var_os("TSDP_BIN").map_or(env!("CARGO_BIN_EXE_tsdp").into(), PathBuf::from);
        let child = Command::new(program)
            .args([
                "controller",
                "--namespace=tsdp-system",
                "--listen=127.0.0.1:0",
            ])
            .args(args)
            .envs(env.iter().copied())
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut controller = Self {
            child,
            log,
            address: String::new(),
            _folder: folder,
        };
        controller.address = eventually(Duration::from_secs(20), async || {
            let log = controller.log();
            address(&log, "serving /healthz")
                .ok_or(format!("the controller serves nothing:\n{log}"))
        })
        .await;
        controller
    }

    /// Starts it and waits until it is ready.
    pub async fn ready(kubeconfig: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let controller = Self::start(kubeconfig, args, env).await;
        // An API server with new resources may refuse the first watch ("storage is (re)initializing"), and
        // a failed watch counts as failing for a minute.
        controller
            .readyz_within(Duration::from_secs(90), 200, "ok")
            .await;
        controller
    }

    /// Waits for a response of `/readyz` with this status and text.
    pub async fn readyz_says(&self, status: u16, words: &str) {
        self.readyz_within(Duration::from_secs(30), status, words)
            .await;
    }

    /// Waits this long for a response of `/readyz` with this status and text.
    pub async fn readyz_within(&self, limit: Duration, status: u16, words: &str) {
        eventually(limit, async || {
            let (now, body) = self.get("/readyz").await;
            if now == status && body.contains(words) {
                return Ok(());
            }
            Err(format!("/readyz says {now}: {body}"))
        })
        .await;
    }

    /// The status and body of a page that it serves.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client
            .get(format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The address of health and metrics.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address for webhooks.
    pub fn webhook_address(&self) -> String {
        address(&self.log(), "accepting webhooks").unwrap()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has logged this.
    pub async fn logs(&self, words: &str) {
        eventually(Duration::from_secs(30), async || {
            let log = self.log();
            if log.contains(words) {
                Ok(())
            } else {
                Err(format!("no line says '{words}':\n{log}"))
            }
        })
        .await;
    }

    /// The process id, for `/proc`.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Sends SIGKILL: it cannot clean up.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGTERM, as Kubernetes ends a pod.
    pub async fn terminate(&self) {
        let kill = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status();
        assert!(kill.await.unwrap().success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        ended.expect("the controller did not end in 30 s").unwrap()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(80)..].join("\n");
            eprintln!("the controller's log, its end:\n{tail}\n");
        }
    }
}

/// The address in the log line with these words: the program takes a free port.
fn address(log: &str, words: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(words))?;
    let port = line.split("127.0.0.1:").nth(1)?;
    let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{digits}"))
}
