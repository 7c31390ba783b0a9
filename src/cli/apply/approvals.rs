//! What a guard holds and a person can release: shown and asked for by name, never by `--yes`.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use crate::{
    cli::{AnyError, ask, plan::Proposal},
    model::NodeId,
    plan::{ApprovedOn, Mode, Policy, PolicyKey},
};

/// A policy, as `--approve` names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named(PolicyKey);

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self(PolicyKey {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                }))
            }
            _ => Err("write NAMESPACE/NAME of the policy, such as network/fra-router".to_owned()),
        }
    }
}

/// What is held of one policy.
#[derive(Debug, Default)]
struct Waiting<'a> {
    changes: usize,
    devices: BTreeSet<&'a NodeId>,
}

/// Releases the policies that are named, and asks for the others by name. Says whether the plan has
/// become another one by that.
pub(super) fn approve_held(
    proposal: &mut Proposal,
    approved: &[Named],
    may_ask: bool,
) -> Result<bool, AnyError> {
    for Named(key) in approved {
        check(proposal, key)?;
    }
    let mut chosen: BTreeSet<PolicyKey> = approved.iter().map(|Named(key)| key.clone()).collect();
    if may_ask {
        for (key, waiting) in waiting(proposal, ApprovedOn::Policy) {
            if !chosen.contains(&key)
                && asked(
                    &format!("{key} waits for an approval: {}.", waiting.counted()),
                    &key,
                )?
            {
                chosen.insert(key);
            }
        }
    }
    let mut changed = approve(proposal, &chosen);
    if may_ask {
        let mut released = BTreeSet::new();
        for (key, waiting) in waiting(proposal, ApprovedOn::Tailnet) {
            let question = format!(
                "The limit of changed devices ({}) holds {key}: {}.",
                described(proposal),
                waiting.counted()
            );
            if asked(&question, &key)? {
                released.insert(key);
            }
        }
        if !released.is_empty() {
            changed = true;
            proposal.released = released;
            proposal.compare();
        }
    }
    Ok(changed)
}

/// How what is held still is released: what the manifests and the cluster say helps only there.
pub(super) fn hints(proposal: &Proposal) -> Vec<String> {
    let approvals = waiting(proposal, ApprovedOn::Policy).into_iter();
    let approvals = approvals.map(|(key, waiting)| {
        format!(
            "{key} waits for an approval: {}; write --approve {key}",
            waiting.counted()
        )
    });
    let limited = waiting(proposal, ApprovedOn::Tailnet).into_iter();
    let limited = limited.map(|(key, waiting)| {
        format!(
            "{key} is held by the limit of changed devices ({}): {}; write --max-changed-devices and a \
             number, or say its name on a terminal",
            described(proposal),
            waiting.counted()
        )
    });
    approvals.chain(limited).collect()
}

impl Waiting<'_> {
    fn counted(&self) -> String {
        let plural = |count, what: &str| {
            if count == 1 {
                format!("1 {what}")
            } else {
                format!("{count} {what}s")
            }
        };
        format!(
            "{} on {}",
            plural(self.changes, "change"),
            plural(self.devices.len(), "device")
        )
    }
}

/// That `--approve` names a policy for which it means something.
fn check(proposal: &Proposal, key: &PolicyKey) -> Result<(), String> {
    let declared = proposal.policies.iter().find(|it| it.key == *key);
    match declared.map(|declared| &declared.policy) {
        None => Err(format!(
            "--approve {key}: there is no such policy among those that are applied"
        )),
        Some(
            Ok(Policy {
                mode: Mode::Approve,
                ..
            })
            | Err(_),
        ) => Ok(()),
        Some(Ok(_)) => Err(format!(
            "--approve {key}: that policy does not wait for approvals, only one with enforcement: \
             Approve does"
        )),
    }
}

/// Where nobody can be asked it stays held.
fn asked(what: &str, key: &PolicyKey) -> std::io::Result<bool> {
    let approved = ask::agrees(&format!("{what}\nRelease it?"), &key.to_string())?;
    Ok(approved.unwrap_or(false))
}

fn described(proposal: &Proposal) -> String {
    let own = proposal.snapshot.fleet.own_count();
    match proposal.limit.devices(own) {
        Some(devices) => format!("{}, {devices} devices", proposal.limit),
        None => proposal.limit.to_string(),
    }
}

/// What an approval of this kind would release, by the policy that wishes it.
fn waiting(proposal: &Proposal, on: ApprovedOn) -> BTreeMap<PolicyKey, Waiting<'_>> {
    let plans = proposal.survey.devices.values();
    let shown = plans.flat_map(|plan| &plan.shown);
    let held = shown.filter(|it| it.hold.as_ref().and_then(ApprovedOn::releases) == Some(on));
    let mut waiting: BTreeMap<PolicyKey, Waiting<'_>> = BTreeMap::new();
    for difference in held {
        let of_policy = waiting.entry(difference.owner.clone()).or_default();
        of_policy.changes += 1;
        of_policy.devices.insert(&difference.node);
    }
    waiting
}

/// From now on these policies act as any other.
fn approve(proposal: &mut Proposal, chosen: &BTreeSet<PolicyKey>) -> bool {
    let mut changed = false;
    for declared in &mut proposal.policies {
        if let Ok(policy) = &mut declared.policy
            && policy.mode == Mode::Approve
            && chosen.contains(&policy.key)
        {
            policy.mode = Mode::Enforce;
            changed = true;
        }
    }
    if changed {
        proposal.compare();
    }
    changed
}
