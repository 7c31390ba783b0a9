use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    Admission, ApprovalState, ApprovalStates, Binding, DeviceIndex, DevicePlan, Edit, Forbidden,
    Inactivity, OwnedKeys, PlanContext, Policy, PolicyInput, PolicyKey, PolicyPermissions,
    PolicyRecord, Released, ReleasedSetting, SplitPolicies, TailnetWide, Target, WantedChanges,
    bind_policy, inactivity, plan_device, recorded, release::released_settings,
};
use crate::model::{Attributes, Device, NodeId, PolicyField};

/// The plan for a whole tailnet.
#[derive(Debug, Clone, Default)]
pub struct TailnetPlan {
    /// The devices that each policy targets.
    pub bindings: BTreeMap<PolicyKey, Binding>,
    /// The plan for each device that a policy targets.
    pub devices: BTreeMap<NodeId, DevicePlan>,
    /// The policies that the limit of changed devices holds.
    pub limited: BTreeSet<PolicyKey>,
    /// The policies that the tailnet does not allow: they have no effect.
    pub refused: BTreeMap<PolicyKey, Forbidden>,
    /// The settings that policies have released and that stay as they are.
    pub released: Vec<ReleasedSetting>,
}

/// Compares a whole tailnet with all of its policies, without the engine, for a plan that sends nothing.
/// Invalid policies have no effect.
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

/// As [`plan_tailnet`], but holds policies that would change more than `max` devices together, as
/// [`WantedChanges::policies_over_limit`] chooses them. `approved` policies are not held and do not count.
#[must_use]
pub fn plan_tailnet_within(
    policies: &[PolicyInput],
    guards: &Admission,
    index: &DeviceIndex,
    attributes: &BTreeMap<NodeId, Attributes>,
    max: usize,
    approved: &BTreeSet<PolicyKey>,
    now: Timestamp,
) -> TailnetPlan {
    let free = plan_tailnet(policies, guards, index, attributes, now);
    let mut wanted = WantedChanges::default();
    for (node, plan) in &free.devices {
        wanted.set(
            node,
            plan.desired_by.difference(approved).cloned().collect(),
        );
    }
    let ranks: BTreeMap<&PolicyKey, _> = policies
        .iter()
        .filter_map(|declared| declared.policy.as_ref().ok())
        .map(|policy| (&policy.key, policy.rank()))
        .collect();
    let held = wanted.policies_over_limit(max, &BTreeSet::new(), |key| ranks.get(key));
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
    let mut admitted: Vec<(Policy, PolicyRecord)> = Vec::new();
    // With a released field, the record loses the keys that a plan must still show.
    let mut owned: BTreeMap<PolicyKey, Arc<OwnedKeys>> = BTreeMap::new();
    for declared in policies {
        let Ok(policy) = declared.policy.clone() else {
            continue;
        };
        match guards.admit(policy) {
            Ok(policy) => {
                let mut record = declared.record.met(index);
                let binding = bind_policy(&policy, &record, &declared.approvals, index);
                // An approval binds the policy to the device as it is now.
                if let (Target::Device(target), Binding::Device(id)) = (&policy.target, &binding) {
                    let bound = index.get(id).and_then(|device| recorded(target, device));
                    record.bound = bound.or(record.bound);
                }
                owned.insert(policy.key.clone(), Arc::clone(&record.owned));
                release_fields(&policy, &mut record, &binding);
                plan.bindings.insert(policy.key.clone(), binding);
                admitted.push((policy, record));
            }
            Err(forbidden) => {
                plan.refused.insert(declared.key.clone(), forbidden);
            }
        }
    }
    let mut held: BTreeMap<NodeId, Vec<(&Policy, &PolicyRecord)>> = BTreeMap::new();
    let mut due: BTreeMap<&NodeId, Vec<Released>> = BTreeMap::new();
    for (policy, record) in &admitted {
        for node in plan.bindings[&policy.key].nodes() {
            held.entry(node.clone()).or_default().push((policy, record));
        }
        let released = record.managed.released_devices().into_iter();
        for node in released.filter(|_| policy.clears()) {
            held.entry(node.clone()).or_default();
            let settings = record.managed.due(node);
            let released = due.entry(node).or_default();
            released.push(Released {
                policy: policy.key.clone(),
                settings,
                allowance: policy.allowance.clone(),
                mode: policy.mode,
            });
        }
    }
    let split = split(&held, index, guards);
    let counting = held.iter().filter_map(|(node, policies)| {
        let settings = split.get(node)?;
        Some((node.clone(), settings.counting(policies)))
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
                released: due.get(&node).map(Vec::as_slice).unwrap_or_default(),
                ..context
            };
            let attributes = attributes.get(&node);
            let device_plan = plan_device(device, attributes, &policies, &context);
            for (policy, record) in policies {
                let Some(released) = &record.fields.released else {
                    continue;
                };
                let keys = owned.get(&policy.key);
                plan.released.extend(released_settings(
                    &policy.key,
                    &released.fields,
                    keys.and_then(|keys| keys.known_at(&node)),
                    device,
                    attributes,
                    &device_plan.owners,
                ));
            }
            plan.devices.insert(node, device_plan);
        }
    }
    plan
}

/// Releases the fields that a policy no longer declares, as the engine does.
fn release_fields(policy: &Policy, record: &mut PolicyRecord, binding: &Binding) {
    let edit = Edit {
        generation: policy.generation,
        devices: binding.nodes().count(),
        is_certain: matches!(binding, Binding::Device(_) | Binding::Selector(_)),
        is_reported: true,
    };
    record.release_fields(policy, edit);
}

/// Splits the settings of the policies of each device into allowed and denied ones.
fn split(
    held: &BTreeMap<NodeId, Vec<(&Policy, &PolicyRecord)>>,
    index: &DeviceIndex,
    guards: &Admission,
) -> BTreeMap<NodeId, SplitPolicies> {
    let split = held.iter().filter_map(|(node, policies)| {
        let device = index.get(node)?;
        let permissions = PolicyPermissions::on(device, policies, &[], &guards.guardrails);
        Some((node.clone(), permissions.split(policies)))
    });
    split.collect()
}

/// The policies that may delete a device today: each may begin as many deletions as its limit for the day still
/// allows, and continue those that it has begun.
fn turns<'a>(
    device: &Device,
    policies: &[(&'a Policy, &PolicyRecord)],
    begun: &mut BTreeMap<&'a PolicyKey, usize>,
    context: &PlanContext<'_>,
) -> BTreeSet<PolicyKey> {
    policies
        .iter()
        .filter(|(policy, record)| has_turn(device, policy, record, begun, context))
        .map(|(policy, _)| policy.key.clone())
        .collect()
}

fn has_turn<'a>(
    device: &Device,
    policy: &'a Policy,
    record: &PolicyRecord,
    begun: &mut BTreeMap<&'a PolicyKey, usize>,
    context: &PlanContext<'_>,
) -> bool {
    let now = context.now;
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
    // It counts already, and must be finished.
    if deletion.is_some_and(|deletion| deletion.counts(now)) {
        return true;
    }
    let begun = begun
        .entry(&policy.key)
        .or_insert_with(|| record.actions.deleted(now, &BTreeSet::new()));
    *begun += 1;
    *begun <= delete_inactive.max_per_day as usize
}
