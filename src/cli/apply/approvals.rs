//! Approval of held changes: by the name of the policy, with `--approve` or on a terminal, never by `--yes`.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::Arc,
};

use crate::{
    cli::{ask, plan::PlanRun, process::AnyError},
    model::{NodeId, counted},
    plan::{ApprovedOn, Mode, Policy, PolicyKey},
};

/// A policy, as `--approve` names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named(PolicyKey);

impl FromStr for Named {
    type Err = NotNamed;

    fn from_str(text: &str) -> Result<Self, NotNamed> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self(PolicyKey::new(namespace, name)))
            }
            _ => Err(NotNamed),
        }
    }
}

/// A text that names no policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write NAMESPACE/NAME of the policy, such as network/fra-router")]
pub(super) struct NotNamed;

/// An `--approve` that approves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NothingToApprove {
    /// The policy is not applied.
    #[error("--approve {0}: found no such policy among those that are applied")]
    Unknown(PolicyKey),
    /// The policy is enforced without an approval.
    #[error("--approve {0}: the policy needs no approval, only one with enforcement: Approve does")]
    NotNeeded(PolicyKey),
}

/// The held changes of one policy.
#[derive(Debug, Default)]
struct HeldChanges<'a> {
    changes: usize,
    devices: BTreeSet<&'a NodeId>,
}

/// Approves the policies in `approved`, and asks for each other held policy. Returns whether that
/// changed the plan.
pub(super) fn approve_held(
    plan_run: &mut PlanRun,
    approved: &[Named],
    may_ask: bool,
) -> Result<bool, AnyError> {
    // All names before the first question, so that a wrong one ends the command at once.
    for Named(key) in approved {
        check(plan_run, key)?;
    }
    // What the flag names needs no question: to name it is the decision.
    let mut chosen: BTreeSet<PolicyKey> = approved.iter().map(|Named(key)| key.clone()).collect();
    if may_ask {
        for (key, held) in held_changes(plan_run, ApprovedOn::Policy) {
            if !chosen.contains(&key)
                && asked(
                    &format!("{key} is pending approval: {}.", held.counted()),
                    &key,
                )?
            {
                chosen.insert(key);
            }
        }
    }
    // Once for all of them: each approval plans the tailnet again.
    let mut changed = approve(plan_run, &chosen);
    // After the approvals, as the changes that they release count towards the limit.
    if may_ask {
        let mut chosen = BTreeSet::new();
        for (key, held) in held_changes(plan_run, ApprovedOn::Tailnet) {
            let question = format!(
                "The limit of changed devices ({}) holds {key}: {}.",
                described(plan_run),
                held.counted()
            );
            if asked(&question, &key)? {
                chosen.insert(key);
            }
        }
        if !chosen.is_empty() {
            changed = true;
            plan_run.approved_over_limit = chosen;
            plan_run.replan();
        }
    }
    Ok(changed)
}

/// How to approve each change that is still held. The hints name flags of this command, as an annotation
/// on an object takes effect in a cluster only.
pub(super) fn hints(plan_run: &PlanRun) -> Vec<String> {
    let mut hints = Vec::new();
    for (key, held) in held_changes(plan_run, ApprovedOn::Policy) {
        hints.push(format!(
            "{key} is pending approval: {}. Add --approve {key}",
            held.counted()
        ));
    }
    for (key, held) in held_changes(plan_run, ApprovedOn::Tailnet) {
        hints.push(format!(
            "the limit of changed devices ({}) holds {key}: {}. Raise --max-changed-devices, or approve the \
             policy by its name on a terminal",
            described(plan_run),
            held.counted()
        ));
    }
    hints
}

impl HeldChanges<'_> {
    fn counted(&self) -> String {
        format!(
            "{} on {}",
            counted(self.changes, "change"),
            counted(self.devices.len(), "device")
        )
    }
}

/// Refuses an `--approve` of a policy that is not applied or needs no approval.
fn check(plan_run: &PlanRun, key: &PolicyKey) -> Result<(), NothingToApprove> {
    let declared = plan_run.policies.iter().find(|it| it.key == *key);
    match declared.map(|declared| declared.policy.as_deref()) {
        None => Err(NothingToApprove::Unknown(key.clone())),
        Some(
            Ok(Policy {
                mode: Mode::Approve,
                ..
            })
            // Not reached: invalid policies have been refused by now.
            | Err(_),
        ) => Ok(()),
        Some(Ok(_)) => Err(NothingToApprove::NotNeeded(key.clone())),
    }
}

/// Asks on the terminal. Without one the change stays held.
fn asked(question: &str, key: &PolicyKey) -> std::io::Result<bool> {
    let approved = ask::agrees(&format!("{question}\nApprove it?"), &key.to_string())?;
    // Nobody could have agreed.
    Ok(approved.unwrap_or(false))
}

fn described(plan_run: &PlanRun) -> String {
    let own = plan_run.snapshot.fleet.own_count();
    match plan_run.limit.devices(own) {
        Some(devices) => format!("{}, {devices} devices", plan_run.limit),
        None => plan_run.limit.to_string(),
    }
}

/// The changes that an approval on such an object would let through, by the policy that owns the field.
fn held_changes(plan_run: &PlanRun, on: ApprovedOn) -> BTreeMap<PolicyKey, HeldChanges<'_>> {
    let plans = plan_run.tailnet_plan.devices.values();
    let shown = plans.flat_map(|plan| &plan.shown);
    let differences =
        shown.filter(|it| it.hold.as_ref().and_then(ApprovedOn::releases) == Some(on));
    let mut held: BTreeMap<PolicyKey, HeldChanges<'_>> = BTreeMap::new();
    for difference in differences {
        let of_policy = held.entry(difference.owner.clone()).or_default();
        of_policy.changes += 1;
        of_policy.devices.insert(&difference.node);
    }
    held
}

/// Turns `Approve` into `Enforce` for these policies, and replans. Returns whether it changed any.
fn approve(plan_run: &mut PlanRun, chosen: &BTreeSet<PolicyKey>) -> bool {
    let mut changed = false;
    for declared in &mut plan_run.policies {
        if let Ok(policy) = &mut declared.policy
            && policy.mode == Mode::Approve
            && chosen.contains(&policy.key)
        {
            Arc::make_mut(policy).mode = Mode::Enforce;
            changed = true;
        }
    }
    if changed {
        plan_run.replan();
    }
    changed
}
