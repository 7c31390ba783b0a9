//! `tsdp status`: one page about a cluster's controller, tailnets and policies, from the cluster alone.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

mod page;
mod read;
mod text;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    cluster::ClusterArgs,
    output::{self, Color},
    process::AnyError,
    table::Style,
};
use crate::controller;
use page::Page;

/// How often `--watch` reads the cluster again.
const READ_EVERY: Duration = Duration::from_secs(2);

/// The cluster to show, and the format.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  tsdp status                  show whether action is required",
    after_long_help = "\
The page needs no Tailscale credential. It shows the leader and its lease, each tailnet, the policies by the
reason of their Ready condition, the held plans with the command that approves each, and what changed within
the last hour.

Exit codes:
  0    all is well
  3    action is required
  1    the cluster could not be read

Examples:
  tsdp status                  one page about the cluster of the current context
  tsdp status --watch          the same, read again every two seconds
  tsdp status -o json          for programs
  kubectl tsdp status          the same, as a plugin of kubectl"
)]
pub(super) struct StatusArgs {
    /// The namespace of the controller.
    #[arg(long, value_name = "NAMESPACE", default_value = controller::DEFAULT_NAMESPACE)]
    controller_namespace: String,
    /// The format of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    output: Format,
    /// Read the cluster again every two seconds, until the command is interrupted.
    #[arg(long, short)]
    watch: bool,
    /// When to color the page.
    #[arg(hide_short_help = true, long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    // Last: its heading in the help applies to all arguments that follow.
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A page for people.
    Text,
    /// JSON, one object.
    Json,
}

/// Prints the page.
pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, AnyError> {
    let client = args.cluster.client().await?;
    loop {
        let cluster = read::cluster(&client, &args.controller_namespace).await?;
        let page = Page::of(&cluster, Timestamp::now());
        let text = match args.output {
            Format::Json => output::json(&page)?,
            Format::Text => page.text(Style {
                width: output::width(),
                color: args.color.is_on(),
            }),
        };
        if !args.watch {
            output::print(&text)?;
            return Ok(ExitCode::from(if page.must_act { 3 } else { 0 }));
        }
        // Only a terminal can show one page in the place of another.
        let wipe = if args.output == Format::Text && io::stdout().is_terminal() {
            "\u{1b}[H\u{1b}[2J"
        } else {
            ""
        };
        // A reader that is gone ends the watch.
        output::print_to_the_end(&format!("{wipe}{text}"))?;
        tokio::time::sleep(READ_EVERY).await;
    }
}
