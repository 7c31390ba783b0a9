use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Binding, Clashes, Declared, DevicePlan, Fleet, Memory, Permit, Permits, Policy, PolicyKey,
    Reaping, Surroundings, Wants, bind, plan_device, reaping,
};
use crate::model::{Attributes, Device, NodeId};

/// What all policies together ask of a tailnet at one moment.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Which devices each policy means.
    pub bindings: BTreeMap<PolicyKey, Binding>,
    /// What is to be done about each device that a policy means.
    pub devices: BTreeMap<NodeId, DevicePlan>,
    /// The policies that the limit of changed devices holds.
    pub limited: BTreeSet<PolicyKey>,
}

/// Compares a whole tailnet with all its policies, without an engine: for a look that sends
/// nothing. Policies that cannot be read ask for nothing.
#[must_use]
pub fn survey(
    policies: &[Declared],
    fleet: &Fleet,
    attributes: &BTreeMap<NodeId, Attributes>,
    now: Timestamp,
) -> Survey {
    compare(policies, fleet, attributes, &Permits::default(), now)
}

/// As [`survey`], but policies that would change more than `room` devices together are held, as
/// [`Wants::beyond`] chooses them. Those that somebody has `released` are not held and not counted.
#[must_use]
pub fn survey_within(
    policies: &[Declared],
    fleet: &Fleet,
    attributes: &BTreeMap<NodeId, Attributes>,
    room: usize,
    released: &BTreeSet<PolicyKey>,
    now: Timestamp,
) -> Survey {
    let free = survey(policies, fleet, attributes, now);
    let mut wants = Wants::default();
    for (node, plan) in &free.devices {
        wants.set(node, plan.wanted_by.difference(released).cloned().collect());
    }
    let ranks: BTreeMap<&PolicyKey, _> = policies
        .iter()
        .filter_map(|declared| declared.policy.as_ref().ok())
        .map(|policy| (&policy.key, policy.rank()))
        .collect();
    let held = wants.beyond(room, |key| ranks.get(key));
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
        ..compare(policies, fleet, attributes, &permits, now)
    }
}

fn compare(
    policies: &[Declared],
    fleet: &Fleet,
    attributes: &BTreeMap<NodeId, Attributes>,
    permits: &Permits<'_>,
    now: Timestamp,
) -> Survey {
    let mut survey = Survey::default();
    let mut held: BTreeMap<NodeId, Vec<(&Policy, &Memory)>> = BTreeMap::new();
    for declared in policies {
        let Ok(policy) = &declared.policy else {
            continue;
        };
        let binding = bind(&policy.target, &declared.memory, &declared.approvals, fleet);
        for node in binding.nodes() {
            held.entry(node.clone())
                .or_default()
                .push((policy, &declared.memory));
        }
        survey.bindings.insert(policy.key.clone(), binding);
    }
    let all = policies
        .iter()
        .filter_map(|declared| declared.policy.as_ref().ok());
    let clashes = Clashes::among(all, &held, attributes, now);
    let around = Surroundings {
        fleet,
        permits,
        clashes: &clashes,
        now,
        let_go: &[],
        turns: &BTreeSet::new(),
    };
    let mut begun: BTreeMap<&PolicyKey, usize> = BTreeMap::new();
    for (node, policies) in held {
        if let Some(device) = fleet.get(&node) {
            let turns = turns(device, &policies, &mut begun, now);
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

/// The policies whose turn it is to delete a device: as many devices of each as it may still delete
/// today, besides those that it has begun.
fn turns<'a>(
    device: &Device,
    policies: &[(&'a Policy, &Memory)],
    begun: &mut BTreeMap<&'a PolicyKey, usize>,
    now: Timestamp,
) -> BTreeSet<PolicyKey> {
    let has_turn = |(policy, memory): &&(&'a Policy, &Memory)| {
        let inactive = matches!(
            reaping(policy, device, false, now),
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
