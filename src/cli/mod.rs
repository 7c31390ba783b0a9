//! The command line.

mod apply;
mod approve;
mod ask;
mod cluster;
mod connection;
mod controller;
pub mod crds;
#[cfg(feature = "demo")]
mod demo;
mod devices;
mod export;
mod git;
mod guardrails;
pub mod manifests;
mod output;
mod plan;
mod policies;
mod prune_from;
mod select;
#[cfg(feature = "demo")]
mod simulate;
mod snapshot;
mod validate;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Keeps the settings of a Tailscale network's devices as declared in YAML.
#[derive(Debug, Parser)]
#[command(name = "tsdp", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// What is logged, to stderr: error, warn, info, debug or trace.
    #[arg(
        long,
        global = true,
        env = "TSDP_LOG",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log: String,
    /// How it is logged.
    #[arg(
        long,
        global = true,
        env = "TSDP_LOG_FORMAT",
        default_value = "human",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Human,
    /// An object a line, for machines.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a policy of a cluster waits for, and approve it.
    Approve(approve::ApproveArgs),
    /// Make the changes that policies ask for in a tailnet.
    // Whoever writes it is told where a cluster's policies are applied.
    #[command(mut_arg("from_cluster", |arg| arg.hide(true)))]
    Apply(apply::ApplyArgs),
    /// Watch the policies of a cluster and keep the devices as they declare (the default).
    Controller(controller::ControllerArgs),
    /// Print the definitions of the custom resources.
    #[command(after_help = "\
Examples:
  tsdp crds | kubectl apply --server-side -f -  install them
  tsdp crds --out crds                          keep them in a folder")]
    Crds {
        /// Write them into this folder instead, one file each.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// List the devices of a tailnet, and what manages them.
    Devices(devices::DevicesArgs),
    /// Describe a tailnet as it is, as policies.
    Export(export::ExportArgs),
    /// Show what policies would change in a tailnet.
    Plan(plan::PlanArgs),
    /// Print what completes commands in a shell, for its folder of completions.
    #[command(after_help = "\
Examples:
  tsdp completions bash > /etc/bash_completion.d/tsdp
  tsdp completions zsh  > \"${fpath[1]}/_tsdp\"
  tsdp completions fish > ~/.config/fish/completions/tsdp.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual, as man reads it.
    #[command(after_help = "\
Examples:
  tsdp man | man -l -                            read it
  tsdp man --out /usr/local/share/man/man1       with a page for each command")]
    Man {
        /// Write a page for each command into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// See it work: no cluster, no account, no network.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Serve a simulated Tailscale API.
    #[cfg(feature = "demo")]
    Simulate(simulate::SimulateArgs),
    /// Check manifests before any cluster sees them.
    Validate(validate::ValidateArgs),
}

/// The name under which kubectl finds its plugin.
const PLUGIN: &str = "kubectl-tsdp";

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        // clap's own 2 would mean that `tsdp plan` found changes.
        Err(asked) if asked.use_stderr() => {
            let _ = asked.print();
            return ExitCode::FAILURE;
        }
        Err(asked) => asked.exit(),
    };
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tsdp: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the arguments. kubectl runs a program of the name `kubectl-tsdp` as `kubectl tsdp`; whoever
/// types that without a command wants to know which there are, and no controller.
fn parse() -> Result<Arguments, clap::Error> {
    let program = std::env::args_os().next().map(PathBuf::from);
    let name = program.as_deref().and_then(Path::file_stem);
    let command = if name.is_some_and(|name| name == PLUGIN) {
        let command = Arguments::command().bin_name("kubectl tsdp");
        command
            .subcommand_required(true)
            .arg_required_else_help(true)
    } else {
        Arguments::command()
    };
    Arguments::from_arg_matches(&command.try_get_matches()?)
}

type AnyError = Box<dyn std::error::Error>;

fn run(arguments: Arguments) -> Result<ExitCode, AnyError> {
    let command = arguments
        .command
        .unwrap_or(Command::Controller(controller::ControllerArgs::default()));
    let logs = match &command {
        Command::Controller(_) => arguments.log,
        #[cfg(feature = "demo")]
        Command::Simulate(_) => arguments.log,
        // Their output is for the eyes; the log would stand in between.
        _ if arguments.log == "info" => "warn,kube_client=off".to_owned(),
        _ => arguments.log,
    };
    log_to_stderr(&logs, arguments.log_format)?;
    crate::tailscale::install_crypto_provider();
    match command {
        Command::Approve(args) => return runtime()?.block_on(approve::run(args)),
        Command::Apply(args) => return runtime()?.block_on(apply::run(args)),
        Command::Controller(args) => runtime()?.block_on(controller::run(args))?,
        Command::Crds { out } => crds::run(out.as_deref())?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tsdp", &mut script);
            output::print(&String::from_utf8(script)?)?;
        }
        Command::Man { out: None } => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            output::print(&String::from_utf8(page)?)?;
        }
        Command::Man { out: Some(folder) } => {
            std::fs::create_dir_all(&folder)?;
            clap_mangen::generate_to(Arguments::command(), folder)?;
        }
        Command::Devices(args) => return runtime()?.block_on(devices::run(args)),
        Command::Plan(args) => return runtime()?.block_on(plan::run(args)),
        Command::Export(args) => return runtime()?.block_on(export::run(args)),
        #[cfg(feature = "demo")]
        Command::Demo(args) => runtime()?.block_on(demo::run(args))?,
        #[cfg(feature = "demo")]
        Command::Simulate(args) => runtime()?.block_on(simulate::run(args))?,
        Command::Validate(args) => return validate::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn log_to_stderr(level: &str, format: LogFormat) -> Result<(), AnyError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("--log {level}: {error}; write a level such as info or debug"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Cancelled by Ctrl-C and by SIGTERM.
fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}
