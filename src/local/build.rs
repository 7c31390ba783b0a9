//! Builds the programs from Go modules and reports progress.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::{MissedTickBehavior, interval},
};

use super::{Error, failed_to, last_lines};

/// The interval of progress messages.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

const TOOLS_GO: &str = include_str!("../../tests/control-plane/tools.go");

/// Programs that are built together.
#[derive(Debug)]
pub(super) struct Programs {
    /// Their names.
    pub names: &'static [&'static str],
    packages: &'static [&'static str],
    /// The cost of their build, for people who wait for it.
    costs: &'static str,
}

/// The programs that every control plane needs.
pub(super) const SERVERS: Programs = Programs {
    names: &["etcd", "kube-apiserver", "kubectl"],
    packages: &[
        "go.etcd.io/etcd/server/v3",
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kubectl",
    ],
    costs: "once, about 5 minutes on 2 cores, and 4 GB more in the caches of Go",
};

/// A program that few tests need.
pub(super) const CONTROLLER_MANAGER: Programs = Programs {
    names: &["kube-controller-manager"],
    packages: &["k8s.io/kubernetes/cmd/kube-controller-manager"],
    costs: "once, about 2 minutes on 2 cores",
};

/// Builds the versions that go.mod pins in the new folder `work`. Returns the folder of the programs.
pub(super) async fn go_build(
    work: &Path,
    what: &Programs,
    go_mod: &str,
    go_sum: &str,
    version: &str,
) -> Result<PathBuf, Error> {
    let programs = work.join("bin");
    fs::create_dir_all(&programs).map_err(failed_to("make the folder", &programs))?;
    for (name, content) in [
        ("go.mod", go_mod),
        ("go.sum", go_sum),
        ("tools.go", TOOLS_GO),
    ] {
        let path = work.join(name);
        fs::write(&path, content).map_err(failed_to("write", &path))?;
    }

    say(&format!(
        "building the local control plane ({} of Kubernetes {version}) in {}: {}",
        what.names.join(", "),
        work.display(),
        what.costs
    ));
    let mut go = start_go(work, what, version)?;
    let since = Instant::now();
    let output = match go.stderr.take() {
        Some(stderr) => follow(BufReader::new(stderr).lines(), since).await,
        None => String::new(),
    };
    let status = go.wait().await.map_err(|source| Error::Io {
        what: "wait for go build".to_owned(),
        source,
    })?;
    if !status.success() {
        return Err(Error::Build {
            status,
            tail: last_lines(&output, 20),
        });
    }
    // etcd's package is called server.
    let (built, etcd) = (programs.join("server"), programs.join("etcd"));
    if built.exists() {
        fs::rename(&built, &etcd).map_err(failed_to("rename to", &etcd))?;
    }
    say(&format!(
        "built the local control plane in {} s",
        since.elapsed().as_secs()
    ));
    Ok(programs)
}

fn start_go(work: &Path, what: &Programs, version: &str) -> Result<Child, Error> {
    Command::new("go")
        .current_dir(work)
        // A Go workspace around the cache would replace our pinned modules.
        .env("GOWORK", "off")
        // `readonly`: go.sum pins what is built, and a download that differs fails.
        .args(["build", "-v", "-trimpath", "-mod=readonly"])
        .arg(format!("-ldflags={}", ldflags(version)))
        .args(["-o", "bin/"])
        .args(what.packages)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A test that is interrupted must not leave a build behind that takes all cores.
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoGo,
            _ => Error::Io {
                what: "start go".to_owned(),
                source,
            },
        })
}

/// Reads the output of `go build -v` to its end (one line for each package or download).
async fn follow(mut lines: Lines<BufReader<ChildStderr>>, since: Instant) -> String {
    let mut output = String::new();
    let (mut downloads, mut packages) = (0, 0);
    let mut tick = interval(PROGRESS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first tick is immediate, and there is nothing to tell yet.
    tick.tick().await;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return output };
                if line.starts_with("go: downloading ") { downloads += 1 } else { packages += 1 }
                output.push_str(&line);
                output.push('\n');
            }
            _ = tick.tick() => say(&format!(
                "still building the local control plane: {} s, {downloads} modules downloaded, \
                 {packages} packages compiled",
                since.elapsed().as_secs()
            )),
        }
    }
}

/// Without a version set at link time, `kubectl version` and the server say v0.0.0-master.
fn ldflags(version: &str) -> String {
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let mut flags = format!("-s -w{}", set("gitVersion", version));
    let mut numbers = version.trim_start_matches('v').split('.');
    for name in ["gitMajor", "gitMinor"] {
        flags.push_str(&set(name, numbers.next().unwrap_or_default()));
    }
    flags
}

/// Writes to stderr directly: the test harness captures the output of `eprintln!`.
pub(super) fn say(message: &str) {
    // A failure to show progress is no reason to stop.
    let _ = writeln!(io::stderr(), "tsdp: {message}");
}
