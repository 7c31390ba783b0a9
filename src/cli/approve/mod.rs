//! `tsdp approve`: shows the plan of a cluster's policy that is pending approval, and approves it.
//!
//! The approval names the hash of the plan that was shown, so that it never approves another one.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

mod list;
mod waiting;

use std::{process::ExitCode, time::Duration};

use clap::Args;
use kube::{
    Api, Resource, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    ask,
    cluster::ClusterArgs,
    output::{self, Color},
    pager,
    process::AnyError,
    server_error,
    table::Style,
};
use crate::{
    api::{APPROVE, TailscaleDevicePolicy, TailscaleTailnet},
    model::NodeId,
    plan::PlanHash,
};
use waiting::{UnknownState, Waiting, annotation, key, size, table};

/// How long to wait for the controller to act on an approval. It watches the object, and so acts at once.
const APPROVAL_TIMEOUT: Duration = Duration::from_secs(20);
const READ_EVERY: Duration = Duration::from_millis(250);
/// How often to write the annotation if another writer changes the object meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// The plan or the device to approve.
#[derive(Debug, Args)]
#[command(
    after_help = "\
Examples:
  tsdp approve                 list what is pending approval
  tsdp approve NAME -n NS      show the held plan of a policy, ask, and approve it",
    after_long_help = "\
A plan is pending approval if its policy has enforcement: Approve, or if maxChangedDevices of the
TailscaleTailnet holds it. An approval names the hash of the plan that is shown. Any other plan needs an
approval of its own. Anyone who can patch the policy (for the limit: the TailscaleTailnet) can approve.

Examples:
  tsdp approve                                 list what is pending approval in all namespaces
  tsdp approve databases -n network            show the held plan, ask, and approve it
  tsdp approve databases -n network --yes      approve it without asking
  tsdp approve fra-router --node nRx7k2CNTRL   bind the policy to one of several devices of that name
  kubectl tsdp -n network approve databases    the same, as a plugin of kubectl"
)]
pub(super) struct ApproveArgs {
    /// The name of the policy. Without it, the command lists everything that is pending approval.
    name: Option<String>,
    /// The namespace of the policy [default: the namespace of the context; for the list: all].
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Bind the policy to this device, if the reason of its Ready condition is IdentityChanged, Superseded or
    /// Ambiguous.
    #[arg(long, value_name = "NODEID", requires = "name")]
    node: Option<NodeId>,
    /// Approve without asking.
    #[arg(long, short, requires = "name")]
    yes: bool,
    /// When to color the table.
    #[arg(hide_short_help = true, long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    // Last: its heading in the help applies to all arguments that follow.
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Lists what is pending approval, or approves it.
pub(super) async fn run(args: ApproveArgs) -> Result<ExitCode, AnyError> {
    let client = args.cluster.client().await?;
    let style = Style {
        width: output::width(),
        color: args.color.is_on(),
    };
    let Some(name) = &args.name else {
        list::run(&client, args.namespace.as_deref(), style).await?;
        return Ok(ExitCode::SUCCESS);
    };
    let namespace = args
        .namespace
        .as_deref()
        .unwrap_or_else(|| client.default_namespace());
    let policies: Api<TailscaleDevicePolicy> = Api::namespaced(client.clone(), namespace);
    let policy = read(&policies, name).await?;
    if let Some(node) = &args.node {
        if !args.yes && !waits_for(&policy, node) && !wants_in_advance(&policy, node)? {
            eprintln!("tsdp: approved nothing.");
            return Ok(ExitCode::FAILURE);
        }
        return approve_node(&policies, &policy, node).await;
    }
    let Some((hash, by_limit)) = show(&policy, style)? else {
        return Ok(ExitCode::SUCCESS);
    };
    if !args.yes && !consented(&policy, &hash)? {
        eprintln!("tsdp: approved nothing.");
        return Ok(ExitCode::FAILURE);
    }
    if by_limit {
        let name = policy.spec.tailnet_name();
        approve_on_tailnet(&Api::all(client), name, &hash).await?;
    } else {
        let entry = format!("plan:{hash}");
        annotate(&policies, name, |policy: &TailscaleDevicePolicy| {
            still_waits(policy, &hash).map(|()| annotation(policy, &entry, |_| false))
        })
        .await?;
    }
    adopted(&policies, &policy, &hash).await
}

/// Shows the plan that is pending approval. Returns its hash and whether the limit holds it; `None` if no plan
/// is pending.
fn show(
    policy: &TailscaleDevicePolicy,
    style: Style,
) -> Result<Option<(PlanHash, bool)>, AnyError> {
    match Waiting::of(policy).map_err(|why| format!("{}: {why}", key(policy)))? {
        Waiting::Nothing(why) => {
            output::print(&format!("{} needs no approval. {why}\n", key(policy)))?;
            Ok(None)
        }
        Waiting::Device(why) => {
            let advice = "To approve one here, add --node and its nodeId";
            Err(format!("{}: {why} {advice}.", key(policy)).into())
        }
        Waiting::Plan {
            hash,
            by_limit,
            plan,
            changes,
        } => {
            let why = if by_limit {
                "held by maxChangedDevices of the TailscaleTailnet"
            } else {
                "enforcement: Approve"
            };
            let reported = table(plan, &changes, style);
            pager::print(&format!("{reported}: plan:{hash}, {why}.\n"))?;
            Ok(Some((hash, by_limit)))
        }
    }
}

fn consented(policy: &TailscaleDevicePolicy, hash: &PlanHash) -> Result<bool, AnyError> {
    let status = policy.status.as_ref();
    let plan = status.and_then(|status| status.held_plan.as_ref());
    let size = plan.map(size).unwrap_or_default();
    let question = format!("Approve plan:{hash} of {}: {size}?", key(policy));
    let answer = ask::agrees(&question, "yes")?;
    answer.ok_or_else(|| {
        "found no terminal to ask on. Add --yes to approve the plan without asking".into()
    })
}

/// Whether the policy waits for someone to choose this device. Then to name it is the decision.
fn waits_for(policy: &TailscaleDevicePolicy, node: &NodeId) -> bool {
    let Ok(Waiting::Device(why)) = Waiting::of(policy) else {
        return false;
    };
    // The message names the candidates.
    let mut words = why.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| word == node.as_str())
}

