use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    Admission, ApprovalState, ApprovalStates, Binding, DeviceIndex, DevicePlan, Edit, Forbidden,
    Hold, Inactivity, LimitedPlan, OwnedKeys, PlanContext, Policy, PolicyInput, PolicyKey,
    PolicyPermissions, PolicyRecord, Released, ReleasedSetting, SplitPolicies, TailnetWide, Target,
    WantedChanges, bind_policy, inactivity, plan_device, recorded, release::released_settings,
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
    // Without the shares of namespaces, which only a controller with all policies can tell.
    let held = wanted.policies_over_limit(max, &BTreeSet::new(), |key| ranks.get(key));
    if held.is_empty() {
        return free;
    }
    let limited = ApprovalState {
        limited: true,
        ..ApprovalState::default()
    };
    let permits = held.iter().map(|key| (key, limited)).collect();
    let mut plan = TailnetPlan {
        limited: held.clone(),
        ..compare(policies, guards, index, attributes, &permits, now)
    };
    plan.size_limited(&wanted, max);
    plan
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
    let admitted = plan.admit(policies, guards, index);
    let by_key: BTreeMap<&PolicyKey, &Admitted> =
        admitted.iter().map(|it| (&it.policy.key, it)).collect();
    let on_devices = OnDevices::of(&admitted, &plan.bindings);
    let split = split(&on_devices.policies, index, guards);
    // Only what guardrails allow counts for other devices (docs/decisions/0015).
    let counting = on_devices.policies.iter().filter_map(|(node, policies)| {
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
    for (node, policies) in &on_devices.policies {
        // A device that is recorded may have left the tailnet since.
        let Some(device) = index.get(node) else {
            continue;
        };
        let context = PlanContext {
            turns: &turns(device, policies, &mut begun, &context),
            released: on_devices.due(node),
            ..context
        };
        let attributes = attributes.get(node);
        let device_plan = plan_device(device, attributes, policies, &context);
        for (policy, _) in policies {
            let policy = by_key[&policy.key];
            plan.released
                .extend(policy.released_at(device, attributes, &device_plan));
        }
        plan.devices.insert(node.clone(), device_plan);
    }
    plan
}

/// A policy that the tailnet allows.
struct Admitted {
    policy: Policy,
    record: PolicyRecord,
    /// The keys that it owned before a field was released: the record has lost those that a plan must show.
    owned: Arc<OwnedKeys>,
}

impl Admitted {
    /// The settings on a device that the policy has released and that stay as they are.
    fn released_at(
        &self,
        device: &Device,
        attributes: Option<&Attributes>,
        plan: &DevicePlan,
    ) -> Vec<ReleasedSetting> {
        let Some(released) = &self.record.fields.released else {
            return Vec::new();
        };
        released_settings(
            &self.policy.key,
            &released.fields,
            self.owned.known_at(&device.node_id),
            device,
            attributes,
            &plan.owners,
        )
    }
}

impl TailnetPlan {
    /// Adds to each change that the limit holds how many devices its policy would change.
    fn size_limited(&mut self, wanted: &WantedChanges, limit: usize) {
        let plans = self.devices.values_mut();
        for difference in plans.flat_map(|plan| &mut plan.shown) {
            if let Some(Hold::Limit(held)) = &mut difference.hold {
                *held = Some(Box::new(LimitedPlan {
                    devices: wanted.of(&difference.owner).len(),
                    limit,
                    declared: None,
                    is_share: false,
                    hash: None,
                }));
            }
        }
    }

    /// The policies that the tailnet allows, with their devices; notes the refused ones.
    fn admit(
        &mut self,
        policies: &[PolicyInput],
        guards: &Admission,
        index: &DeviceIndex,
    ) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        for declared in policies {
            let Ok(policy) = &declared.policy else {
                continue;
            };
            match guards.admit(Policy::clone(policy)) {
                Ok(policy) => admitted.push(self.bind(policy, declared, index)),
                Err(forbidden) => {
                    self.refused.insert(declared.key.clone(), forbidden);
                }
            }
        }
        admitted
    }

    /// Finds the devices of a policy, and releases the fields that it no longer declares there.
    fn bind(&mut self, policy: Policy, declared: &PolicyInput, index: &DeviceIndex) -> Admitted {
        let mut record = declared.record.met(index);
        let binding = bind_policy(&policy, &record, &declared.approvals, index);
        // An approval binds the policy to the device as it is now.
        if let (Target::Device(target), Binding::Device(id)) = (&policy.target, &binding) {
            let bound = index.get(id).and_then(|device| recorded(target, device));
            record.bound = bound.or(record.bound);
        }
        let owned = Arc::clone(&record.owned);
        release_fields(&policy, &mut record, &binding);
        self.bindings.insert(policy.key.clone(), binding);
        Admitted {
            policy,
            record,
            owned,
        }
    }
}

/// What the admitted policies concern, device by device.
#[derive(Default)]
struct OnDevices<'a> {
    /// The policies that target a device, and devices that are only cleared.
    policies: BTreeMap<NodeId, Vec<(&'a Policy, &'a PolicyRecord)>>,
    /// What must be cleared on a device.
    due: BTreeMap<&'a NodeId, Vec<Released>>,
}

impl<'a> OnDevices<'a> {
    fn of(admitted: &'a [Admitted], bindings: &BTreeMap<PolicyKey, Binding>) -> Self {
        let mut on_devices = Self::default();
        for Admitted { policy, record, .. } in admitted {
            for node in bindings[&policy.key].nodes() {
                let policies = on_devices.policies.entry(node.clone()).or_default();
                policies.push((policy, record));
            }
            if policy.clears() {
                on_devices.add_released(policy, record);
            }
        }
        on_devices
    }

    fn add_released(&mut self, policy: &Policy, record: &'a PolicyRecord) {
        for node in record.managed.released_devices() {
            // Also a device that no policy targets any longer is planned, so that it is cleared.
            self.policies.entry(node.clone()).or_default();
            self.due.entry(node).or_default().push(Released {
                policy: policy.key.clone(),
                settings: record.managed.due(node),
                allowance: policy.allowance.clone(),
                mode: policy.mode,
            });
        }
    }

    fn due(&self, node: &NodeId) -> &[Released] {
        self.due.get(node).map(Vec::as_slice).unwrap_or_default()
    }
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
