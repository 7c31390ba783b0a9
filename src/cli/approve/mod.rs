//! `tsdp approve`: shows what a policy of a cluster waits for, and approves it.
//!
//! The approval names the hash of what was shown, so that nothing else is ever released by it.

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
    AnyError, ask,
    cluster::ClusterArgs,
    output::{self, Color},
};
use crate::{
    api::{APPROVE, TailscaleDevicePolicy, TailscaleTailnet},
    model::NodeId,
    plan::{PlanHash, Style},
};
use waiting::{Waiting, annotation, key, size, table};

/// How long the controller may take to take an approval up; it hears of it at once.
const PATIENCE: Duration = Duration::from_secs(20);
const READ_EVERY: Duration = Duration::from_millis(250);
/// How often the annotation is written anew where somebody else wrote the object meanwhile.
const TRIES: usize = 8;

/// What is approved.
#[derive(Debug, Args)]
#[command(after_help = "\
A plan waits in a policy with enforcement: Approve, and where maxChangedDevices of the TailscaleTailnet
holds it. What is approved is the plan that is shown, by its hash: what differs later waits anew. Who may
patch the policy (for the limit: the TailscaleTailnet) can approve.

Examples:
  tsdp approve                                 what waits in all namespaces
  tsdp approve databases -n network            show the plan that waits, ask, and approve it
  tsdp approve databases -n network --yes      without asking
  tsdp approve fra-router --node nRx7k2CNTRL   which device of the name is meant
  kubectl tsdp approve databases -n network    the same, installed as a plugin")]
pub(super) struct ApproveArgs {
    /// The policy; absent: what waits is listed, and nothing approved.
    name: Option<String>,
    /// Its namespace [default: that of the kubeconfig's context; for the list all].
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The device that a policy means which waits with `IdentityChanged` or `Ambiguous`.
    #[arg(long, value_name = "NODEID", requires = "name")]
    node: Option<NodeId>,
    /// Do not ask.
    #[arg(long, short, requires = "name")]
    yes: bool,
    /// When the table is coloured.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    // Last, as its heading in the help holds for what follows.
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Lists what waits, or approves it.
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
    let namespace = args.namespace.as_deref();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace());
    let policies: Api<TailscaleDevicePolicy> = Api::namespaced(client.clone(), namespace);
    let policy = read(&policies, name).await?;
    if let Some(node) = &args.node {
        return approve_node(&policies, &policy, node).await;
    }
    let waiting = Waiting::of(&policy).map_err(|why| format!("{}: {why}", key(&policy)))?;
    let (hash, by_limit) = match &waiting {
        Waiting::Nothing(why) => {
            output::print(&format!("{} waits for no approval. {why}\n", key(&policy)))?;
            return Ok(ExitCode::SUCCESS);
        }
        Waiting::Device(why) => {
            let write = "write --node NODEID to say which device is meant";
            return Err(format!("{}: {why} Here, {write}.", key(&policy)).into());
        }
        Waiting::Plan {
            hash,
            by_limit,
            plan,
            changes,
        } => {
            let why = if *by_limit {
                "held by maxChangedDevices of the TailscaleTailnet"
            } else {
                "enforcement: Approve"
            };
            let reported = table(plan, changes, style);
            output::print(&format!("{reported}: plan:{hash}, {why}.\n"))?;
            (hash.clone(), *by_limit)
        }
    };
    if !args.yes && !consented(&policy, &hash)? {
        eprintln!("tsdp: nothing was approved.");
        return Ok(ExitCode::FAILURE);
    }
    if by_limit {
        let name = policy.spec.tailnet_name();
        approve_on_tailnet(&Api::all(client), name, &hash).await?;
    } else {
        let entry = format!("plan:{hash}");
        annotate(&policies, name, &entry, |policy: &TailscaleDevicePolicy| {
            still_waits(policy, &hash).map(|()| annotation(policy, &entry, |_| false))
        })
        .await?;
    }
    adopted(&policies, &policy, &hash).await
}

fn consented(policy: &TailscaleDevicePolicy, hash: &PlanHash) -> Result<bool, AnyError> {
    let question = format!("Approve plan:{hash} of {}?", key(policy));
    let answer = ask::agrees(&question, "yes")?;
    answer.ok_or_else(|| "there is no terminal to ask on: write --yes to approve what waits".into())
}

