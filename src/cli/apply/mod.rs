//! `tsdp apply`: what `tsdp plan` shows, carried out by the engine of the controller.

mod approvals;
mod outcome;
mod progress;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    AnyError, ask,
    connection::{CREDENTIAL_HELP, ConnectionArgs},
    on_signal,
    output::{self, Color},
    plan::{CHANGES, Proposal, SavedPlan, refuse_invalid},
    policies::{self, PoliciesArgs},
    prune_from::PruneFromArgs,
};
use crate::{
    model::ChangeLimit,
    plan::{Changes, Deletion, Difference, PolicyInput, Style},
    tailnet::{ApprovedPlan, Engine, Input, Message, Settings, Term, drive},
    tailscale::Client,
};
use approvals::Named;
use outcome::Outcome;
use progress::Progress;

/// What is applied, and who has agreed to it.
#[derive(Debug, Args)]
#[command(after_help = format!("\
Shows the plan, asks, and makes the changes that were shown and no others: what differs otherwise by then is
left and told. A device that fails holds up no other. What is held stays held: --yes releases nothing.
Exit code: 0 all is as declared, 2 something is left (held, declined, other than planned), 1 something
failed, 130 interrupted; the calls under way are ended before.

{CREDENTIAL_HELP}

Examples:
  tsdp apply -f policies/                          show the changes, ask, and make them
  tsdp apply -f policies/ --yes                    without a question, as in a pipeline
  tsdp apply plan.json                             what tsdp plan --out plan.json kept, if it still holds
  tsdp apply -f policies/ --prune-from HEAD~1      and delete the attributes that are named no more
  tsdp apply -f policies/ --approve network/db     and what that policy (enforcement: Approve) waits for"))]
pub(super) struct ApplyArgs {
    /// A plan that was kept with tsdp plan --out. It is refused where the tailnet has moved since.
    #[arg(value_name = "PLAN", conflicts_with_all = ["files", "from_cluster", "prune_from"])]
    plan: Option<PathBuf>,
    /// Make the changes without asking. Releases nothing that is held.
    #[arg(long, short)]
    yes: bool,
    /// Release what this policy waits for, one with enforcement: Approve. May be repeated.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    approve: Vec<Named>,
    /// How many devices may be changed: a number, or a percentage of the tailnet's own devices
    /// [default: as the `TailscaleTailnet` among the manifests says, else 10%].
    #[arg(long, value_name = "LIMIT")]
    max_changed_devices: Option<ChangeLimit>,
    /// When the output is coloured.
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

/// Shows the plan, asks, and carries it out.
pub(super) async fn run(args: ApplyArgs) -> Result<ExitCode, AnyError> {
    let stop = CancellationToken::new();
    let client = args.client_until(stop.clone())?;
    let mut proposal = args.make_plan(&client).await?;
    args.show(&proposal)?;
    if approvals::approve_held(&mut proposal, &args.approve, !args.yes)? {
        args.show(&proposal)?;
    }
    for hint in approvals::hints(&proposal) {
        eprintln!("{hint}");
    }
    let totals = proposal.view().totals;
    for (node, error) in &proposal.snapshot.failures {
        eprintln!("tsdp: {node} could not be compared as a whole: {error}");
    }
    let unread = !proposal.snapshot.failures.is_empty();
    if totals.changes == 0 {
        return Ok(match (unread, totals.held + totals.refused) {
            (true, _) => ExitCode::FAILURE,
            (false, 0) => ExitCode::SUCCESS,
            (false, _) => ExitCode::from(CHANGES),
        });
    }
    if !args.yes && !approved(totals.changes, totals.changed_devices)? {
        eprintln!("Nothing was sent.");
        return Ok(ExitCode::from(CHANGES));
    }
    let outcome = args.carry_out(&proposal, client, stop).await?;
    let outcome = outcome.holding(totals.held);
    eprint!("{}", outcome.details());
    if output::print_to_the_end(&format!("{outcome}\n")).is_err() {
        eprintln!("{outcome}");
    }
    Ok(match outcome.code() {
        0 | CHANGES if unread => ExitCode::FAILURE,
        0 if totals.refused > 0 => ExitCode::from(CHANGES),
        code => ExitCode::from(code),
    })
}

/// Whether somebody says yes.
fn approved(changes: usize, devices: usize) -> Result<bool, AnyError> {
    let question = format!(
        "Make {} on {}?",
        match changes {
            1 => "this change".to_owned(),
            many => format!("these {many} changes"),
        },
        match devices {
            1 => "1 device".to_owned(),
            many => format!("{many} devices"),
        },
    );
    let approved = ask::agrees(&question, "yes")?;
    approved.ok_or_else(|| {
        "there is no terminal to ask on, so nothing was sent: write --yes to make these changes without \
         a question"
            .into()
    })
}

impl ApplyArgs {
    fn client_until(&self, stop: CancellationToken) -> Result<Client, AnyError> {
        if self.policies.from_cluster {
            return Err(
                "a cluster's policies are applied there, by the controller: look at them with \
                        kubectl get tsdp -A, or see with tsdp plan --from-cluster what it would do"
                    .into(),
            );
        }
        if self.plan.is_none() && !self.policies.are_given() {
            return Err(
                "no policies are named: write -f and a file or folder, or a plan that was kept"
                    .into(),
            );
        }
        Ok(self.connection.client_until(stop)?)
    }

