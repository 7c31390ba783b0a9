//! Properties of several policies on several devices: [`plan_tailnet`], with its requests applied one after
//! another until none is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::{collection, prelude::*};

use crate::plan::{
    Admission, Approvals, Call, DeviceIndex, DeviceTarget, Guardrails, Identity, ListOwnership,
    Mode, Policy, PolicyInput, PolicyKey, PolicyRecord, ReconcileRequest, StatusState, TailnetPlan,
    Target, apply, apply_attributes, next_call,
    permit::tests::random_guardrails,
    plan_tailnet, recorded,
    tests::scenes::{attributes, device, now, policy},
};
use crate::{
    convert::fixtures::guardrails,
    model::{Attributes, Device, NodeId, Setting, SettingValue},
};

/// The most requests that three devices and four policies can need, including changes of targets.
const MAX_CALLS: usize = 200;

/// A tailnet and the policies for it.
#[derive(Debug, Clone)]
struct World {
    devices: BTreeMap<NodeId, Device>,
    attributes: BTreeMap<NodeId, Attributes>,
    policies: Vec<PolicyInput>,
    guards: Admission,
}

impl World {
    fn index(&self) -> DeviceIndex {
        DeviceIndex::new(self.devices.values().cloned())
    }

    fn plan(&self) -> TailnetPlan {
        plan_tailnet(
            &self.policies,
            &self.guards,
            &self.index(),
            &self.attributes,
            now(),
        )
    }

    /// Applies all requests, those of the first device first. Each policy records the device that it found, as
    /// its status does.
    fn run(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some(call) = self.next() {
            self.make(&call);
            calls.push(call);
            assert!(calls.len() < MAX_CALLS, "no end: {calls:#?}");
        }
        calls
    }

    /// The next request, after recording what must be recorded before it.
    fn next(&mut self) -> Option<Call> {
        self.record_bound();
        let plan = self.plan();
        let mut plans = plan.devices.values();
        let (call, _) = plans.find_map(|plan| next_call(plan, &BTreeSet::new()))?;
        Some(call)
    }

    fn make(&mut self, call: &Call) {
        for id in call.nodes() {
            if let Some(device) = self.devices.get_mut(id) {
                apply(call, device);
            }
        }
        if let Call::WriteAttributes(nodes) = call {
            for (id, writes) in nodes {
                let attributes = self.attributes.entry(id.clone()).or_default();
                apply_attributes(writes, attributes);
            }
        }
    }

    fn record_bound(&mut self) {
        let bindings = self.plan().bindings;
        for declared in &mut self.policies {
            let Ok(policy) = &declared.policy else {
                continue;
            };
            let Target::Device(target) = &policy.target else {
                continue;
            };
            let found = bindings.get(&declared.key);
            let found = found.and_then(|binding| binding.nodes().next());
            if let Some(device) = found.and_then(|id| self.devices.get(id)) {
                declared.record.bound = recorded(target, device);
            }
        }
    }

    /// The devices that enforcing policies target.
    fn targeted(&self) -> BTreeSet<NodeId> {
        let bindings = self.plan().bindings;
        let acting = self
            .policies
            .iter()
            .filter_map(|declared| declared.policy.as_ref().ok());
        let acting = acting.filter(|policy| policy.mode == Mode::Enforce);
        acting
            .filter_map(|policy| bindings.get(&policy.key))
            .flat_map(|binding| binding.nodes().cloned())
            .collect()
    }
}

/// Three devices, two of which have the same hostname.
fn devices() -> impl Strategy<Value = Vec<Device>> {
    collection::vec(device(), 3).prop_map(|mut devices| {
        for (number, device) in devices.iter_mut().enumerate() {
            device.node_id = format!("n{number}CNTRL").parse().unwrap();
            device.legacy_id = number.to_string();
            device.hostname = format!("host-{}", number / 2);
            device.name = format!("name-{number}.tail1.ts.net");
            device.ipv4 = device.ipv4.map(|addr| {
                let [first, second, third, last] = addr.octets();
                [first, second, third + u8::try_from(number).unwrap(), last].into()
            });
        }
        devices
    })
}

/// Points a policy at one of the three devices (no device has the last hostname), or at all with some tags.
fn retarget((mut policy, record): (Policy, PolicyRecord), which: usize) -> (Policy, PolicyRecord) {
    if let Target::Device(DeviceTarget { identity, .. }) = &mut policy.target {
        *identity = if which < 3 {
            Identity::NodeId(format!("n{which}CNTRL").parse().unwrap())
        } else {
            Identity::Hostname(format!("host-{}", which - 3))
        };
    } else {
        policy.desired.settings.unset(Setting::Name);
        policy.desired.settings.unset(Setting::Ipv4);
    }
    (policy, record)
}

