//! `tsdp plan`: what policies would change in a tailnet. Sends nothing but questions.

mod markdown;
mod plan_run;
mod saved;
mod view;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use super::{
    AnyError,
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    output::{self, Color},
    policies::{self, Declarations, PoliciesArgs},
    prune_from::PruneFromArgs,
};
use crate::plan::{PolicyInput, Style};
pub(super) use plan_run::Proposal;
pub(super) use saved::SavedPlan;

/// The exit code where something is to be changed, as with `terraform plan -detailed-exitcode`.
pub(super) const CHANGES: u8 = 2;

/// What is compared, and how it is shown.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Reads the list of devices by one request, and the attributes of those devices alone whose policies name
some. What the controller would hold is shown as held, by the limit of changed devices too (of the
TailscaleTailnet among the manifests, else 10%). Exit code: 0 nothing to do, 2 changes (held ones too), 1 an error.

{CREDENTIAL_HELP}

Examples:
  tsdp plan -f policies/                    what these policies would change
  tsdp plan -f policies/ -o markdown        as a comment on a pull request
  tsdp plan -f policies/ --out plan.json    and keep it, for tsdp apply plan.json
  tsdp plan -f policies/ --prune-from HEAD~1  with the attributes that are named no more
  tsdp plan --from-cluster                  what the cluster's policies would change now"))]
pub(super) struct PlanArgs {
    /// The form of the output.
    #[arg(long, short, value_enum, default_value_t = Form::Table)]
    output: Form,
    /// Keep the plan in this file: the policies, what was found, and the changes. Not with
    /// --from-cluster, as a cluster's policies are applied there.
    #[arg(long, value_name = "FILE", conflicts_with = "from_cluster")]
    out: Option<PathBuf>,
    /// When the table is coloured.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    #[command(flatten)]
    earlier: PruneFromArgs,
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
    /// JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// For a comment on a pull request.
    Markdown,
}

/// Makes the plan and prints it.
pub(super) async fn run(args: PlanArgs) -> Result<ExitCode, AnyError> {
    if !args.policies.are_given() {
        return Err(
            "no policies are named: write -f and a file or folder, or --from-cluster".into(),
        );
    }
    let declarations = args.policies.read().await?;
    let limit = declarations.limit()?;
    let Declarations {
        policies: objects,
        guards,
        ..
    } = declarations;
    let policies = policies::declared(&objects);
    if !args.policies.from_cluster {
        refuse_invalid(&policies)?;
    }
    let earlier = args.earlier.read(&args.policies, &objects)?;
    let client = args.connection.client()?;
    let proposal = Proposal::make(&client, policies, guards.read()?, &earlier, limit).await?;
    let view = proposal.view();
    output::print(&match args.output {
        Form::Table => view.table(Style {
            width: output::width(),
            color: args.color.is_on(),
        }),
        Form::Json => output::json(&view)?,
        Form::Yaml => serde_yaml::to_string(&view)?,
        Form::Markdown => markdown::render(&view),
    })?;
    if let Some(path) = &args.out {
        let saved = SavedPlan::of(&objects, guards, earlier, &proposal, &view)?;
        let text = output::json(&saved)?;
        let written = fs::write(path, text);
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    for (node, error) in &proposal.snapshot.failures {
        eprintln!("tsdp: {node} could not be compared as a whole: {error}");
    }
    Ok(if !proposal.snapshot.failures.is_empty() {
        ExitCode::FAILURE
    } else if view.totals.asks_for_something() {
        ExitCode::from(CHANGES)
    } else {
        ExitCode::SUCCESS
    })
}

/// What an API server would have refused, all of it.
pub(super) fn refuse_invalid(policies: &[PolicyInput]) -> Result<(), String> {
    let faults = policies.iter().filter_map(|declared| {
        let faults = declared.policy.as_ref().err()?;
        let faults = faults.iter();
        Some(faults.map(|fault| format!("\n  {}: {fault}", declared.key)))
    });
    let faults: String = faults.flatten().collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("the policies are not valid:{faults}"))
}
