//! `tsdp simulate`: the simulator as a program.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
};

use clap::Args;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use crate::simulator::{
    IssuerKeys, LoadError, OauthClient, Options, Simulator, StartError, Switches, WorkloadIdentity,
    generate, read_devices,
};

/// Serves a simulated Tailscale API: stateful, strict, and with faults that can be put in.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct SimulateArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// Devices to start with: JSON or YAML in the shape of the list answer, each with `attributes`
    /// and `expiries` if it has any; ids, names and addresses that are missing are made up
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,

    /// Make up this many devices more: routers, servers, laptops …
    #[arg(long, value_name = "N", default_value_t = 0)]
    count: usize,

    /// The same seed makes up the same devices
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// An API key to take, may be repeated; without it every one of the form tskey-api-… is taken
    #[arg(long = "api-key", value_name = "KEY")]
    api_keys: Vec<SecretString>,

    /// An OAuth client to take, may be repeated: ID:SECRET, or ID:SECRET:SCOPE,SCOPE… for less than
    /// all; without it every one with a secret of the form tskey-client-… is taken
    #[arg(long = "oauth-client", value_name = "ID:SECRET[:SCOPES]")]
    oauth_clients: Vec<OauthClient>,

    /// A federated identity whose tokens (JWTs) are exchanged, may be repeated: `CLIENT_ID:AUDIENCE`,
    /// or `CLIENT_ID:AUDIENCE:SCOPE,SCOPE`… for less than all; without it none are
    #[arg(long = "workload-identity", value_name = "CLIENT_ID:AUDIENCE[:SCOPES]")]
    workload_identities: Vec<WorkloadIdentity>,

    /// The public keys of who issues those tokens (JSON Web Key Set; RSA), such as
    /// `kubectl get --raw /openid/v1/jwks` prints; without it signatures are not looked at
    #[arg(long, value_name = "FILE", requires = "workload_identities")]
    issuer_keys: Option<PathBuf>,

    /// How many seconds an OAuth access token is valid
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    token_lifetime: u32,

    /// The tailnet's policy file (HuJSON); without it the tags of the devices are owned, no others
    #[arg(long, value_name = "FILE")]
    acl: Option<PathBuf>,

    /// What paths may call the tailnet, beside `-`
    #[arg(long, value_name = "NAME", default_value = "example.com")]
    tailnet: String,
}

/// Why the simulator did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The devices.
    #[error(transparent)]
    Devices(#[from] LoadError),
    /// The policy file.
    #[error("cannot read {path}: {source}")]
    PolicyFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The keys of the issuer.
    #[error("{path}: {reason}")]
    IssuerKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Its start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Standard output, or the signals that end it.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Serves until Ctrl-C or SIGTERM.
pub async fn run(args: SimulateArgs) -> Result<(), SimulateError> {
    // Before the line that says that it is ready: who reads that may end it at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let simulator = Simulator::start(options(args)?).await?;
    let mut out = io::stdout();
    writeln!(
        out,
        "The simulated Tailscale API is at {}/api/v2/",
        simulator.url()
    )?;
    out.flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

fn options(args: SimulateArgs) -> Result<Options, SimulateError> {
    let mut devices = match &args.devices {
        Some(path) => read_devices(path)?,
        None => Vec::new(),
    };
    devices.extend(generate(args.count, args.seed));
    let policy_file = args.acl.map(|path| {
        fs::read_to_string(&path).map_err(|source| SimulateError::PolicyFile { path, source })
    });
    let issuer_keys = args.issuer_keys.map(|path| {
        let read = fs::read_to_string(&path).map_err(|error| error.to_string());
        read.and_then(|text| text.parse::<IssuerKeys>())
            .map_err(|reason| SimulateError::IssuerKeys { path, reason })
    });
    Ok(Options {
        listen: args.listen,
        devices,
        api_keys: args.api_keys,
        oauth_clients: args.oauth_clients,
        workload_identities: args.workload_identities,
        issuer_keys: issuer_keys.transpose()?,
        policy_file: policy_file.transpose()?,
        tailnet: args.tailnet,
        switches: Switches {
            token_lifetime_seconds: args.token_lifetime,
            ..Switches::default()
        },
    })
}

const HELP: &str = include_str!("simulate_help.txt");
