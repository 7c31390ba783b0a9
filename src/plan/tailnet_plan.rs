use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Admission, ApprovalState, ApprovalStates, Binding, DeviceIndex, DevicePlan, Forbidden,
    Inactivity, PlanContext, Policy, PolicyInput, PolicyKey, PolicyPermissions, PolicyRecord,
    SplitPolicies, TailnetWide, WantedChanges, bind_policy, inactivity, plan_device,
};
use crate::{
    api::PolicyField,
    model::{Attributes, Device, NodeId},
};

/// What all policies together ask of a tailnet at one moment.
#[derive(Debug, Clone, Default)]
pub struct TailnetPlan {
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
pub fn plan_tailnet(
    policies: &[PolicyInput],
    guards: &Admission,
    index: &DeviceIndex,
    attributes: &BTreeMap<NodeId, Attributes>,
    now: Timestamp,
) -> TailnetPlan {
    compare(
        policies,
        guards,
        index,
        attributes,
        &ApprovalStates::default(),
        now,
    )
}

/// As [`survey`], but policies that would change more than `room` devices together are held, as
/// [`Wants::policies_over_limit`] chooses them. Those that somebody has `released` are not held and not counted.
#[must_use]
pub fn plan_tailnet_within(
    policies: &[PolicyInput],
    guards: &Admission,
    index: &DeviceIndex,
    attributes: &BTreeMap<NodeId, Attributes>,
    room: usize,
    released: &BTreeSet<PolicyKey>,
    now: Timestamp,
) -> TailnetPlan {
    let free = plan_tailnet(policies, guards, index, attributes, now);
    let mut unique = WantedChanges::default();
    for (node, plan) in &free.devices {
        unique.set(
            node,
            plan.desired_by.difference(released).cloned().collect(),
        );
    }
    let ranks: BTreeMap<&PolicyKey, _> = policies
        .iter()
        .filter_map(|declared| declared.policy.as_ref().ok())
        .map(|policy| (&policy.key, policy.rank()))
        .collect();
    let held = unique.policies_over_limit(room, &BTreeSet::new(), |key| ranks.get(key));
    if held.is_empty() {
        return free;
    }
    let limited = ApprovalState {
        limited: true,
        ..ApprovalState::default()
    };
    let permits = held.iter().map(|key| (key, limited)).collect();
    TailnetPlan {
        limited: held.clone(),
        ..compare(policies, guards, index, attributes, &permits, now)
    }
}

fn compare(
    policies: &[PolicyInput],
    guards: &Admission,
    index: &DeviceIndex,
    attributes: &BTreeMap<NodeId, Attributes>,
    permits: &ApprovalStates<'_>,
    now: Timestamp,
) -> TailnetPlan {
    let mut plan = TailnetPlan::default();
    let mut admitted: Vec<(&PolicyInput, Policy, PolicyRecord)> = Vec::new();
    for declared in policies {
        let Ok(policy) = declared.policy.clone() else {
            continue;
        };
        match guards.admit(policy) {
            Ok(policy) => admitted.push((declared, policy, declared.record.met(index))),
            Err(forbidden) => {
                plan.refused.insert(declared.key.clone(), forbidden);
            }
        }
    }
    let mut held: BTreeMap<NodeId, Vec<(&Policy, &PolicyRecord)>> = BTreeMap::new();
    for (declared, policy, record) in &admitted {
        let binding = bind_policy(policy, record, &declared.approvals, index);
        for node in binding.nodes() {
            held.entry(node.clone()).or_default().push((policy, record));
        }
        plan.bindings.insert(policy.key.clone(), binding);
    }
    let split = part(&held, index, guards);
    let counting = held.iter().filter_map(|(node, policies)| {
        let split = split.get(node)?;
        Some((node.clone(), split.counting(policies)))
    });
    let tailnet_wide = TailnetWide::among(&counting.collect(), attributes, now);
    let context = PlanContext {
        index,
        approvals: permits,
        tailnet_wide: &tailnet_wide,
        now,
        released: &[],
        turns: &BTreeSet::new(),
        guardrails: &guards.guardrails,
    };
    let mut begun: BTreeMap<&PolicyKey, usize> = BTreeMap::new();
    for (node, policies) in held {
        if let Some(device) = index.get(&node) {
            let turns = turns(device, &policies, &mut begun, &context);
            let context = PlanContext {
                turns: &turns,
                ..context
            };
            let device_plan = plan_device(device, attributes.get(&node), &policies, &context);
            plan.devices.insert(node, device_plan);
        }
    }
    plan
}

/// Of each device, what its policies wish that they may have there.
fn part(
    held: &BTreeMap<NodeId, Vec<(&Policy, &PolicyRecord)>>,
    index: &DeviceIndex,
    guards: &Admission,
) -> BTreeMap<NodeId, SplitPolicies> {
    let split = held.iter().filter_map(|(node, policies)| {
        let device = index.get(node)?;
        let permissions = PolicyPermissions::on(device, policies, &[], &guards.guardrails);
        Some((node.clone(), permissions.part(policies)))
    });
    split.collect()
}

/// The policies whose turn it is to delete a device: as many devices of each as it may still delete
/// today, besides those that it has begun.
fn turns<'a>(
    device: &Device,
    policies: &[(&'a Policy, &PolicyRecord)],
    begun: &mut BTreeMap<&'a PolicyKey, usize>,
    context: &PlanContext<'_>,
) -> BTreeSet<PolicyKey> {
    let now = context.now;
    let has_turn = |(policy, record): &&(&'a Policy, &PolicyRecord)| {
        let denied = context
            .guardrails
            .denies(policy, PolicyField::DeleteInactive, device);
        let inactive = matches!(
            inactivity(policy, device, denied.is_some(), now),
            Some(Inactivity::Inactive(_))
        );
        let (Some(delete_inactive), true) = (policy.desired.delete_inactive, inactive) else {
            return false;
        };
        let deletion = record.actions.deletions.get(&device.node_id);
        if deletion.is_some_and(|deletion| deletion.counts(now)) {
            return true;
        }
        let before = || record.actions.deleted(now, &BTreeSet::new());
        let begun = begun.entry(&policy.key).or_insert_with(before);
        *begun += 1;
        *begun <= delete_inactive.max_per_day as usize
    };
    let turns = policies.iter().filter(has_turn);
    turns.map(|(policy, _)| policy.key.clone()).collect()
}
