//! `tsdp validate`: checks manifests without a cluster, and if asked to also against the tailnet.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

mod github;
mod json;
mod online;
mod outcome;
mod sarif;
mod set;
mod text;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    connection::CREDENTIAL_HELP,
    manifests::{self, Severity},
    output::{self, Color},
    process::AnyError,
};
use crate::{controller, model::counted};
use online::OnlineArgs;
use outcome::Outcome;

/// Checks manifests as the API server would, and together.
#[derive(Debug, Args)]
#[command(
    override_usage = "tsdp validate [OPTIONS] -f <PATH>...",
    after_help = "\
Examples:
  tsdp validate -f policies/   check a folder with its subfolders",
    after_long_help = format!("\
Reports all errors at once: invalid YAML, unknown fields, and violations of the schemas and rules of the
resources. Also reports errors between objects: duplicate objects, conflicts between policies, settings that
the guardrails of a tailnet in the same manifests deny (allowedPolicies, with the labels of Namespace objects
there), and missing tailnets. Ignores objects of other kinds. Needs neither a cluster nor a credential, and
sends nothing. With --online, it then reads the tailnet and warns about devices, selectors and tags without a
match there.

Reads YAML as kubectl does: on is true, and 0777 is 511. Quote such values to get strings.

Exit codes:
  0  the manifests are valid, maybe with warnings
  1  the manifests are not valid, or with --online the tailnet cannot be read

{CREDENTIAL_HELP}

Examples:
  tsdp validate -f policies/                         check a folder with its subfolders
  tsdp validate -f tailnet.yaml -f network.yaml      check two files together
  kustomize build overlays/fra | tsdp validate -f -  check the output of a program
  tsdp validate -f policies/ -o github               annotate a pull request, in GitHub Actions
  tsdp validate -f policies/ -o sarif > tsdp.sarif   for code scanning, for example in GitHub
  tsdp validate -f policies/ --online                also compare them with the tailnet"
))]
pub(super) struct ValidateArgs {
    /// The manifests to check: a file, a folder with all YAML and JSON files in it, or - for standard input.
    /// May be repeated.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    filenames: Vec<PathBuf>,
    /// The same as -f, for kubectl's habit of positional paths.
    #[arg(
        value_name = "PATH",
        required_unless_present = "filenames",
        hide = true
    )]
    paths: Vec<PathBuf>,
    /// The namespace of manifests that do not name one.
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// The controller's own namespace. A TailscaleTailnet without allowedPolicies allows only policies in
    /// this namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = controller::DEFAULT_NAMESPACE)]
    controller_namespace: String,
    /// The format of the diagnostics.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    output: Format,
    /// When to color the text.
    #[arg(long, default_value = "auto", value_name = "WHEN")]
    color: Color,
    // Last: the heading of the connection applies to all arguments that follow.
    #[command(flatten)]
    online: OnlineArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people: each diagnostic with its line, as a compiler prints it.
    Text,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// Checks the manifests, and prints the diagnostics to stdout and the totals to stderr.
pub(super) async fn run(args: &ValidateArgs) -> Result<ExitCode, AnyError> {
    let paths: Vec<PathBuf> = args.filenames.iter().chain(&args.paths).cloned().collect();
    // One time for all checks: an expiry must not pass between two of them.
    let now = Timestamp::now();
    let mut outcome = check(&paths, args, now);
    let mut unread = None;
    // The tailnet says nothing useful about manifests that no API server accepts.
    if args.online.online && outcome.valid() {
        let own = &args.controller_namespace;
        match online::check(&outcome.manifests, &args.online, own, now).await {
            Ok(warnings) => outcome.add(warnings),
            // After the warnings of the manifests themselves, which must not be lost.
            Err(error) => unread = Some(error),
        }
    }
    let message = match args.output {
        Format::Text => text::render(&outcome.diagnostics, args.color.is_on()),
        Format::Json => json::render(&outcome)?,
        Format::Sarif => sarif::render(&outcome.diagnostics)?,
        Format::Github => github::render(&outcome.diagnostics),
    };
    output::print(&message)?;
    // A closed stderr must not change the exit code.
    let _ = writeln!(io::stderr(), "{}", summary(&outcome));
    if let Some(error) = unread {
        return Err(error);
    }
    Ok(if outcome.valid() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn check(paths: &[PathBuf], args: &ValidateArgs, now: Timestamp) -> Outcome {
    let (manifests, mut diagnostics) = manifests::read(paths, &args.namespace);
    diagnostics.extend(set::check(&manifests, &args.controller_namespace, now));
    Outcome::new(manifests, diagnostics)
}

fn summary(outcome: &Outcome) -> String {
    let manifests = &outcome.manifests;
    let files = counted(manifests.files, "file");
    let others = match manifests.others {
        0 => String::new(),
        others => format!("; ignored {} of other kinds", counted(others, "object")),
    };
    let checked = if manifests.found == 0 {
        format!("no object of tailnet.dev in {files}{others}")
    } else {
        let objects = counted(manifests.found, "object");
        format!("{objects} in {files}{others}")
    };
    let errors = outcome.count(Severity::Error);
    let warnings = outcome.count(Severity::Warning);
    let (invalid, warned) = (counted(errors, "error"), counted(warnings, "warning"));
    match (errors, warnings) {
        (0, 0) => format!("valid ({checked})"),
        (0, _) => format!("valid, with {warned} ({checked})"),
        (_, 0) => format!("not valid: {invalid} ({checked})"),
        (_, _) => format!("not valid: {invalid} and {warned} ({checked})"),
    }
}
