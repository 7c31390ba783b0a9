//! `tsdp simulate`: the simulator as a program.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

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

/// Serves a simulated Tailscale API: stateful, strict, and with faults on request.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct SimulateArgs {
    /// The address to listen on. Port 0 chooses a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// The devices to start with: JSON or YAML in the shape of the list response, each with attributes and
    /// expiries if it has any. The simulator generates missing ids, names and addresses
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,

    /// Generate this many more devices: routers, servers, laptops …
    #[arg(long, value_name = "N", default_value_t = 0)]
    count: usize,

    /// The seed of the generated devices: the same seed generates the same devices
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// An API key to accept. May be repeated. The default accepts every key of the form tskey-api-…
    #[arg(long = "api-key", value_name = "KEY")]
    api_keys: Vec<SecretString>,

    /// An OAuth client to accept: ID:SECRET, or ID:SECRET:SCOPE,SCOPE… for less than all scopes. May be
    /// repeated. The default accepts every client with a secret of the form tskey-client-…
    #[arg(long = "oauth-client", value_name = "ID:SECRET[:SCOPES]")]
    oauth_clients: Vec<OauthClient>,

    /// A federated identity whose tokens (JWTs) the simulator exchanges: CLIENT_ID:AUDIENCE, or
    /// CLIENT_ID:AUDIENCE:SCOPE,SCOPE… for less than all scopes. May be repeated. The default accepts none
    #[arg(long = "workload-identity", value_name = "CLIENT_ID:AUDIENCE[:SCOPES]")]
    workload_identities: Vec<WorkloadIdentity>,

    /// The public keys of the issuer of those tokens (a JSON Web Key Set with RSA keys), as
    /// kubectl get --raw /openid/v1/jwks prints it. Without it, the simulator does not verify signatures
    #[arg(
        hide_short_help = true,
        long,
        value_name = "FILE",
        requires = "workload_identities"
    )]
    issuer_keys: Option<PathBuf>,

    /// The lifetime of an OAuth access token in seconds
    #[arg(
        hide_short_help = true,
        long,
        value_name = "SECONDS",
        default_value_t = 3600
    )]
    token_lifetime: u32,

    /// The tailnet's policy file (HuJSON). The default owns the tags of the devices and no others
    #[arg(long, value_name = "FILE")]
    acl: Option<PathBuf>,

    /// The name of the tailnet in paths, besides -
    #[arg(long, value_name = "NAME", default_value = "example.com")]
    tailnet: String,
}

/// Why the simulator did not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The devices cannot be loaded.
    #[error(transparent)]
    Devices(#[from] LoadError),
    /// The policy file cannot be read.
    #[error("cannot read {path}: {source}")]
    PolicyFile {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The keys of the issuer cannot be read.
    #[error("{path}: {reason}")]
    IssuerKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The simulator cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Standard output or the signal handlers fail.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs the simulator until Ctrl-C or SIGTERM.
pub async fn run(args: SimulateArgs) -> Result<(), SimulateError> {
    // Before the line that says that it is ready: a script that reads the line may end it at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let simulator = Simulator::start(options(args)?).await?;
    let mut out = io::stdout();
    writeln!(
        out,
        "The simulated Tailscale API is at {}/api/v2/",
        simulator.url()
    )?;
    // A script waits for the line, and a pipe would keep it.
    out.flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Requests in flight get their answers, as those of a real server do.
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