    async fn make_plan(&self, client: &Client) -> Result<Proposal, AnyError> {
        if let Some(saved) = self.saved_plan()? {
            return self.replan(client, &saved).await;
        }
        let declarations = self.policies.read().await?;
        let limit = match self.max_changed_devices {
            Some(limit) => limit,
            None => declarations.limit()?,
        };
        let policies = declared(&declarations.policies)?;
        let earlier = self.earlier.read(&self.policies, &declarations.policies)?;
        let guards = declarations.guards.read()?;
        Ok(Proposal::make(client, policies, guards, &earlier, limit).await?)
    }

    /// What was kept, if it still is what would be proposed now.
    async fn replan(&self, client: &Client, saved: &SavedPlan) -> Result<Proposal, AnyError> {
        eprintln!("The plan was made {}.", saved.origin());
        let policies = declared(&saved.policies()?)?;
        let mut proposal = Proposal::make(
            client,
            policies,
            saved.guards()?,
            saved.earlier(),
            saved.limit()?,
        )
        .await?;
        saved.refuse_moved(&proposal)?;
        if let Some(limit) = self.max_changed_devices {
            proposal.limit = limit;
            proposal.compare();
        }
        Ok(proposal)
    }

    /// The plan that was kept, where one is named: as such, or in the place of manifests.
    fn saved_plan(&self) -> Result<Option<SavedPlan>, String> {
        match (&self.plan, self.policies.files.as_slice()) {
            (Some(path), _) => match SavedPlan::read(path)? {
                Some(plan) => Ok(Some(plan)),
                None => Err(format!(
                    "{path} is no plan that tsdp plan --out has kept: write -f {path} if these are \
                     manifests",
                    path = path.display()
                )),
            },
            (None, [path]) if path.is_file() => SavedPlan::read(path),
            (None, _) => Ok(None),
        }
    }

    fn show(&self, proposal: &Proposal) -> Result<(), String> {
        let table = proposal.view().table(Style {
            width: output::width(),
            color: self.color.is_on(),
        });
        let shown = output::print_to_the_end(&table);
        shown.map_err(|error| format!("the plan cannot be shown ({error}), so nothing was sent"))
    }

    /// Has an engine make the changes that were shown.
    async fn carry_out(
        &self,
        proposal: &Proposal,
        client: Client,
        stop: CancellationToken,
    ) -> Result<Outcome, AnyError> {
        let interrupted = on_signal()?;
        let differences: Vec<&Difference> = sendable(proposal).collect();
        let mut changes = Changes::default();
        for difference in &differences {
            changes.insert(difference.node.clone(), difference.change.clone());
        }
        let approved = ApprovedPlan {
            changes,
            limited: proposal.survey.limited.clone(),
        };
        let engine =
            Engine::for_approved_plan(self.settings(proposal), fastrand::u64(..), approved);
        let (mailbox, received) = mpsc::unbounded_channel();
        let policies = proposal.policies.iter().cloned();
        let policies = policies.map(|policy| Input::Policy(Box::new(policy)));
        let labels = proposal.guards.namespaces.iter();
        let labels = labels.map(|(name, of)| Input::Namespace(name.clone(), Some(of.clone())));
        for input in labels
            .chain(policies)
            .chain([Input::PoliciesListed, Input::Term(Some(Term::FIRST))])
        {
            mailbox.send(Message::Input(input))?;
        }
        mailbox.send(Message::Connection {
            settings: None,
            client: Ok(client),
        })?;
        let progress = Progress::new(differences.len(), self.color.is_on(), stop.clone());
        let progress = Arc::new(progress);
        let watch = tokio::spawn(end_by_signal(interrupted, stop.clone()));
        let engine = drive(engine, received, Arc::clone(&progress), stop.clone()).await;
        watch.abort();
        drop(mailbox);
        let cut_short = stop.is_cancelled();
        let made = progress.made();
        Ok(Outcome::of(&differences, &made, &engine, cut_short))
    }

    fn settings(&self, proposal: &Proposal) -> Settings {
        Settings {
            // As the controller's: what a long run has not come to yet may move meanwhile.
            poll_interval: Duration::from_mins(1),
            attributes_interval: Duration::from_mins(10),
            requests_per_second: self.connection.rate(),
            // What the limit holds has been decided, and is no part of what was agreed to.
            limit: ChangeLimit::NONE,
            guardrails: proposal.guards.guardrails.clone(),
        }
    }
}

/// The first signal ends it in order; who cannot wait for an answer that does not come sends another.
async fn end_by_signal(interrupted: CancellationToken, stop: CancellationToken) {
    interrupted.cancelled().await;
    stop.cancel();
    // Before it is told of.
    let again = on_signal();
    eprintln!("Ending after the calls under way; once more ends it at once, whatever they do.");
    if let Ok(again) = again {
        again.cancelled().await;
        std::process::exit(outcome::INTERRUPTED.into());
    }
}

/// The policies as the plan and the engine take them.
fn declared(objects: &[policies::PolicyObject]) -> Result<Vec<PolicyInput>, String> {
    let mut policies = policies::declared(objects);
    refuse_invalid(&policies)?;
    for declared in &mut policies {
        if let Ok(policy) = &mut declared.policy {
            // What a policy has let go, and what it has done once, is known to the controller alone.
            policy.deletion = Deletion::Retain;
            policy.uid.clear();
        }
    }
    Ok(policies)
}

/// What is sent.
fn sendable(proposal: &Proposal) -> impl Iterator<Item = &Difference> {
    let plans = proposal.survey.devices.values();
    let differences = plans.flat_map(|plan| &plan.differences);
    differences.filter(|difference| difference.hold.is_none())
}
