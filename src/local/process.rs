//! The processes of a control plane. They start with a log file and end with their owner.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Error, failed_to};

/// A program that runs in the background and is killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`. Its output goes to `<folder>/<name>.log`.
    pub(super) fn start(
        name: &'static str,
        program: &Path,
        args: &[String],
        folder: &Path,
    ) -> Result<Self, Error> {
        let log = folder.join(format!("{name}.log"));
        let stdout = File::create(&log).map_err(failed_to("write", &log))?;
        let stderr = stdout.try_clone().map_err(failed_to("write", &log))?;
        let child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            // Ctrl-C in the terminal must reach only our process: it ends its own work before the control
            // plane.
            .process_group(0)
            .spawn()
            .map_err(failed_to("start", program))?;
        Ok(Self { name, child, log })
    }

    /// The exit status, if the process has ended.
    pub(super) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("{} ended ({status})", self.name)),
            Err(error) => Some(format!("{} cannot be watched: {error}", self.name)),
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("{}: {error}", self.log.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills processes and removes their folder if our process dies without cleanup (SIGKILL, abort).
///
/// A shell that waits for the end of its input: the system closes our end of the pipe however we die. It is
/// dropped before the processes, because their ids may be reused.
#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    pub(super) fn over(processes: &[&Process], folder: &Path) -> Result<Self, Error> {
        let script =
            r#"folder=$1; shift; read -r _; kill -KILL "$@"; sleep 1; rm -rf -- "$folder""#;
        let child = Command::new("sh")
            .args(["-c", script, "tsdp-guard"])
            .arg(folder)
            .args(
                processes
                    .iter()
                    .map(|process| process.child.id().to_string()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed_to("start", Path::new("sh")))?;
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // `wait` closes the shell's input, so the shell must be dead by then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that were free a moment ago. Another process may take one before it is used.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let failed = |source| Error::Io {
        what: "find a free port on 127.0.0.1".to_owned(),
        source,
    };
    // All ports are held at once, so that they differ.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        held.push(listener);
    }
    Ok(ports)
}
