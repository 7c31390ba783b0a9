//! The Kubernetes side: watches, status, events, leader election, health and metrics.
//!
//! ```text
//! watch ────┬─► tailnets ─┬─► engine of a tailnet ─► status (pure) ─► write ─► the cluster
//! election ─┘  (registry) │          ▲
//!                         │          └── connect ◄─ Secret
//!                         └─► engine of another …
//! invites: beside the engines; asks them for devices      serve: health, metrics, webhooks
//! ```
//!
//! Thin: what is to be done is decided in [`crate::tailnet`] and [`crate::plan`].

mod connect;
pub mod election;
mod invites;
mod options;
mod serve;
mod status;
mod tailnets;
mod vital;
mod watch;
mod write;

use std::{sync::Arc, time::Duration};

use kube::{Client, Config};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use connect::{connection::Connector, environment::Environment};
use election::{Election, Leadership, handover};
use serve::{health, metrics::Metrics, traces::Collector, webhook::Webhooks};
use tailnets::{
    event::{ControllerEvent, Lookups},
    registry::TailnetRegistry,
};
use vital::Vital;
use watch::{Tell, Watches, in_namespaces, readiness::Readiness};
use write::{events::EventWriter, objects::Objects};

pub use connect::environment::{EnvironmentError, FromEnvironment};
pub use options::{Options, StartError};
pub use serve::{METRICS, MetricDefinition, MetricKind};
pub use status::{of_policy, of_tailnet};
pub(crate) use tailnets::policy_input::policy_input;

/// The default namespace outside of a pod.
pub const DEFAULT_NAMESPACE: &str = "tsdp-system";
/// The name of the lease.
/// The name of the lease of the leader.
pub(crate) const LEASE: &str = "tsdp";
/// How long the requests in flight may take to end, below the 30 s that Kubernetes gives a pod.
const DRAIN: Duration = Duration::from_secs(25);

/// How long a deleted policy waits for its devices to be cleared, by default.
pub const CLEAR_TIMEOUT: Duration = Duration::from_mins(10);

/// Runs the controller until `stop` is cancelled.
pub async fn run(
    mut config: Config,
    mut options: Options,
    stop: CancellationToken,
) -> Result<(), StartError> {
    // Each call to the API server is bounded in time here, and tried again where it matters.
    config.default_retry = false;
    let namespace = options
        .namespace
        .clone()
        .unwrap_or_else(|| own_namespace(&config));
    let collector = Collector::of_environment();
    let vital = Vital::start().map_err(StartError::Thread)?;
    let electing_client = vital.client(config.clone()).map_err(unusable)?;
    let client = Client::try_from(config).map_err(unusable)?;
    let readiness = Arc::<Readiness>::default();
    let metrics = Arc::new(Metrics::new(options.policy_metrics, Arc::clone(&readiness)));
    let (leadership, election) = Election::new(
        electing_client,
        &namespace,
        LEASE,
        &identity(),
        options.lease,
    );
    metrics.elects(format!("{namespace}/{LEASE}"), leadership.clone());
    // Both outlive `stop`: probes are answered and the lease is held until the requests in flight
    // have ended.
    let (serving, electing) = (CancellationToken::new(), CancellationToken::new());
    serve_health(&options, &vital, &readiness, &metrics, &serving).await?;
    // Not on the thread of the lease: webhooks come from the internet, and a flood of them must not
    // delay a renewal.
    let webhooks = serve_webhooks(&options, &metrics, &serving).await?;
    let environment = options
        .environment
        .take()
        .map(|from| Environment::connect(from, &namespace, &metrics))
        .transpose()?;
    let election = election
        .telling(report_lease(Arc::clone(&readiness), &namespace))
        .run(electing.clone());
    let election = vital.handle().spawn(election);

    let parts = Parts {
        client,
        namespace,
        leadership,
        metrics,
        readiness,
    };
    let (ending, beside) = parts.manage(options, webhooks, environment, &stop).await;
    drain(ending, beside).await;
    // After the drain: once the lease is released, the next leader may write at once.
    electing.cancel();
    let _ = election.await;
    collector.close().await;
    // Last, so that no probe fails while the process drains.
    serving.cancel();
    Ok(())
}

