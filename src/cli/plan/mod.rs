//! `tsdp plan`: shows what policies would change in a tailnet. Only reads.

mod group;

mod markdown;
mod notes;
mod plan_run;
mod saved;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::{fmt, fs, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};

use super::{
    allow::AllowArgs,
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    manifests::Text,
    output::{self, Color},
    policies::{Declarations, PoliciesArgs},
    process::AnyError,
    prune_from::PruneFromArgs,
};
use crate::plan::{PolicyInput, PolicyKey};
pub(super) use group::{Group, Severity, groups, words};
pub(super) use notes::{note_lines, released_lines};
pub(super) use plan_run::PlanRun;
pub(super) use saved::{SavedPlan, SavedPlanError};
pub(super) use view::{ChangeView, View};

/// The exit code for a plan with changes, as of `terraform plan -detailed-exitcode`.
pub(super) const CHANGES: u8 = 2;

/// The policies to plan, and the format of the plan.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tsdp plan -f policies/       show what these policies would change
  tsdp plan --from-cluster     show what the policies of a cluster would change",
    after_long_help = format!("\
Reads the list of devices with one request, and the attributes of each device for which a policy declares
some. Marks the changes that the controller would hold, including those over the limit of changed devices
(maxChangedDevices of the TailscaleTailnet among the manifests, else 10%).

Exit codes:
  0  nothing to do
  1  an error, a device that could not be read, a policy whose device is not found, ambiguous or unreadable
     (unless --allow-missing), or no policy at all (unless --allow-empty)
  2  changes, held or not, or policies that the guardrails deny, and none of the above

{CREDENTIAL_HELP}

Examples:
  tsdp plan -f policies/                      show what these policies would change
  tsdp plan -f policies/ --all                name each device of a change that many share
  tsdp plan -f policies/ -o markdown          write it as a comment on a pull request
  tsdp plan -f policies/ --out plan.json      also save it, for tsdp apply plan.json
  tsdp plan -f policies/ --prune-from HEAD~1  also delete the attributes that are no longer declared
  tsdp plan --from-cluster                    show what the policies of a cluster would change now"))]
pub(super) struct PlanArgs {
    /// The format of the output.
    #[arg(long, short, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    output: Format,
    /// Save the plan in this file: the policies, the observed state, and the changes. Cannot be used with
    /// --from-cluster, because the controller applies the policies of a cluster.
    #[arg(long, value_name = "FILE", conflicts_with = "from_cluster")]
    out: Option<PathBuf>,
    /// Name every device. Without it, a line for ten or more devices only counts them.
    #[arg(long)]
    all: bool,
    /// When to color the table.
    #[arg(hide_short_help = true, long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    #[command(flatten)]
    allow: AllowArgs,
    #[command(flatten)]
    earlier: PruneFromArgs,
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
    /// JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// For a comment on a pull request.
    Markdown,
}

/// Makes the plan and prints it.
pub(super) async fn run(mut args: PlanArgs) -> Result<ExitCode, AnyError> {
    // Else the plan of an earlier run would be an error in its folder.
    args.policies.written.clone_from(&args.out);
    if !args.policies.are_given() {
        return Err("found no policies. Add -f and a file or folder, or --from-cluster".into());
    }
    let declarations = args.policies.read().await?;
    let limit = declarations.limit()?;
    let Declarations {
        objects,
        policies,
        guardrails,
        ..
    } = declarations;
    args.allow.refuse_empty(&policies, &args.policies)?;
    // An invalid policy of a cluster is noted in the plan: its devices stay as they are.
    if !args.policies.from_cluster {
        refuse_invalid(&policies)?;
    }
    let earlier = args.earlier.read(&args.policies, args.allow, &objects)?;
    let client = args.connection.client()?;
    let plan_run = PlanRun::make(&client, policies, guardrails.read()?, &earlier, limit).await?;
    let view = plan_run.view();
    output::print(&match args.output {
        Format::Table => view.text(args.color, args.all),
        Format::Json => output::json(&view)?,
        Format::Yaml => serde_yaml::to_string(&view)?,
        Format::Markdown => markdown::render(&view, args.all),
    })?;
    if let Some(path) = &args.out {
        let saved = SavedPlan::of(&objects, guardrails, earlier, &plan_run, &view)?;
        let text = output::json(&saved)?;
        let written = fs::write(path, text);
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    // After the plan, so that they are not lost above a long table.
    plan_run.snapshot.print_failures();
    let missing = args
        .allow
        .report_missing(&plan_run.policies, &plan_run.tailnet_plan);
    // An incomplete plan must not pass a pipeline, whatever else it shows.
    Ok(if missing || !plan_run.snapshot.failures.is_empty() {
        ExitCode::FAILURE
    } else if view.totals.asks_for_something() {
        ExitCode::from(CHANGES)
    } else {
        ExitCode::SUCCESS
    })
}

/// Refuses policies that an API server would refuse, with all errors at once.
pub(super) fn refuse_invalid(policies: &[PolicyInput]) -> Result<(), InvalidPolicies> {
    let mut all = Vec::new();
    for declared in policies {
        if let Err(errors) = &declared.policy {
            let errors = errors.iter().map(|error| Text::split(error));
            all.extend(errors.map(|error| (declared.key.clone(), error)));
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    Err(InvalidPolicies(all))
}

/// The errors of policies, each with its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InvalidPolicies(Vec<(PolicyKey, Text)>);

impl std::error::Error for InvalidPolicies {}

impl fmt::Display for InvalidPolicies {
    /// Each error as a line for the problem and a line for the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policies are not valid:")?;
        for (policy, Text { problem, help }) in &self.0 {
            write!(f, "\nerror: {policy}: {problem}")?;
            if let Some(help) = help {
                write!(f, "\nhelp: {help}")?;
            }
        }
        Ok(())
    }
}
