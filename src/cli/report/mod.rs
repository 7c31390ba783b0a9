//! `tsdp report`: a page of a tailnet as observed and as desired. Only reads.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

mod changes;
mod devices;
mod page;
mod picture;
mod policies;
mod routes;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    allow::AllowArgs,
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    output,
    plan::{PlanRun, refuse_invalid},
    policies::{Declarations, PoliciesArgs},
    process::AnyError,
    prune_from::PruneFrom,
};
use crate::{model::ChangeLimit, plan::Admission};

/// The policies of the report, and its file.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  tsdp report -f policies/ --out tailnet.html    write a page, to open in a browser",
    after_long_help = format!("\
The page shows the devices and the policies that manage them, the unmanaged devices, the changes of the plan
with the held ones, and the routes and exit nodes as a picture. It can be searched, sorted and filtered. It is
one file without any link to another one: a browser opens it without a network, and it contains no secret.

Reads what plan reads. The page shows which changes correct drift, and which are pending approval, only with
--from-cluster: files have no status.

Exit codes:
  0  the page is written
  1  an error, a device that could not be read, or no policy at all (unless --allow-empty)

{CREDENTIAL_HELP}

Examples:
  tsdp report --out tailnet.html                  the devices and routes, without policies
  tsdp report -f policies/ --out tailnet.html     also the policies of a folder, and what they would change
  tsdp report --from-cluster --out tailnet.html   also the policies of a cluster, drift, and held changes
  tsdp report -f policies/ > tailnet.html         write it to stdout"))]
pub(super) struct ReportArgs {
    /// Write the page into this file, not to stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Accept that there is no policy.
    #[arg(hide_short_help = true, long)]
    allow_empty: bool,
    // Last: their headings in the help apply to all arguments that follow.
    #[command(flatten)]
    policies: PoliciesArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Plans, and writes the page.
pub(super) async fn run(mut args: ReportArgs) -> Result<ExitCode, AnyError> {
    // Else the page of an earlier run would be an error in its folder.
    args.policies.written.clone_from(&args.out);
    args.policies.refuse_unused_flags()?;
    let are_given = args.policies.are_given();
    let (policies, admission, limit) = if are_given {
        let declarations = args.policies.read().await?;
        let limit = declarations.limit()?;
        let Declarations {
            policies,
            guardrails,
            ..
        } = declarations;
        AllowArgs::empty(args.allow_empty).refuse_empty(&policies, &args.policies)?;
        // An invalid policy of a cluster is noted on the page: its devices stay as they are.
        if !args.policies.from_cluster {
            refuse_invalid(&policies)?;
        }
        (policies, guardrails.read()?, limit)
    } else {
        (Vec::new(), Admission::default(), ChangeLimit::default())
    };
    let client = args.connection.client()?;
    let nothing_earlier = PruneFrom::default();
    let run = PlanRun::make(&client, policies, admission, &nothing_earlier, limit).await?;
    let source = are_given.then(|| args.policies.source());
    let text = page::render(&run, source.as_deref())?;
    match &args.out {
        Some(path) => {
            let written = fs::write(path, text);
            written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        None => output::print(&text)?,
    }
    run.snapshot.print_failures();
    Ok(if run.snapshot.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