/// What the reconcilers share.
struct Parts {
    client: Client,
    namespace: String,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

impl Parts {
    /// Runs the engines and the invites until `stop` is cancelled. Returns what still has requests in flight.
    async fn manage(
        self,
        options: Options,
        webhooks: Webhooks,
        environment: Option<Environment>,
        stop: &CancellationToken,
    ) -> (TailnetRegistry, JoinSet<()>) {
        let Self {
            client,
            namespace,
            leadership,
            metrics,
            readiness,
        } = self;
        let namespaces = options.policy_namespaces;
        info!(%namespace, policies = %listed(&namespaces), "tsdp is running");
        let (news, received) = mpsc::unbounded_channel();
        forward_terms(&leadership, &news, stop);
        let events = EventWriter::new(client.clone());
        let mut beside = JoinSet::new();
        // Opt-in, as invites need a role that may write Secrets.
        if options.invites {
            let context = invites::Context {
                client: client.clone(),
                events: events.clone(),
                leadership: leadership.clone(),
                metrics: Arc::clone(&metrics),
                readiness: Arc::clone(&readiness),
                lookups: Lookups::new(news.clone()),
            };
            let watched = in_namespaces("invites", &client, &namespaces);
            beside.spawn(invites::run(context, watched, stop.clone()));
        }
        let tell = tell_of_watches(news.clone());
        let watches = Watches::new(client.clone(), namespaces, Arc::clone(&readiness), tell);
        let objects = Objects::new(
            client.clone(),
            events,
            leadership,
            Arc::clone(&metrics),
            readiness,
        );
        let connector = Connector::new(
            client,
            namespace,
            options.service_account,
            webhooks,
            metrics,
        );
        let timeout = options.clear_timeout;
        let registry =
            TailnetRegistry::new(connector, environment, objects, watches, news, timeout);
        let ending = registry.run(received, stop.clone()).await;
        (ending, beside)
    }
}

/// Waits until the requests in flight have ended, up to a limit.
async fn drain(ending: TailnetRegistry, beside: JoinSet<()>) {
    info!("stopping: waiting for the in-flight requests, sending no others");
    let ended = async { tokio::join!(ending.drained(), beside.join_all()) };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        warn!(
            "some requests did not end in time; the next leader continues from the observed state"
        );
    }
}

fn tell_of_watches(news: mpsc::UnboundedSender<ControllerEvent>) -> Tell {
    Arc::new(move |round, event| news.send(ControllerEvent::Watched(round, event)).is_ok())
}

fn unusable(error: kube::Error) -> StartError {
    StartError::Client(Box::new(error))
}

async fn serve_health(
    options: &Options,
    vital: &Vital,
    readiness: &Arc<Readiness>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let Some(address) = options.listen else {
        return Ok(());
    };
    let (readiness, metrics) = (Arc::clone(readiness), Arc::clone(metrics));
    let served = health::serve(address, readiness, metrics, stop.clone());
    vital
        .handle()
        .spawn(served)
        .await
        .unwrap_or_else(|error| Err(error.into()))
        .map_err(|error| StartError::Listen(address, error, "--listen"))?;
    Ok(())
}

async fn serve_webhooks(
    options: &Options,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Webhooks, StartError> {
    let webhooks = Webhooks::new(Arc::clone(metrics));
    if let Some(address) = options.webhook_listen {
        let served = webhooks.clone().serve(address, stop.clone()).await;
        served.map_err(|error| StartError::Listen(address, error, "--webhook-listen"))?;
    }
    Ok(webhooks)
}

/// Passes each term of leadership on to the registry until `stop` is cancelled.
fn forward_terms(
    leadership: &Leadership,
    news: &mpsc::UnboundedSender<ControllerEvent>,
    stop: &CancellationToken,
) {
    let news = news.clone();
    let terms = handover::forward_terms(leadership.clone(), move |term| {
        news.send(ControllerEvent::Term(term)).is_ok()
    });
    // A term that begins while the process stops must start nothing.
    tokio::spawn(stop.clone().run_until_cancelled_owned(terms));
}

/// The cluster of the pod, or the one of KUBECONFIG.
pub async fn cluster() -> Result<Config, StartError> {
    Ok(Config::infer().await?)
}

fn own_namespace(config: &Config) -> String {
    let in_pod = std::path::Path::new("/var/run/secrets/kubernetes.io/serviceaccount/namespace");
    // Outside of a pod, the namespace of the kubeconfig is whatever its owner last worked in.
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
