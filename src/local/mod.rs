//! A control plane (etcd and kube-apiserver) on this machine: for the tests and `tsdp demo --kubernetes`.
//!
//! It listens on 127.0.0.1 only and persists nothing. Store no valuable data in it: anyone who can run
//! programs on this machine can reach its etcd. It knows nothing of Tailscale or of our resources.

mod binaries;
mod build;
mod control_plane;
mod process;

use std::{io, path::PathBuf};

pub use binaries::Binaries;
pub use control_plane::{ControlPlane, ControllerManager};

/// Why the local control plane did not start, and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `KUBEBUILDER_ASSETS` is set and its folder lacks a program.
    #[error(
        "KUBEBUILDER_ASSETS is {folder}, which has no program '{program}': it must have etcd, kube-apiserver and kubectl. \
         Correct it, or unset it to have them built (needs Go 1.26 or later)"
    )]
    IncompleteAssets {
        /// The folder that the variable names.
        folder: PathBuf,
        /// The first missing program.
        program: &'static str,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[error(
        "no place to keep the built control plane: set HOME or XDG_CACHE_HOME, \
         or KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"
    )]
    NoCache,
    /// The programs must be built and there is no `go`.
    #[error(
        "etcd, kube-apiserver and kubectl have to be built once, and 'go' was not found in PATH: install Go 1.26 or later \
         (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder that has the three"
    )]
    NoGo,
    /// `go build` failed.
    #[error(
        "building etcd, kube-apiserver and kubectl failed ({status}). The last lines of go build:\n{tail}\n\
         It needs Go 1.26 or later and a Go module proxy (see `go env GOPROXY`). \
         Or set KUBEBUILDER_ASSETS to a folder that has the three"
    )]
    Build {
        /// The exit status of `go`.
        status: std::process::ExitStatus,
        /// The end of its output.
        tail: String,
    },
    /// A program ended or did not become ready.
    #[error("the local control plane did not start: {what}. The last lines of its logs:\n{tail}")]
    Start {
        /// The program and its failure.
        what: String,
        /// The end of the logs of etcd and kube-apiserver.
        tail: String,
    },
    /// A file or process could not be used.
    #[error("cannot {what}: {source}")]
    Io {
        /// The operation, with the path.
        what: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The new control plane refused a request.
    #[error("the local control plane refused to {what}: {source}")]
    Refused {
        /// The request.
        what: String,
        /// The response.
        source: Box<kube::Error>,
    },
}

/// Adds the operation to an I/O error: `.map_err(failed_to("read", path))`.
fn failed_to(act: &str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
    let what = format!("{act} {}", path.display());
    move |source| Error::Io { what, source }
}

/// The last `lines` lines of a text.
fn last_lines(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
