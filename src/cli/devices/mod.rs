//! `tsdp devices`: the devices of a tailnet, and the policies that manage them.

mod filter;
mod view;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    output::{self, Color},
    policies::PoliciesArgs,
    process::AnyError,
    select::SelectArgs,
    snapshot::Snapshot,
    table::Style,
};
use filter::FilterArgs;
pub(super) use view::View;

/// The devices to list, and the format of the list.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tsdp devices -f policies/    list all devices, and which of these policies manage them",
    after_long_help = format!("\
ROUTES shows how many of the advertised or enabled routes are enabled. An exit node has two routes.
LAST SEEN (UTC) is empty for a device that is connected, or that never was. A narrow terminal shows fewer
columns; -o wide shows all of them.

{CREDENTIAL_HELP}

Examples:
  tsdp devices                              list all devices
  tsdp devices -f policies/                 also show which of these policies manage them
  tsdp devices --from-cluster -o wide       also show which policies of the cluster manage them
  tsdp devices --from-cluster --unmanaged   list the devices that no policy targets
  tsdp devices -f policies/ --drifted       list the devices that differ from what these policies declare
  tsdp devices --select users='*@example.com' -o json"))]
pub(super) struct DevicesArgs {
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// The format of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
    /// When to color the table.
    #[arg(hide_short_help = true, long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    // Last: their headings in the help apply to all arguments that follow.
    #[command(flatten)]
    policies: PoliciesArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Table,
    /// A table with more columns, not fitted to the terminal.
    Wide,
    /// JSON, an array of objects.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Reads the list with one request, and prints it.
pub(super) async fn run(args: DevicesArgs) -> Result<ExitCode, AnyError> {
    args.policies.refuse_unused_flags()?;
    let are_given = args.policies.are_given();
    args.filter.refuse_without_policies(are_given)?;
    let declarations = if are_given {
        Some(args.policies.read().await?)
    } else {
        None
    };
    let selector = args.select.selector()?;
    let client = args.connection.client()?;
    let (snapshot, policies, drifted) = match declarations {
        Some(declarations) if args.filter.drifted() => {
            let (run, drifted) = filter::plan(&client, declarations).await?;
            run.snapshot.print_failures();
            (run.snapshot, Some(run.policies), Some(drifted))
        }
        declarations => {
            let policies = declarations.map(|it| it.policies);
            (Snapshot::new(&client).await?, policies, None)
        }
    };
    let managers = args
        .filter
        .managers(policies.as_deref().unwrap_or_default())?;
    // No selector matches a device that is shared in. Without --select the list shows these too.
    let selector = Some(selector).filter(|_| !args.select.parts.is_empty());
    let mut views = View::of_all(&snapshot.fleet, policies.as_deref(), selector.as_ref());
    views.retain(|view| {
        args.filter
            .passes(view, managers.as_ref(), drifted.as_ref())
    });
    let wide = args.output == Format::Wide;
    let text = match args.output {
        Format::Json => output::json(&views)?,
        Format::Yaml => serde_yaml::to_string(&views)?,
        Format::Table | Format::Wide => {
            let style = Style {
                // Wide lines are for `less -S` and `grep`, and wrapping would break both.
                width: if wide { None } else { output::width() },
                color: args.color.is_on(),
            };
            view::table(&views, wide, style, Timestamp::now()) + "\n"
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
