//! The Kubernetes side: watches, status, events, leader election, health and metrics.
//!
//! ```text
//! policies ───┐                   ┌─► engine of tailnet a ─► status, events
//! tailnets ───┼► watch ─► router ─┤        ▲
//! namespaces ─┘                   │        └── connection ◄─ Secret
//! lease ───────────────────────────┴─► engine of tailnet b …
//! ```
//!
//! Thin: what is to be done is decided in [`crate::tailnet`] and [`crate::plan`].
mod connect;
pub mod election;
mod invites;
mod serve;
mod status;
mod tailnets;
mod vital;
mod watch;
mod write;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::{Client, Config};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use connect::{connection::Connector, environment::Environment};
use election::{Election, Timings, handover};
use serve::{health, metrics::Metrics, webhook::Webhooks};
use tailnets::registry::TailnetRegistry;
use vital::Vital;
use watch::{Watches, in_namespaces, readiness::Readiness};
use write::events::EventWriter;

pub use connect::environment::{EnvironmentError, FromEnvironment};
pub use status::{of_policy, of_tailnet};
pub(crate) use tailnets::policy_input::policy_input;

/// The default namespace outside of a pod.
pub const DEFAULT_NAMESPACE: &str = "tsdp-system";
/// The name of the lease.
const LEASE: &str = "tsdp";
/// How long the requests in flight may take to end, below the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(25);

/// How long a deleted policy waits for its devices to be cleared, by default.
pub const CLEAR_TIMEOUT: Duration = Duration::from_mins(10);

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

/// Runs the controller until `stop` is cancelled.
pub async fn run(
    mut config: Config,
    options: Options,
    stop: CancellationToken,
) -> Result<(), StartError> {
    // Each call to the API server is bounded in time here, and tried again where it matters.
    config.default_retry = false;
    let namespace = options.namespace.unwrap_or_else(|| own_namespace(&config));
    let vital = Vital::start().map_err(StartError::Thread)?;
    let unusable = |error| StartError::Client(Box::new(error));
    let electing_client = vital.client(config.clone()).map_err(unusable)?;
    let client = Client::try_from(config).map_err(unusable)?;

    let metrics = Arc::new(Metrics::default());
    let readiness = Arc::new(Readiness::default());
    let serving = CancellationToken::new();
    if let Some(address) = options.listen {
        let (readiness, metrics) = (Arc::clone(&readiness), Arc::clone(&metrics));
        let served = health::serve(address, readiness, metrics, serving.clone());
        let served = vital.handle().spawn(served).await;
        let served = served.unwrap_or_else(|error| Err(error.into()));
        served.map_err(|error| StartError::Listen(address, error, "--listen"))?;
    }
    let webhooks = Webhooks::default();
    if let Some(address) = options.webhook_listen {
        let served = webhooks.clone().serve(address, serving.clone()).await;
        served.map_err(|error| StartError::Listen(address, error, "--webhook-listen"))?;
    }
    let environment = options.environment;
    let environment = environment
        .map(|from| Environment::connect(from, &namespace, &metrics))
        .transpose()?;
    let electing = CancellationToken::new();
    let (leadership, election) = Election::new(
        electing_client,
        &namespace,
        LEASE,
        &identity(),
        options.lease,
    );
    let election = election.telling(report_lease(Arc::clone(&readiness), &namespace));
    let election = vital.handle().spawn(election.run(electing.clone()));

    info!(%namespace, policies = %listed(&options.policy_namespaces), "tsdp is running");
    let (news, received) = mpsc::unbounded_channel();
    let terms = handover::forward_terms(leadership.clone(), news.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(terms));
    let namespaces = options.policy_namespaces;
    let events = EventWriter::new(client.clone());
    let mut beside = JoinSet::new();
    if options.invites {
        let context = invites::Context {
            client: client.clone(),
            events: events.clone(),
            leadership: leadership.clone(),
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
            router: news.clone(),
        };
        let watched = in_namespaces("invites", &client, &namespaces);
        beside.spawn(invites::run(context, watched, stop.clone()));
    }
    let watches = Watches::new(client.clone(), namespaces, Arc::clone(&readiness), news);
    let connector = Connector {
        cluster: client,
        namespace,
        service_account: options.service_account,
        webhooks,
        metrics,
        readiness,
        environment,
    };
    let router = TailnetRegistry::new(
        connector,
        events,
        leadership,
        watches,
        options.clear_timeout,
    );
    let ending = router.run(received, stop.clone()).await;

    info!("stopping: waiting for the requests in flight, starting no others");
    let ended = async { tokio::join!(ending.drained(), beside.join_all()) };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        warn!(
            "some requests did not end in time; the next leader continues from the observed state"
        );
    }
    electing.cancel();
    let _ = election.await;
    serving.cancel();
    Ok(())
}

/// The cluster of the pod, or the one of KUBECONFIG.
pub async fn cluster() -> Result<Config, StartError> {
    Ok(Config::infer().await?)
}

fn own_namespace(config: &Config) -> String {
    let in_pod = std::path::Path::new("/var/run/secrets/kubernetes.io/serviceaccount/namespace");
    if in_pod.exists() {
        config.default_namespace.clone()
    } else {
        DEFAULT_NAMESPACE.to_owned()
    }
}

/// Reports whether the election can use the lease.
fn report_lease(readiness: Arc<Readiness>, namespace: &str) -> impl Fn(Result<(), &str>) + use<> {
    let what = format!("the lease {LEASE} in namespace {namespace} cannot be used");
    move |outcome| {
        readiness.tried(&what, outcome);
    }
}

/// Distinguishes this process from every other one, also from the next one in the same pod.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "tsdp".to_owned());
    format!("{host}_{:08x}", fastrand::u32(..))
}

fn listed(namespaces: &[String]) -> String {
    if namespaces.is_empty() {
        "all namespaces".to_owned()
    } else {
        namespaces.join(",")
    }
}
