use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Binding, Clashes, Declared, DevicePlan, Fleet, Forbidden, Guards, Memory, Parted, Permit,
    Permits, Policy, PolicyKey, Reaches, Reaping, Surroundings, Wants, bind_policy, plan_device,
    reaping,
};
use crate::{
    api::PolicyField,
    model::{Attributes, Device, NodeId},
};

/// What all policies together ask of a tailnet at one moment.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Which devices each policy means.
    pub bindings: BTreeMap<PolicyKey, Binding>,
    /// What is to be done about each device that a policy means.
    pub devices: BTreeMap<NodeId, DevicePlan>,
    /// The policies that the limit of changed devices holds.
    pub limited: BTreeSet<PolicyKey>,
    /// The policies that the tailnet does not allow: they ask for nothing.
    pub refused: BTreeMap<PolicyKey, Forbidden>,
}

/// Compares a whole tailnet with all its policies, without an engine: for a look that sends
/// nothing. Policies that cannot be read ask for nothing.
#[must_use]
pub fn survey(
    policies: &[Declared],
    guards: &Guards,
    fleet: &Fleet,
    attributes: &BTreeMap<NodeId, Attributes>,
    now: Timestamp,
) -> Survey {
    compare(
        policies,
        guards,
        fleet,
        attributes,
        &Permits::default(),
        now,
    )
}

/// As [`survey`], but policies that would change more than `room` devices together are held, as
/// [`Wants::beyond`] chooses them. Those that somebody has `released` are not held and not counted.
#[must_use]
pub fn survey_within(
    policies: &[Declared],
    guards: &Guards,
    fleet: &Fleet,
    attributes: &BTreeMap<NodeId, Attributes>,
    room: usize,
    released: &BTreeSet<PolicyKey>,
    now: Timestamp,
) -> Survey {
    let free = survey(policies, guards, fleet, attributes, now);
    let mut wants = Wants::default();
    for (node, plan) in &free.devices {
        wants.set(node, plan.wanted_by.difference(released).cloned().collect());
    }
    let ranks: BTreeMap<&PolicyKey, _> = policies
        .iter()
        .filter_map(|declared| declared.policy.as_ref().ok())
        .map(|policy| (&policy.key, policy.rank()))
        .collect();
    let held = wants.beyond(room, &BTreeSet::new(), |key| ranks.get(key));
    if held.is_empty() {
        return free;
    }
    let limited = Permit {
        limited: true,
        ..Permit::default()
    };
    let permits = held.iter().map(|key| (key, limited)).collect();
    Survey {
        limited: held.clone(),
        ..compare(policies, guards, fleet, attributes, &permits, now)
    }
}

fn compare(
    policies: &[Declared],
    guards: &Guards,
    fleet: &Fleet,
    attributes: &BTreeMap<NodeId, Attributes>,
    permits: &Permits<'_>,
    now: Timestamp,
) -> Survey {
    let mut survey = Survey::default();
    let mut admitted: Vec<(&Declared, Policy, Memory)> = Vec::new();
    for declared in policies {
        let Ok(policy) = declared.policy.clone() else {
            continue;
        };
        match guards.admit(policy) {
            Ok(policy) => admitted.push((declared, policy, declared.memory.met(fleet))),
            Err(forbidden) => {
                survey.refused.insert(declared.key.clone(), forbidden);
            }
        }
    }
    let mut held: BTreeMap<NodeId, Vec<(&Policy, &Memory)>> = BTreeMap::new();
    for (declared, policy, memory) in &admitted {
        let binding = bind_policy(policy, memory, &declared.approvals, fleet);
        for node in binding.nodes() {
            held.entry(node.clone()).or_default().push((policy, memory));
        }
        survey.bindings.insert(policy.key.clone(), binding);
    }
    let parted = part(&held, fleet, guards);
    let counting = held.iter().filter_map(|(node, policies)| {
        let parted = parted.get(node)?;
        Some((node.clone(), parted.counting(policies)))
    });
    let clashes = Clashes::among(&counting.collect(), attributes, now);
    let around = Surroundings {
        fleet,
        permits,
        clashes: &clashes,
        now,
        let_go: &[],
        turns: &BTreeSet::new(),
        guardrails: &guards.guardrails,
    };
    let mut begun: BTreeMap<&PolicyKey, usize> = BTreeMap::new();
    for (node, policies) in held {
        if let Some(device) = fleet.get(&node) {
            let turns = turns(device, &policies, &mut begun, &around);
            let around = Surroundings {
                turns: &turns,
                ..around
            };
            let plan = plan_device(device, attributes.get(&node), &policies, &around);
            survey.devices.insert(node, plan);
        }
    }
    survey
}

/// Of each device, what its policies wish that they may have there.
fn part(
    held: &BTreeMap<NodeId, Vec<(&Policy, &Memory)>>,
    fleet: &Fleet,
    guards: &Guards,
) -> BTreeMap<NodeId, Parted> {
    let parted = held.iter().filter_map(|(node, policies)| {
        let device = fleet.get(node)?;
        let reaches = Reaches::on(device, policies, &[], &guards.guardrails);
        Some((node.clone(), reaches.part(policies)))
    });
    parted.collect()
}

/// The policies whose turn it is to delete a device: as many devices of each as it may still delete
/// today, besides those that it has begun.
fn turns<'a>(
    device: &Device,
    policies: &[(&'a Policy, &Memory)],
    begun: &mut BTreeMap<&'a PolicyKey, usize>,
    around: &Surroundings<'_>,
) -> BTreeSet<PolicyKey> {
    let now = around.now;
    let has_turn = |(policy, memory): &&(&'a Policy, &Memory)| {
        let barred = around.guardrails.bars(policy, PolicyField::Reap, device);
        let inactive = matches!(
            reaping(policy, device, barred.is_some(), now),
            Some(Reaping::Inactive(_))
        );
        let (Some(reap), true) = (policy.wishes.reap, inactive) else {
            return false;
        };
        let record = memory.acts.deletions.get(&device.node_id);
        if record.is_some_and(|record| record.counts(now)) {
            return true;
        }
        let before = || memory.acts.deleted(now, &BTreeSet::new());
        let begun = begun.entry(&policy.key).or_insert_with(before);
        *begun += 1;
        *begun <= reap.max_per_day as usize
    };
    let turns = policies.iter().filter(has_turn);
    turns.map(|(policy, _)| policy.key.clone()).collect()
}
