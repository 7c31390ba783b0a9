//! `tsdp devices`: who is in the tailnet, and what manages them.

mod view;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    AnyError,
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    output::{self, Color},
    policies::{self, PoliciesArgs},
    select::SelectArgs,
    snapshot::Snapshot,
};
use crate::plan::Style;
use view::View;

/// Which devices are listed, and how.
#[derive(Debug, Args)]
#[command(after_help = format!("\
ROUTES counts those that are enabled, of those that the machine advertises or that are enabled; an exit
node's two routes among them. LAST SEEN (UTC) is empty while a device is connected, and where it never was.

{CREDENTIAL_HELP}

Examples:
  tsdp devices                              all devices
  tsdp devices -f policies/                 and which of these policies manage them
  tsdp devices --from-cluster -o wide       and which of the cluster's policies do
  tsdp devices --select users='*@example.com' -o json"))]
pub(super) struct DevicesArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// The form of the output.
    #[arg(long, short, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// When the table is coloured.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    // Last, as their headings in the help hold for what follows.
    #[command(flatten)]
    policies: PoliciesArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table.
    Table,
    /// A table with more columns, as wide as it needs to be.
    Wide,
    /// JSON, an array of objects.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Reads the list, by one request, and prints it.
pub(super) async fn run(args: DevicesArgs) -> Result<ExitCode, AnyError> {
    let policies = if args.policies.are_given() {
        Some(policies::declared(&args.policies.read().await?.policies))
    } else {
        None
    };
    let selector = args.select.selector()?;
    let look = Snapshot::new(&args.connection.client()?).await?;
    // No selector fits a device that is shared in.
    let selector = Some(selector).filter(|_| !args.select.parts.is_empty());
    let views = View::of_all(&look.fleet, policies.as_deref(), selector.as_ref());
    let wide = args.output == Form::Wide;
    let text = match args.output {
        Form::Json => output::json(&views)?,
        Form::Yaml => serde_yaml::to_string(&views)?,
        Form::Table | Form::Wide => {
            let style = Style {
                width: if wide { None } else { output::width() },
                color: args.color.is_on(),
            };
            view::table(&views, wide, style, Timestamp::now()) + "\n"
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
