//! `tsdp controller`.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use clap::Args;

use super::{
    connection::{ConnectionArgs, ConnectionError, Environment},
    process::{AnyError, on_signal},
};
use crate::controller::{self, FromEnvironment, Options, election::Timings};

/// The options of the controller.
#[derive(Debug, Args)]
#[command(after_help = "\
Inside a cluster, the controller uses its service account. Outside, it uses KUBECONFIG.
With OTEL_EXPORTER_OTLP_ENDPOINT, it sends traces to an OpenTelemetry collector.

Examples:
  tsdp controller                                  as in deploy/
  tsdp controller --listen 127.0.0.1:8080          outside a cluster
  tsdp controller --policy-namespaces network,lab  watch these namespaces only")]
pub(super) struct ControllerArgs {
    /// The controller's own namespace, which holds its Lease and the Secrets with credentials
    /// [default: the pod's own, else tsdp-system].
    #[arg(long, env = "TSDP_NAMESPACE", value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The namespaces whose policies and invites the controller watches, separated by commas [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACES")]
    policy_namespaces: Vec<String>,
    /// Also create invites (TailscaleDeviceInvite). This needs the permissions of deploy/components/invites.
    #[arg(long)]
    invites: bool,
    /// The address on which the controller serves /healthz, /readyz and /metrics.
    #[arg(long, default_value_t = default_listen(), value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Serve the number of matched devices of each policy as a metric, for at most this many policies. Each is a
    /// time series with the policy's namespace and name.
    #[arg(
        hide_short_help = true,
        long,
        default_value_t = 0,
        value_name = "NUMBER"
    )]
    policy_metrics: usize,
    /// The address on which the controller receives Tailscale's webhooks: POST /webhook/NAME for the
    /// TailscaleTailnet NAME, if its Secret has the key webhook_secret [default: none].
    #[arg(long, value_name = "ADDRESS")]
    webhook_listen: Option<SocketAddr>,
    /// The controller's own service account. The controller authenticates with its tokens to tailnets whose
    /// Secret has the key audience (workload identity).
    #[arg(
        hide_short_help = true,
        long,
        env = "POD_SERVICE_ACCOUNT",
        value_name = "NAME"
    )]
    service_account: Option<String>,
    /// Use the connection in the environment (the variables of Tailscale's Terraform provider) as the
    /// tailnet "default", until a TailscaleTailnet of that name exists. It allows only policies in the
    /// controller's own namespace.
    #[arg(long)]
    tailnet_from_env: bool,
    /// How long the Lease lasts without a renewal, in seconds. A leader that cannot renew it stops writing
    /// after two thirds of this time.
    #[arg(hide_short_help = true, long, default_value_t = LEASE_DURATION, value_name = "SECONDS")]
    lease_duration: NonZeroU16,
    /// How long the cleanup of a deleted policy (deletionPolicy: Clear) may go without progress, in seconds.
    /// After that, the controller releases the policy, and an Event reports the settings that remain. The
    /// time counts from when this controller becomes the leader, and stops while maxChangedDevices or a
    /// missing approval holds the cleanup.
    #[arg(hide_short_help = true, long, default_value_t = CLEAR_TIMEOUT_SECONDS, value_name = "SECONDS")]
    clear_timeout: u64,
}

// In a constant the unwrap is checked at compile time.
const LEASE_DURATION: NonZeroU16 = NonZeroU16::new(15).unwrap();

const CLEAR_TIMEOUT_SECONDS: u64 = controller::CLEAR_TIMEOUT.as_secs();

impl Default for ControllerArgs {
    fn default() -> Self {
        Self {
            namespace: None,
            policy_namespaces: Vec::new(),
            invites: false,
            listen: default_listen(),
            policy_metrics: 0,
            webhook_listen: None,
            service_account: None,
            tailnet_from_env: false,
            lease_duration: LEASE_DURATION,
            clear_timeout: CLEAR_TIMEOUT_SECONDS,
        }
    }
}

fn default_listen() -> SocketAddr {
    // All addresses: the kubelet probes the address of the pod, not localhost.
    SocketAddr::from(([0, 0, 0, 0], 8080))
}

/// The environment describes no connection.
#[derive(Debug, thiserror::Error)]
#[error("--tailnet-from-env: {0}")]
struct InvalidEnvironment(#[source] ConnectionError);

fn from_environment() -> Result<FromEnvironment, InvalidEnvironment> {
    let described = Environment::of_process()
        .connection(&ConnectionArgs::default())
        .map_err(InvalidEnvironment)?;
    Ok(FromEnvironment {
        settings: described.settings,
        credential: described.credential,
    })
}

/// Runs the controller until Ctrl-C or SIGTERM.
pub(super) async fn run(args: ControllerArgs) -> Result<(), AnyError> {
    let options = Options {
        namespace: args.namespace,
        policy_namespaces: args.policy_namespaces,
        invites: args.invites,
        listen: Some(args.listen),
        policy_metrics: args.policy_metrics,
        webhook_listen: args.webhook_listen,
        service_account: args.service_account,
        lease: Timings::of_lease(args.lease_duration),
        clear_timeout: Duration::from_secs(args.clear_timeout),
        environment: args.tailnet_from_env.then(from_environment).transpose()?,
    };
    controller::run(controller::cluster().await?, options, on_signal()?).await?;
    Ok(())
}