/// Asks before an approval that nothing waits for: it would bind the policy whenever it can, even in a year.
fn wants_in_advance(policy: &TailscaleDevicePolicy, node: &NodeId) -> Result<bool, AnyError> {
    is_of_a_device(policy)?;
    let key = key(policy);
    let problem = format!("{key} does not wait for an approval of {node}");
    let question = format!(
        "{problem}. The approval stays in its annotation, and binds the policy to this device whenever the \
         device has its name. Approve it?"
    );
    let answer = ask::agrees(&question, "yes")?;
    answer.ok_or_else(|| {
        format!("{problem}. Correct the nodeId, or add --yes to approve it in advance").into()
    })
}

fn is_of_a_device(policy: &TailscaleDevicePolicy) -> Result<(), AnyError> {
    if policy.spec.device.is_some() {
        return Ok(());
    }
    // The entry would have no effect, and stay in the annotation.
    let why = "has a deviceSelector, and so needs no approval of a device";
    Err(format!("{} {why}", key(policy)).into())
}

async fn approve_node(
    policies: &Api<TailscaleDevicePolicy>,
    policy: &TailscaleDevicePolicy,
    node: &NodeId,
) -> Result<ExitCode, AnyError> {
    is_of_a_device(policy)?;
    let entry = format!("node:{node}");
    let name = policy.name_any();
    annotate(policies, &name, |policy: &TailscaleDevicePolicy| {
        let status = policy.status.as_ref();
        let held = status.and_then(|status| status.held_plan.as_ref());
        Ok(annotation(policy, &entry, |hash| {
            held.is_some_and(|plan| plan.hash == hash.to_string())
        }))
    })
    .await?;
    output::print(&format!(
        "{}: approved {node}, if that device has the name. See: {}\n",
        key(policy),
        see(policy)
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn approve_on_tailnet(
    tailnets: &Api<TailscaleTailnet>,
    name: &str,
    hash: &PlanHash,
) -> Result<(), AnyError> {
    let entry = format!("plan:{hash}");
    annotate(tailnets, name, |tailnet: &TailscaleTailnet| {
        Ok(annotation(tailnet, &entry, |hash| {
            let mut held = tailnet.status.iter().flat_map(|status| &status.held);
            held.any(|held| held.hash.as_ref() == Some(&hash.to_string()))
        }))
    })
    .await
}

/// Refuses if the held plan changed while someone read it.
fn still_waits(policy: &TailscaleDevicePolicy, hash: &PlanHash) -> Result<(), UnknownState> {
    match Waiting::of(policy)? {
        Waiting::Plan { hash: now, .. } if now == *hash => Ok(()),
        _ => Err(UnknownState::Changed),
    }
}

/// Writes the annotation that `value` computes from the current object. The resourceVersion makes the
/// API server refuse the write if another writer was faster: then reads the object again.
async fn annotate<K>(
    api: &Api<K>,
    name: &str,
    value: impl Fn(&K) -> Result<String, UnknownState>,
) -> Result<(), AnyError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    for _ in 0..MAX_ATTEMPTS {
        let object = api.get(name).await.map_err(server_error::of)?;
        let value = value(&object).map_err(|why| format!("{kind} {name}: {why}"))?;
        let patch = json!({"metadata": {
            // Without it, two people who approve at once would lose one approval.
            "resourceVersion": object.resource_version(),
            "annotations": {APPROVE: value},
        }});
        let patched = api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            // The controller writes the status of the same object, so a conflict is common.
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            patched => {
                patched.map_err(server_error::of)?;
                return Ok(());
            }
        }
    }
    Err(format!("{kind} {name} changes too fast to write the approval. Try again").into())
}

/// Waits until the status shows that the controller accepted the approval.
async fn adopted(
    policies: &Api<TailscaleDevicePolicy>,
    before: &TailscaleDevicePolicy,
    hash: &PlanHash,
) -> Result<ExitCode, AnyError> {
    let started = tokio::time::Instant::now();
    while started.elapsed() < APPROVAL_TIMEOUT {
        let policy = read(policies, &before.name_any()).await?;
        let status = policy.status.as_ref();
        let last = status.and_then(|status| status.last_approved_plan.as_deref());
        // Before the check of the held plan: an approved plan is no longer held either.
        if last == Some(hash.to_string().as_str()) {
            let plan = before
                .status
                .as_ref()
                .and_then(|status| status.held_plan.as_ref());
            let size = plan.map(size).unwrap_or_default();
            output::print(&format!(
                "{}: approved, {size}. See: {}\n",
                key(&policy),
                see(&policy)
            ))?;
            return Ok(ExitCode::SUCCESS);
        }
        if still_waits(&policy, hash).is_err() {
            let why = "the held plan has changed meanwhile, and nothing of it was approved. Run the command again";
            return Err(format!("{}: {why}", key(&policy)).into());
        }
        tokio::time::sleep(READ_EVERY).await;
    }
    Err(format!(
        "{}: the approval is written, but no controller accepted it within {} s. Check that the \
         controller runs. It then accepts the approval by itself",
        key(before),
        APPROVAL_TIMEOUT.as_secs()
    )
    .into())
}

async fn read(
    policies: &Api<TailscaleDevicePolicy>,
    name: &str,
) -> Result<TailscaleDevicePolicy, AnyError> {
    policies.get(name).await.map_err(server_error::of)
}

fn see(policy: &TailscaleDevicePolicy) -> String {
    format!(
        "kubectl -n {} get tsdp {}",
        policy.namespace().unwrap_or_default(),
        policy.name_any()
    )
}