async fn approve_node(
    policies: &Api<TailscaleDevicePolicy>,
    policy: &TailscaleDevicePolicy,
    node: &NodeId,
) -> Result<ExitCode, AnyError> {
    if policy.spec.device.is_none() {
        let why = "is about many devices, and waits for no word on which one is meant";
        return Err(format!("{} {why}", key(policy)).into());
    }
    let entry = format!("node:{node}");
    let name = policy.name_any();
    let held = |policy: &TailscaleDevicePolicy, hash: &PlanHash| {
        let held = policy
            .status
            .as_ref()
            .and_then(|status| status.held_plan.as_ref());
        held.is_some_and(|plan| plan.hash == hash.to_string())
    };
    annotate(policies, &name, &entry, |policy: &TailscaleDevicePolicy| {
        Ok(annotation(policy, &entry, |hash| held(policy, hash)))
    })
    .await?;
    output::print(&format!(
        "{}: {node} is approved, if it bears the name. See: {}\n",
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
    annotate(tailnets, name, &entry, |tailnet: &TailscaleTailnet| {
        let held = tailnet.status.iter().flat_map(|status| &status.held);
        let held: Vec<&String> = held.filter_map(|held| held.hash.as_ref()).collect();
        let still_held = |hash: &PlanHash| held.iter().any(|held| **held == hash.to_string());
        Ok(annotation(tailnet, &entry, still_held))
    })
    .await
}

/// What waits may have changed while somebody read it.
fn still_waits(policy: &TailscaleDevicePolicy, hash: &PlanHash) -> Result<(), String> {
    match Waiting::of(policy)? {
        Waiting::Plan { hash: now, .. } if now == *hash => Ok(()),
        _ => Err("what waits has changed meanwhile: look again".to_owned()),
    }
}

/// Writes the annotation that `value` makes of the object as it is. Whoever else writes it meanwhile
/// loses nothing: the object is read again.
async fn annotate<K>(
    api: &Api<K>,
    name: &str,
    entry: &str,
    value: impl Fn(&K) -> Result<String, String>,
) -> Result<(), AnyError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let failed = |error: kube::Error| format!("{kind} {name}: {entry} cannot be written: {error}");
    for _ in 0..TRIES {
        let object = api.get(name).await.map_err(failed)?;
        let value = value(&object).map_err(|why| format!("{kind} {name}: {why}"))?;
        let patch = json!({"metadata": {
            "resourceVersion": object.resource_version(),
            "annotations": {APPROVE: value},
        }});
        let patched = api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            patched => {
                patched.map_err(failed)?;
                return Ok(());
            }
        }
    }
    Err(format!("{kind} {name} is being written all the time: try again").into())
}

/// Waits until the controller says what it made of an approval.
async fn adopted(
    policies: &Api<TailscaleDevicePolicy>,
    before: &TailscaleDevicePolicy,
    hash: &PlanHash,
) -> Result<ExitCode, AnyError> {
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        let policy = read(policies, &before.name_any()).await?;
        let status = policy.status.as_ref();
        let last = status.and_then(|status| status.last_approved_plan.as_deref());
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
            let why =
                "what waits has changed meanwhile, and nothing of it was approved: look again";
            return Err(format!("{}: {why}", key(&policy)).into());
        }
        tokio::time::sleep(READ_EVERY).await;
    }
    Err(format!(
        "{}: the approval is written, but no controller has taken it up within {} s: see whether one \
         runs. It then takes it by itself",
        key(before),
        PATIENCE.as_secs()
    )
    .into())
}

async fn read(
    policies: &Api<TailscaleDevicePolicy>,
    name: &str,
) -> Result<TailscaleDevicePolicy, AnyError> {
    let read = policies.get(name).await;
    Ok(read.map_err(|error| format!("the policy {name} cannot be read: {error}"))?)
}

fn see(policy: &TailscaleDevicePolicy) -> String {
    format!(
        "kubectl -n {} get tsdp {}",
        policy.namespace().unwrap_or_default(),
        policy.name_any()
    )
}
