//! The options of the controller, and why it could not start.

use std::{net::SocketAddr, time::Duration};

use super::{
    connect::environment::{EnvironmentError, FromEnvironment},
    election::Timings,
};

/// The options of the controller.
#[derive(Debug, Clone)]
pub struct Options {
    /// The controller's own namespace: of its lease and of the Secrets with credentials.
    /// `None`: the pod's own, else `tsdp-system`.
    pub namespace: Option<String>,
    /// The namespaces whose policies and invites are reconciled; empty: all.
    pub policy_namespaces: Vec<String>,
    /// Whether invites are reconciled.
    pub invites: bool,
    /// The address for health and metrics; `None`: not served.
    pub listen: Option<SocketAddr>,
    /// The number of policies that metrics name.
    pub policy_metrics: usize,
    /// The address for webhooks of Tailscale; `None`: not served.
    pub webhook_listen: Option<SocketAddr>,
    /// The controller's own service account, for workload identity; `None`: not known.
    pub service_account: Option<String>,
    /// How quickly another replica takes over.
    pub lease: Timings,
    /// How long a deleted policy may wait for its devices to be cleared.
    pub clear_timeout: Duration,
    /// The tailnet `default`, if no resource describes it.
    pub environment: Option<FromEnvironment>,
}

/// Why the controller could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No cluster is configured.
    #[error("no cluster is configured: {0}; run inside of one, or set KUBECONFIG")]
    Cluster(#[from] kube::config::InferConfigError),
    /// The configuration of the cluster is invalid.
    #[error("the cluster's configuration cannot be used: {0}")]
    Client(Box<kube::Error>),
    /// The environment describes no connection.
    #[error("cannot set up the connection from the environment: {0}")]
    Environment(#[from] EnvironmentError),
    /// The system refused another thread.
    #[error("cannot start a thread: {0}; give the process more threads or memory")]
    Thread(std::io::Error),
    /// The address is in use or not local.
    #[error("cannot listen on {0}: {1}; choose another one by {2}")]
    Listen(SocketAddr, std::io::Error, &'static str),
}