/// Every other tailnet declares guardrails.
fn guards() -> impl Strategy<Value = Admission> {
    let declared = random_guardrails().prop_map(|spec| guardrails(&spec));
    let guardrails = prop_oneof![Just(Guardrails::default()), declared];
    guardrails.prop_map(|guardrails| Admission {
        guardrails,
        ..Admission::default()
    })
}

fn world() -> impl Strategy<Value = World> {
    let policies = collection::vec((policy(), 0..6_usize), 0..5);
    let attributes = collection::vec(attributes(), 3);
    (devices(), attributes, policies, guards()).prop_map(
        |(devices, attributes, policies, guards)| {
            let ids = devices.iter().map(|device| device.node_id.clone());
            World {
                attributes: ids.zip(attributes).collect(),
                guards,
                devices: devices
                    .into_iter()
                    .map(|it| (it.node_id.clone(), it))
                    .collect(),
                policies: policies
                    .into_iter()
                    .enumerate()
                    .map(|(number, (policy, which))| declared(number, retarget(policy, which)))
                    .collect(),
            }
        },
    )
}

fn declared(number: usize, (mut policy, record): (Policy, PolicyRecord)) -> PolicyInput {
    policy.key = PolicyKey::new(&*policy.key.namespace, format!("policy-{number}"));
    // An exact list that is empty is refused.
    if policy
        .desired
        .tags
        .as_ref()
        .is_some_and(|tags| tags.is_empty())
    {
        policy.ownership.tags = ListOwnership::AtLeast;
    }
    PolicyInput {
        key: policy.key.clone(),
        uid: String::new(),
        generation: 1,
        policy: Ok(Arc::new(policy)),
        record,
        request: ReconcileRequest::default(),
        approvals: Approvals::default(),
        status_state: StatusState::default(),
        deleting: None,
    }
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(384))]

    #[test]
    fn requests_end_and_leave_only_held_differences(world in world()) {
        let mut world = world;
        world.run();
        for plan in world.plan().devices.values() {
            let held = plan.differences.iter().any(|difference| difference.hold.is_some());
            for difference in &plan.differences {
                let waits = held || plan.lacks_what_waits();
                prop_assert!(difference.hold.is_some() || waits, "{difference:#?}");
            }
        }
    }

    #[test]
    fn order_of_policies_changes_no_request(world in world(), turn in 0..5_usize) {
        let mut other = world.clone();
        let turn = turn.min(other.policies.len());
        other.policies.rotate_left(turn);
        let (mut one, mut two) = (world, other);
        prop_assert_eq!(one.run(), two.run());
        prop_assert_eq!(one.devices, two.devices);
    }

    #[test]
    fn restart_after_any_request_leads_to_the_same_state(world in world(), made in 0..6_usize) {
        let mut straight = world.clone();
        straight.run();
        let mut restarted = world;
        for _ in 0..made {
            let Some(call) = restarted.next() else { break };
            restarted.make(&call);
        }
        restarted.run();
        prop_assert_eq!(straight.devices, restarted.devices);
        prop_assert_eq!(straight.attributes, restarted.attributes);
    }

    #[test]
    fn device_that_no_acting_policy_targets_is_not_changed(world in world()) {
    let mut after = world.clone();
    let mut targeted = after.targeted();
    after.run();
    // New tags can make a selector match a device.
    targeted.extend(after.targeted());
    for (id, device) in &world.devices {
    if !targeted.contains(id) {
                prop_assert_eq!(&after.devices[id], device);
                prop_assert_eq!(&after.attributes[id], &world.attributes[id]);
            }
        }
    }

    #[test]
    fn refused_policy_has_no_effect_on_the_plan(world in world()) {
        let plan = world.plan();
        let mut without = world.clone();
        without.policies.retain(|declared| !plan.refused.contains_key(&declared.key));
        prop_assert_eq!(plan.devices, without.plan().devices);
    }

    #[test]
    fn protected_device_is_not_changed(world in world()) {
        let mut after = world.clone();
        after.run();
        for (id, device) in &world.devices {
            if world.guards.guardrails.protects(device) || world.guards.guardrails.suspended() {
                prop_assert_eq!(&after.devices[id], device);
                prop_assert_eq!(&after.attributes[id], &world.attributes[id]);
            }
        }
    }

    #[test]
    fn no_request_takes_the_address_or_the_name_of_another_device(world in world()) {
        let mut after = world;
        for call in after.clone().run() {
            let index = after.index();
            match &call {
                Call::Set(id, SettingValue::Ipv4(addr)) => {
                    let holder = index.holder_of(addr.addr());
                    prop_assert!(holder.is_none_or(|holder| holder.node_id == *id), "{call:?}");
                }
                Call::Set(id, SettingValue::Name(label)) => {
                    let others = index.devices_named(label).filter(|other| other.node_id != *id);
                    prop_assert_eq!(others.count(), 0, "{:?}", call);
                }
                _ => {}
            }
            after.make(&call);
        }
    }
}
