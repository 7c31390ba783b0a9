//! `tsdp apply`: the engine of the controller makes the changes that `tsdp plan` shows.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

mod approvals;
mod outcome;
mod progress;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    allow::AllowArgs,
    ask,
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    output::{self, Color},
    plan::{CHANGES, PlanRun, SavedPlan, SavedPlanError, refuse_invalid},
    policies::PoliciesArgs,
    process::{AnyError, on_signal},
    prune_from::PruneFromArgs,
};
use crate::{
    model::{ChangeLimit, ListSetting, NodeId, counted},
    plan::{Changes, Deletion, Difference, Field, PolicyInput},
    tailnet::{ApprovedPlan, Engine, Input, Message, Settings, Term, drive},
    tailscale::Client,
};
use approvals::Named;
use outcome::Outcome;
use progress::{Progress, about};

/// Nobody could see the plan.
#[derive(Debug, thiserror::Error)]
#[error("cannot show the plan ({0}), so nothing was sent")]
struct NotShown(#[source] std::io::Error);

/// The policies to apply, and the approvals for them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tsdp apply -f policies/      show the changes, ask, and make them
  tsdp apply plan.json         make the changes of a saved plan",
    after_long_help = format!("\
Shows the plan, asks, and makes only the changes that it showed. Reports any other difference that arises in
the meantime, and leaves it as it is. A device that fails does not hold up the others. Held changes stay
held: --yes approves nothing.

Exit codes:
  0    everything is in sync
  1    an error, a declined prompt, a device that could not be read, a policy whose device is not found,
       ambiguous or unreadable (unless --allow-missing), or no policy at all (unless --allow-empty)
  2    changes are left: held, denied, or different from the plan, and none of the above
  130  interrupted; the in-flight requests have ended

{CREDENTIAL_HELP}

Examples:
  tsdp apply -f policies/                          show the changes, ask, and make them
  tsdp apply -f policies/ --yes                    make them without asking, for example in a pipeline
  tsdp apply plan.json                             make the changes of a saved plan, if it still holds
  tsdp apply -f policies/ --prune-from HEAD~1      also delete the attributes that are no longer declared
  tsdp apply -f policies/ --approve network/db     also approve the held plan of the policy network/db"))]
pub(super) struct ApplyArgs {
    /// A plan that tsdp plan --out saved. Refused if the tailnet has changed since.
    #[arg(value_name = "PLAN", conflicts_with_all = [
        "files", "from_cluster", "prune_from", "namespace", "controller_namespace", "tailnet_ref", "allow_empty",
    ])]
    plan: Option<PathBuf>,
    /// Make the changes without asking. Held changes stay held.
    #[arg(long, short)]
    yes: bool,
    /// Approve the held plan of this policy, which has enforcement: Approve. May be repeated.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    approve: Vec<Named>,
    /// The maximum number of devices to change: a number, or a percentage of the tailnet's own devices
    /// [default: maxChangedDevices of the TailscaleTailnet among the manifests, else 10%].
    #[arg(long, value_name = "LIMIT")]
    max_changed_devices: Option<ChangeLimit>,
    /// Name every device. Without it, a line for ten or more devices only counts them.
    #[arg(long)]
    all: bool,
    /// When to color the output.
    #[arg(hide_short_help = true, long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    #[command(flatten)]
    allow: AllowArgs,
    #[command(flatten)]
    earlier: PruneFromArgs,
    // Last: their heading in the help applies to all arguments that follow.
    #[command(flatten)]
    policies: PoliciesArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Shows the plan, asks, and makes the changes.
pub(super) async fn run(args: ApplyArgs) -> Result<ExitCode, AnyError> {
    let stop = CancellationToken::new();
    // Checks the arguments too, so that a mistake ends the command before it reads anything.
    let client = args.client_until(stop.clone())?;
    let mut plan_run = args.make_plan(&client).await?;
    args.show(&plan_run)?;
    // Shown again, as the next question is about the plan with the approved changes.
    if approvals::approve_held(&mut plan_run, &args.approve, !args.yes)? {
        args.show(&plan_run)?;
    }
    for hint in approvals::hints(&plan_run) {
        eprintln!("{hint}");
    }
    let totals = plan_run.view().totals;
    plan_run.snapshot.print_failures();
    let unread = !plan_run.snapshot.failures.is_empty();
    let missing = || {
        args.allow
            .report_missing(&plan_run.policies, &plan_run.tailnet_plan)
    };
    // Before the question: there is nothing to agree to.
    if totals.changes == 0 {
        // Named at the end, after the reads that failed.
        let incomplete = missing() || unread;
        return Ok(match (incomplete, totals.held + totals.refused) {
            (true, _) => ExitCode::FAILURE,
            (false, 0) => ExitCode::SUCCESS,
            (false, _) => ExitCode::from(CHANGES),
        });
    }
    let time = args.connection.time_of(requests(&plan_run));
    if !args.yes && !approved(totals.changes, totals.changed_devices, time)? {
        eprintln!("Nothing was sent.");
        return Ok(ExitCode::FAILURE);
    }
    let outcome = args
        .carry_out(&plan_run, client, stop)
        .await?
        .with_held(totals.held);
    eprint!("{}", outcome.details());
    // The outcome must not be lost with the reader of stdout.
    if output::print_to_the_end(&format!("{outcome}\n")).is_err() {
        eprintln!("{outcome}");
    }
    let incomplete = missing() || unread;
    Ok(match outcome.code() {
        // A device that could not be read or found may need changes that the plan lacks, so this is no success.
        0 | CHANGES if incomplete => ExitCode::FAILURE,
        0 if totals.refused > 0 => ExitCode::from(CHANGES),
        code => ExitCode::from(code),
    })
}

