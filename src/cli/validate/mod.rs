//! `tsdp validate`: checks manifests without a cluster.

mod github;
mod json;
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
    manifests::{self, Diagnostic, Severity},
    output::{self, Color},
    process::AnyError,
};
use crate::controller;
use outcome::Outcome;

/// Checks manifests as the API server would, and together.
#[derive(Debug, Args)]
#[command(
    override_usage = "tsdp validate [OPTIONS] -f <PATH>...",
    after_help = "\
Reports all errors at once: invalid YAML, unknown fields, violations of the schema and of the rules of
the resources, and errors between objects: duplicate objects, conflicts between policies, settings that
the guardrails of the tailnet in the same folder deny (allowedPolicies, with the labels of the Namespace
objects there), and a missing tailnet. Ignores objects of other kinds. Needs no cluster and no
credential, and sends nothing.

Reads YAML as kubectl does: on is true, 0777 is 511. Write quotes for a string.

Exit code: 0 valid (maybe with warnings), 1 not valid.

Examples:
  tsdp validate -f policies/                       a folder with its subfolders
  tsdp validate -f tailnet.yaml -f network.yaml    files
  kustomize build overlays/fra | tsdp validate -f -
  tsdp validate -f policies/ -o github             annotations in GitHub Actions
  tsdp validate -f policies/ -o sarif >tsdp.sarif  for GitHub code scanning and others"
)]
pub(super) struct ValidateArgs {
    /// The manifests to check: files, folders with all YAML and JSON files in them, and - for standard
    /// input.
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    filenames: Vec<PathBuf>,
    /// The same as -f, for kubectl's habit of positional paths.
    #[arg(
        value_name = "PATH",
        required_unless_present = "filenames",
        hide = true
    )]
    paths: Vec<PathBuf>,
    /// The namespace of objects that name none, as in kubectl.
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    namespace: String,
    /// The controller's own namespace. A `TailscaleTailnet` without allowedPolicies allows only policies of
    /// this namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = controller::DEFAULT_NAMESPACE)]
    controller_namespace: String,
    /// The format of the diagnostics.
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    output: Format,
    /// When to color text.
    #[arg(long, default_value = "auto", value_name = "WHEN")]
    color: Color,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// As of a compiler, with the lines.
    Text,
    /// One JSON object.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Workflow commands of GitHub Actions.
    Github,
}

/// Checks the manifests, and prints the diagnostics to stdout and the totals to stderr.
pub(super) fn run(args: &ValidateArgs) -> Result<ExitCode, AnyError> {
    let paths: Vec<PathBuf> = args.filenames.iter().chain(&args.paths).cloned().collect();
    let outcome = check(&paths, args, Timestamp::now());
    let message = match args.output {
        Format::Text => text::render(&outcome.diagnostics, args.color.is_on()),
        Format::Json => json::render(&outcome)?,
        Format::Sarif => sarif::render(&outcome.diagnostics)?,
        Format::Github => github::render(&outcome.diagnostics),
    };
    output::print(&message)?;
    // The exit code does not depend on whether anybody still reads stderr.
    let _ = writeln!(io::stderr(), "{}", summary(&outcome));
    Ok(if outcome.valid() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn check(paths: &[PathBuf], args: &ValidateArgs, now: Timestamp) -> Outcome {
    let (manifests, mut diagnostics) = manifests::read(paths, &args.namespace);
    diagnostics.extend(set::check(&manifests, &args.controller_namespace, now));
    // By place and not by check, as an author reads the file from its start.
    diagnostics.sort_by_key(Diagnostic::order);
    Outcome {
        manifests,
        diagnostics,
    }
}

fn summary(outcome: &Outcome) -> String {
    let manifests = &outcome.manifests;
    let files = amount(manifests.files, "file", "files");
    let others = match manifests.others {
        0 => String::new(),
        others => format!(
            "; ignored {} of other kinds",
            amount(others, "object", "objects")
        ),
    };
    let checked = if manifests.found == 0 {
        format!("no object of tailnet.dev in {files}{others}")
    } else {
        let objects = amount(manifests.found, "object", "objects");
        format!("{objects} in {files}{others}")
    };
    let errors = outcome.count(Severity::Error);
    let warnings = outcome.count(Severity::Warning);
    let (invalid, warned) = (
        amount(errors, "error", "errors"),
        amount(warnings, "warning", "warnings"),
    );
    match (errors, warnings) {
        (0, 0) => format!("valid ({checked})"),
        (0, _) => format!("valid, with {warned} ({checked})"),
        (_, 0) => format!("not valid: {invalid} ({checked})"),
        (_, _) => format!("not valid: {invalid} and {warned} ({checked})"),
    }
}

fn amount(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
