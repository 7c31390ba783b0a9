//! The command line.

mod admission;
mod allow;
mod apply;
mod approve;
mod ask;
mod cluster;
mod common_flags;
mod connection;
mod controller;
pub mod crds;
#[cfg(feature = "demo")]
mod demo;
mod devices;
mod export;
mod git;
mod guardrails;
mod lines;
pub mod manifests;
mod no_device;
mod output;
mod pager;
mod plan;
mod policies;
mod process;
mod prune_from;
mod report;
mod select;
mod server_error;
#[cfg(feature = "demo")]
mod simulate;
mod snapshot;
mod status;
mod status_line;
mod table;
mod validate;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use process::{AnyError, runtime};
use server_error::ServerError;

/// Keeps the settings of the devices in a Tailscale network as declared in YAML.
#[derive(Debug, Parser)]
#[command(name = "tsdp", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The level of the log on stderr: error, warn, info, debug or trace.
    #[arg(
        long,
        global = true,
        env = "TSDP_LOG",
        default_value = "info",
        value_name = "LEVEL",
        hide_short_help = true
    )]
    log: String,
    /// The format of the log.
    #[arg(
        long,
        global = true,
        env = "TSDP_LOG_FORMAT",
        default_value = "human",
        value_name = "FORMAT",
        hide_short_help = true
    )]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print an admission policy that refuses at kubectl apply what allowedPolicies of a tailnet denies.
    Admission(admission::AdmissionArgs),
    /// Show the plan of a cluster's policy that is pending approval, and approve it.
    Approve(approve::ApproveArgs),
    /// Apply policies to a tailnet, without a cluster.
    // Hidden, not absent: the error for it names the command for a cluster's policies.
    #[command(mut_arg("from_cluster", |arg| arg.hide(true)))]
    Apply(apply::ApplyArgs),
    /// Watch the policies of a cluster and keep the devices in sync.
    Controller(controller::ControllerArgs),
    /// Print the definitions of the custom resources.
    #[command(after_help = "\
Examples:
  tsdp crds | kubectl apply --server-side -f -  install them
  tsdp crds --out crds                          write them into a folder")]
    Crds {
        /// Write the definitions into this folder instead, one file each.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// List the devices of a tailnet, and the policies that manage them.
    Devices(devices::DevicesArgs),
    /// Write policies that declare the current settings of a tailnet.
    Export(export::ExportArgs),
    /// Show what policies would change in a tailnet, and change nothing.
    #[command(visible_alias = "diff")]
    Plan(plan::PlanArgs),
    /// Write a page of a tailnet: devices, policies, changes and routes, to open in a browser.
    Report(report::ReportArgs),
    /// Print the completion script for a shell.
    #[command(after_help = "\
Examples:
  tsdp completions bash > /etc/bash_completion.d/tsdp
  tsdp completions zsh  > \"${fpath[1]}/_tsdp\"
  tsdp completions fish > ~/.config/fish/completions/tsdp.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page of this program.
    #[command(after_help = "\
Examples:
  tsdp man | man -l -                            read it
  tsdp man --out /usr/local/share/man/man1       with a page for each command")]
    Man {
        /// Write a page for each command into this folder instead.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Run a demonstration without a cluster, an account, or a network.
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Serve a simulated Tailscale API.
    #[cfg(feature = "demo")]
    Simulate(simulate::SimulateArgs),
    /// Show the controller, the tailnets and the policies of a cluster, and whether action is required.
    Status(status::StatusArgs),
    /// Check manifests without a cluster.
    Validate(validate::ValidateArgs),
}

/// The file name by which kubectl finds the plugin.
const PLUGIN: &str = "kubectl-tsdp";

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        // Not clap's own exit code 2: from `tsdp plan` it means changes.
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::FAILURE;
        }
        // Help and version arrive as errors too; this prints them to stdout and exits with 0.
        Err(help) => help.exit(),
    };
    match run(arguments) {
        Ok(code) => code,
        // In the words of kubectl, whose users know them.
        Err(error) if error.is::<ServerError>() => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tsdp: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Parses the arguments. kubectl runs a program named `kubectl-tsdp` as `kubectl tsdp`. Without arguments, the
/// help goes to stdout, as that of kubectl.
fn parse() -> Result<Arguments, clap::Error> {
    let mut given = common_flags::after_command(std::env::args_os().collect());
    let program = given.first().map(Path::new).and_then(Path::file_stem);
    let mut command = Arguments::command();
    if program.is_some_and(|name| name == PLUGIN) {
        command = command.bin_name("kubectl tsdp");
    }
    if given.len() == 1 {
        given.push("-h".into());
    }
    Arguments::from_arg_matches(&command.try_get_matches_from(given)?)
}

fn run(arguments: Arguments) -> Result<ExitCode, AnyError> {
    let command = arguments.command;
    let logs = match &command {
        Command::Controller(_) => arguments.log,
        #[cfg(feature = "demo")]
        Command::Simulate(_) => arguments.log,
        // People read the output of the other commands: log lines in between would disturb it.
        _ if arguments.log == "info" => "warn,kube_client=off".to_owned(),
        _ => arguments.log,
    };
    log_to_stderr(&logs, arguments.log_format)?;
    // Before any client is built: without a provider, rustls panics.
    crate::tailscale::install_crypto_provider();
    match command {
        Command::Admission(args) => admission::run(&args)?,
        Command::Approve(args) => return runtime()?.block_on(approve::run(args)),
        Command::Apply(args) => return runtime()?.block_on(apply::run(args)),
        Command::Controller(args) => runtime()?.block_on(controller::run(args))?,
        Command::Crds { out } => crds::run(out.as_deref())?,
        Command::Completions { shell } => {
            // Into memory first: clap panics if it cannot write, as with `| head`.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "tsdp", &mut script);
            output::print(&String::from_utf8(script)?)?;
        }
        Command::Man { out: None } => {
            let mut page = Vec::new();
            // Into memory first, as above.
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            output::print(&String::from_utf8(page)?)?;
        }
        Command::Man { out: Some(folder) } => {
            std::fs::create_dir_all(&folder)?;
            clap_mangen::generate_to(Arguments::command(), folder)?;
        }
        Command::Devices(args) => return runtime()?.block_on(devices::run(args)),
        Command::Plan(args) => return runtime()?.block_on(plan::run(args)),
        Command::Report(args) => return runtime()?.block_on(report::run(args)),
        Command::Export(args) => return runtime()?.block_on(export::run(args)),
        #[cfg(feature = "demo")]
        Command::Demo(args) => runtime()?.block_on(demo::run(args))?,
        #[cfg(feature = "demo")]
        Command::Simulate(args) => runtime()?.block_on(simulate::run(args))?,
        Command::Status(args) => return runtime()?.block_on(status::run(args)),
        Command::Validate(args) => return runtime()?.block_on(validate::run(&args)),
    }
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr(level: &str, format: LogFormat) -> Result<(), AnyError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("--log {level}: {error}. Write a level such as info or debug"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // The library colors by default, also in a file or in the log of a pod.
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