/// Asks on the terminal whether to make the changes. Without a terminal only `--yes` agrees.
fn approved(changes: usize, devices: usize, time: Duration) -> Result<bool, AnyError> {
    // A short run needs no patience, and its time depends on more than the budget.
    let time = match time.as_secs() {
        ..10 => String::new(),
        _ => format!(" This takes about {}.", about(time)),
    };
    let question = format!(
        "Make {} on {}?{time}",
        match changes {
            1 => "this change".to_owned(),
            many => format!("these {many} changes"),
        },
        counted(devices, "device"),
    );
    let approved = ask::agrees(&question, "yes")?;
    approved.ok_or_else(|| {
        "found no terminal to ask on, so nothing was sent. Add --yes to make these changes without \
         asking"
            .into()
    })
}

impl ApplyArgs {
    fn client_until(&self, stop: CancellationToken) -> Result<Client, AnyError> {
        if self.policies.from_cluster {
            return Err(
                "the controller applies the policies of a cluster. Run kubectl get tsdp -A to see them, or \
                        tsdp plan --from-cluster to see what the controller would change"
                    .into(),
            );
        }
        self.policies.refuse_unused_flags()?;
        if self.plan.is_none() && !self.policies.are_given() {
            return Err(
                "found no policies. Add -f and a file or folder, or name a saved plan".into(),
            );
        }
        Ok(self.connection.client_until(stop)?)
    }

    async fn make_plan(&self, client: &Client) -> Result<PlanRun, AnyError> {
        if let Some(saved) = self.saved_plan()? {
            return self.replan_saved(client, &saved).await;
        }
        let declarations = self.policies.read().await?;
        let limit = match self.max_changed_devices {
            Some(limit) => limit,
            None => declarations.limit()?,
        };
        let policies = declarations.policies;
        self.allow.refuse_empty(&policies, &self.policies)?;
        refuse_invalid(&policies)?;
        let objects = &declarations.objects;
        let earlier = self.earlier.read(&self.policies, self.allow, objects)?;
        let admission = declarations.guardrails.read()?;
        Ok(PlanRun::make(client, policies, admission, &earlier, limit).await?)
    }

    /// Plans the saved policies anew, and refuses if the result is not the saved plan.
    async fn replan_saved(&self, client: &Client, saved: &SavedPlan) -> Result<PlanRun, AnyError> {
        eprintln!("The plan was made {}.", saved.origin());
        let policies = saved.policies()?;
        refuse_invalid(&policies)?;
        let mut plan_run = PlanRun::make(
            client,
            policies,
            saved.guardrails()?,
            saved.prune_from(),
            saved.limit()?,
        )
        .await?;
        saved.refuse_changed(&plan_run)?;
        // After the comparison, which needs the saved limit.
        if let Some(limit) = self.max_changed_devices {
            plan_run.limit = limit;
            plan_run.replan();
        }
        Ok(plan_run)
    }

    /// The saved plan, if the arguments name one: as PLAN, or with -f in the place of manifests.
    fn saved_plan(&self) -> Result<Option<SavedPlan>, SavedPlanError> {
        match (&self.plan, self.policies.files.as_slice()) {
            (Some(path), _) => match SavedPlan::read(path)? {
                Some(plan) => Ok(Some(plan)),
                None => Err(SavedPlanError::NotAPlan(path.display().to_string())),
            },
            // A common slip, and clear from the content of the file.
            (None, [path]) if path.is_file() => {
                let saved = SavedPlan::read(path)?;
                if saved.is_some() && (self.earlier.is_given() || self.policies.narrow()) {
                    let file = path.display().to_string();
                    return Err(SavedPlanError::UnusedArguments(file));
                }
                Ok(saved)
            }
            (None, _) => Ok(None),
        }
    }

    fn show(&self, plan_run: &PlanRun) -> Result<(), NotShown> {
        let table = plan_run.view().text(self.color, self.all);
        let shown = output::print_to_the_end(&table);
        shown.map_err(NotShown)
    }

    /// Makes the changes that were shown, and only those, with the engine of the controller.
    async fn carry_out(
        &self,
        plan_run: &PlanRun,
        client: Client,
        stop: CancellationToken,
    ) -> Result<Outcome, AnyError> {
        // Before the first request: from now on a signal must not end the process in the middle of one.
        let interrupted = on_signal()?;
        let differences: Vec<&Difference> = sendable(plan_run).collect();
        let mut changes = Changes::default();
        for difference in &differences {
            changes.insert(difference.node.clone(), difference.change.clone());
        }
        let approved = ApprovedPlan {
            changes,
            limited: plan_run.tailnet_plan.limited.clone(),
        };
        let engine =
            Engine::for_approved_plan(self.settings(plan_run), fastrand::u64(..), approved);
        let (mailbox, received) = mpsc::unbounded_channel();
        let mut policies = plan_run.policies.clone();
        release_no_device(&mut policies);
        let policies = policies
            .into_iter()
            .map(|policy| Input::Policy(Box::new(policy)));
        let labels = plan_run
            .admission
            .namespaces
            .iter()
            .map(|(name, of)| Input::Namespace(name.clone(), Some(of.clone())));
        // Labels before the policies that the guardrails judge by them, and the term last: the engine decides
        // nothing before it knows everything.
        for input in labels
            .chain(policies)
            .chain([Input::PoliciesListed, Input::Term(Some(Term::FIRST))])
        {
            mailbox.send(Message::Input(input))?;
        }
        // Last: with a connection the engine starts to read and to send.
        mailbox.send(Message::Connection {
            settings: None,
            client: Ok(client),
        })?;
        let progress = Progress::new(differences.len(), self.color.is_on(), stop.clone());
        let progress = Arc::new(progress);
        let watch = tokio::spawn(end_by_signal(interrupted, stop.clone()));
        let engine = drive(engine, received, Arc::clone(&progress), stop.clone()).await;
        // It waits for a signal that may never come.
        watch.abort();
        // Not earlier: a closed mailbox ends the engine.
        drop(mailbox);
        // By a signal, or because the reader of stdout is gone.
        let cut_short = stop.is_cancelled();
        let made = progress.made();
        Ok(Outcome::of(&differences, &made, &engine, cut_short))
    }

    fn settings(&self, plan_run: &PlanRun) -> Settings {
        Settings {
            // As in the controller: during a long run the tailnet may change before a device's turn.
            poll_interval: Duration::from_mins(1),
            attributes_interval: Duration::from_mins(10),
            requests_per_second: self.connection.rate(),
            // The plan has already applied the limit: the approved changes are within it.
            limit: ChangeLimit::NONE,
            guardrails: plan_run.admission.guardrails.clone(),
        }
    }
}

/// The first signal lets in-flight requests finish. A second one ends the process at once, for a user who
/// cannot wait for an answer that does not come.
async fn end_by_signal(interrupted: CancellationToken, stop: CancellationToken) {
    interrupted.cancelled().await;
    stop.cancel();
    // Before the message: a user who reads it may send the second signal at once.
    let again = on_signal();
    eprintln!("Ending after the in-flight requests. Interrupt again to end at once.");
    if let Ok(again) = again {
        again.cancelled().await;
        std::process::exit(outcome::INTERRUPTED.into());
    }
}

/// Only the controller has the records that release devices and prevent a second one-shot action. An earlier
/// version of the manifests has the record of released fields.
fn release_no_device(policies: &mut [PolicyInput]) {
    for declared in policies {
        let has_record = !declared.record.managed.is_empty() || !declared.record.owned.is_empty();
        if let Ok(policy) = &mut declared.policy
            && !has_record
        {
            Arc::make_mut(policy).deletion = Deletion::Retain;
        }
    }
}

/// The number of requests that the changes need, without repetitions.
fn requests(plan_run: &PlanRun) -> usize {
    let mut calls: BTreeSet<(&NodeId, Field)> = BTreeSet::new();
    for difference in sendable(plan_run) {
        let field = match difference.change.field() {
            // One request carries all routes.
            Field::List(ListSetting::ExitNode) => Field::List(ListSetting::EnabledRoutes),
            field => field,
        };
        calls.insert((&difference.node, field));
    }
    // An attribute is read before it is written.
    let attributes = calls
        .iter()
        .filter(|(_, field)| matches!(field, Field::Attribute(_)));
    let reads: BTreeSet<&NodeId> = attributes.map(|(node, _)| *node).collect();
    calls.len() + reads.len()
}

/// The changes to send: those that nothing holds.
fn sendable(plan_run: &PlanRun) -> impl Iterator<Item = &Difference> {
    let plans = plan_run.tailnet_plan.devices.values();
    let differences = plans.flat_map(|plan| &plan.differences);
    differences.filter(|difference| difference.hold.is_none())
}
