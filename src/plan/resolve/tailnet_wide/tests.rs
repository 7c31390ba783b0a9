//! Several devices, and policies that declare settings that are unique in a tailnet.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use proptest::{collection, option, prelude::*};

use super::{AttributeType, AttributeTypes};
use crate::{
    model::{
        AttributeValue, Attributes, DesiredAttribute, Device, NodeId, Setting, SettingValue, TagSet,
    },
    plan::{
        Admission, AllowedRules, Approvals, Call, ConflictKind, Deletion, DesiredSettings,
        DeviceIndex, DeviceTarget, Field, Hold, Identity, ListOwnership, Mode, OwnedKeys,
        Ownership, Policy, PolicyInput, PolicyKey, PolicyRecord, ReconcileRequest, StatusState,
        Suspender, TailnetPlan, Target, apply, apply_attributes, next_call, plan_tailnet,
        tests::scenes::{now, plain_device},
    },
};

const DEVICES: u8 = 4;

fn id(number: u8) -> NodeId {
    format!("n{number}CNTRL").parse().unwrap()
}

/// Devices with the addresses 100.80.0.0 to 100.80.0.3 and the names `name-0` to `name-3`.
#[derive(Debug, Clone)]
struct Tailnet {
    devices: BTreeMap<NodeId, Device>,
    attributes: BTreeMap<NodeId, Attributes>,
    policies: Vec<PolicyInput>,
}

impl Tailnet {
    fn new(policies: Vec<Policy>) -> Self {
        let device = |number: u8| Device {
            node_id: id(number),
            name: format!("name-{number}.tail1.ts.net"),
            ipv4: Some([100, 80, 0, number].into()),
            ..plain_device()
        };
        let declared = policies
            .into_iter()
            .enumerate()
            .map(|(number, mut policy)| {
                policy.key = PolicyKey::new(&*policy.key.namespace, format!("policy-{number}"));
                PolicyInput {
                    key: policy.key.clone(),
                    uid: String::new(),
                    generation: 1,
                    policy: Ok(Arc::new(policy)),
                    record: PolicyRecord::default(),
                    request: ReconcileRequest::default(),
                    approvals: Approvals::default(),
                    status_state: StatusState::default(),
                    deleting: None,
                }
            });
        Self {
            devices: (0..DEVICES).map(|n| (id(n), device(n))).collect(),
            attributes: (0..DEVICES).map(|n| (id(n), Attributes::new())).collect(),
            policies: declared.collect(),
        }
    }

    fn plan(&self) -> TailnetPlan {
        let index = DeviceIndex::new(self.devices.values().cloned());
        plan_tailnet(
            &self.policies,
            &Admission::default(),
            &index,
            &self.attributes,
            now(),
        )
    }

    /// Panics if the API would refuse a request.
    fn check(&self, call: &Call) {
        match call {
            Call::Set(node, SettingValue::Ipv4(addr)) => {
                let taken = self.devices.values().any(|d| d.holds(addr.addr()));
                assert!(!taken, "{call:?} for {node}, but somebody has it");
            }
            Call::Set(node, SettingValue::Name(label)) => {
                let taken = self.devices.values().any(|d| d.label() == *label);
                assert!(!taken, "{call:?} for {node}, but somebody has it");
            }
            Call::WriteAttributes(nodes) => {
                let sets = nodes.values().flatten();
                for (key, desired) in
                    sets.filter_map(|(key, desired)| Some((key, desired.as_ref()?)))
                {
                    let attribute_type = AttributeType::of(key, desired);
                    let present = self.attributes.values().flat_map(AttributeType::all);
                    let mut same_key = present.filter(|p| p.key.folded() == key.folded());
                    assert!(
                        same_key.all(|present| present == attribute_type),
                        "{call:?}"
                    );
                }
            }
            _ => {}
        }
    }

    /// Applies all requests, one after another.
    fn run(&mut self) {
        for _ in 0..40 {
            let plan = self.plan();
            let mut plans = plan.devices.values();
            let Some((call, _)) = plans.find_map(|plan| next_call(plan, &BTreeSet::new())) else {
                return;
            };
            self.check(&call);
            for node in call.nodes() {
                apply(&call, self.devices.get_mut(node).unwrap());
                if let Call::WriteAttributes(nodes) = &call {
                    apply_attributes(&nodes[node], self.attributes.get_mut(node).unwrap());
                }
            }
        }
        panic!("no end");
    }

    fn ranked(&self) -> Vec<&Policy> {
        let policies = self.policies.iter().map(|d| d.policy.as_deref().unwrap());
        let mut ranked: Vec<_> = policies.filter(|p| p.mode != Mode::Observe).collect();
        ranked.sort_by_key(|policy| policy.rank());
        ranked
    }
}

fn policy(device: u8, desired: DesiredSettings) -> Policy {
    Policy {
        key: PolicyKey::new("network", String::new()),
        uid: String::new(),
        generation: 1,
        priority: 0,
        created: Timestamp::UNIX_EPOCH,
        target: Target::Device(DeviceTarget {
            identity: Identity::NodeId(id(device)),
            tags: TagSet::new(),
            users: Vec::new(),
        }),
        desired,
        ownership: Ownership {
            tags: ListOwnership::AtLeast,
            ..Ownership::default()
        },
        mode: Mode::Enforce,
        deletion: Deletion::Retain,
        allowed: BTreeSet::new(),
        allowance: AllowedRules::default(),
    }
}

fn wants_ipv4(device: u8, last: u8) -> Policy {
    let desired = DesiredSettings {
        settings: [SettingValue::Ipv4(
            format!("100.80.0.{last}").parse().unwrap(),
        )]
        .into(),
        ..DesiredSettings::default()
    };
    policy(device, desired)
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::String(text.parse().unwrap())
}

fn number(number: i64) -> AttributeValue {
    AttributeValue::Integer(number.try_into().unwrap())
}

fn desired(value: &AttributeValue, expiry: Option<i64>) -> DesiredAttribute {
    DesiredAttribute {
        value: value.clone(),
        expiry: expiry.map(|seconds| now() + jiff::SignedDuration::from_secs(seconds)),
    }
}

fn wants_attribute(device: u8, key: &str, value: &AttributeValue) -> Policy {
    let attributes = [(key.parse().unwrap(), desired(value, None))].into();
    let desired = DesiredSettings {
        attributes: Some(attributes),
        ..DesiredSettings::default()
    };
    policy(device, desired)
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let value = prop_oneof![
        Just(text("a")),
        Just(number(1)),
        Just(AttributeValue::Boolean(true))
    ];
    let attribute = (
        prop_oneof!["custom:a", "custom:A", "custom:b"],
        value,
        option::weighted(0.3, -1..2_i64),
    );
    let attribute = attribute
        .prop_map(|(key, value, expiry)| [(key.parse().unwrap(), desired(&value, expiry))].into());
    let mode = prop_oneof![
        6 => Just(Mode::Enforce),
        1 => Just(Mode::Suspended(Suspender::Policy)),
        1 => Just(Mode::Observe),
    ];
    let desired = (
        option::of(attribute),
        option::of(0..6_u8),
        option::of(0..6_u8),
    );
    (0..DEVICES, desired, mode, -1..2_i32).prop_map(
        |(device, (attributes, ipv4, name), mode, priority)| Policy {
            priority,
            mode,
            ..policy(
                device,
                DesiredSettings {
                    attributes,
                    settings: crate::plan::tests::declared::declared([
                        ipv4.map(|last| {
                            SettingValue::Ipv4(format!("100.80.0.{last}").parse().unwrap())
                        }),
                        name.map(|number| {
                            SettingValue::Name(format!("name-{number}").parse().unwrap())
                        }),
                    ]),
                    ..DesiredSettings::default()
                },
            )
        },
    )
}

/// A tailnet with existing attributes, which have one type per key.
fn some_tailnet() -> impl Strategy<Value = Tailnet> {
    let present = collection::btree_map(0..DEVICES, any::<bool>(), 0..3);
    (collection::vec(some_policy(), 0..7), present, any::<bool>()).prop_map(
        |(policies, present, upper)| {
            let mut tailnet = Tailnet::new(policies);
            let key = if upper { "custom:A" } else { "custom:a" };
            for (device, flag) in present {
                let writes = [(
                    key.parse().unwrap(),
                    Some(desired(&AttributeValue::Boolean(flag), None)),
                )]
                .into();
                apply_attributes(&writes, tailnet.attributes.get_mut(&id(device)).unwrap());
            }
            // The attributes of a device are read only if a policy needs them.
            let plan = tailnet.plan();
            for (node, attributes) in &mut tailnet.attributes {
                let read = plan.devices.get(node);
                if !read.is_some_and(|plan| plan.owners.need_attributes()) {
                    attributes.clear();
                }
            }
            tailnet
        },
    )
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(512))]

    #[test]
    fn no_conflicting_request_is_sent_and_the_plan_converges(tailnet in some_tailnet()) {
        let mut tailnet = tailnet;
        tailnet.run();
        let left = tailnet.plan();
        for difference in left.devices.values().flat_map(|plan| &plan.differences) {
            prop_assert!(difference.hold.is_some(), "{difference:?}");
        }
        // The policy that takes precedence has its address, unless the change is held.
        for policy in tailnet.ranked() {
            let Target::Device(DeviceTarget { identity: Identity::NodeId(node), .. }) = &policy.target else {
                unreachable!()
            };
            let lost = left.devices[node].owners.conflicts.iter().any(|c| c.overridden == policy.key && c.field == Field::Setting(Setting::Ipv4));
            let differs = left.devices[node].of(&policy.key).any(|d| d.change.field() == Field::Setting(Setting::Ipv4));
            if let Some(addr) = policy.desired.ipv4() && !lost && !differs {
                prop_assert!(tailnet.devices[node].holds(addr.addr()));
            }
        }
    }

    #[test]
    fn first_in_rank_takes_precedence_in_any_order_of_policies(tailnet in some_tailnet(), turn in 0..7_usize) {
        let first = tailnet.plan();
        let mut other = tailnet.clone();
        let turn = turn.min(other.policies.len());
        other.policies.rotate_left(turn);
        prop_assert_eq!(&first.devices, &other.plan().devices);
        let ranked = tailnet.ranked();
        let place = |key: &PolicyKey| ranked.iter().position(|policy| policy.key == *key);
        for plan in first.devices.values() {
            for lost in &plan.owners.conflicts {
                prop_assert!(place(&lost.owner) < place(&lost.overridden), "{lost:?}");
            }
        }
    }

    /// The engine relies on it: a policy that is not returned as affected sees no change.
    #[test]
    fn edit_returns_all_affected_policies(policies in collection::vec(some_policy(), 1..6), edit in some_policy()) {
        let mut types = AttributeTypes::default();
        let named: Vec<Policy> = Tailnet::new(policies).policies.into_iter().map(|d| Policy::clone(&d.policy.unwrap())).collect();
        for policy in &named {
            types.declare(None, Some(policy));
        }
        let edited = Policy { key: named[0].key.clone(), ..edit };
        let loses = |types: &AttributeTypes, policy: &Policy| {
            let desired = policy.desired.attributes.iter().flatten();
            let deciding = desired.map(|(key, _)| types.deciding(key, now()).map(|(by, claim)| (by.clone(), claim.clone())));
            let own = policy.desired.attributes.iter().flatten().map(|(key, desired)| AttributeType::of(key, desired));
            // Which policy owns the type does not matter to policies that declare the same type.
            own.zip(deciding).map(|(attribute_type, by)| by.filter(|(_, claim)| claim.attribute_type != attribute_type)).collect::<Vec<_>>()
        };
        let before: Vec<_> = named[1..].iter().map(|policy| loses(&types, policy)).collect();
        let affected = types.declare(Some(&named[0]), Some(&edited));
        for (policy, before) in named[1..].iter().zip(before) {
            if policy.mode != Mode::Observe && loses(&types, policy) != before {
                prop_assert!(affected.contains(&policy.key), "{policy:?}");
            }
        }
    }
}

fn holds(tailnet: &Tailnet) -> Vec<(String, Option<Hold>)> {
    let plan = tailnet.plan();
    let differences = plan.devices.into_values().flat_map(|plan| plan.differences);
    differences.map(|d| (d.node.to_string(), d.hold)).collect()
}

#[test]
fn address_swaps_are_held_in_circles_of_any_length() {
    let two = Tailnet::new(vec![wants_ipv4(0, 1), wants_ipv4(1, 0)]);
    let swap = |others: &[&str]| {
        let called = |n: &&str| format!("name-{n} (n{n}CNTRL)");
        Some(Hold::AddressSwap(others.iter().map(called).collect()))
    };
    let of = |number: u8| id(number).to_string();
    assert_eq!(holds(&two), [(of(0), swap(&["1"])), (of(1), swap(&["0"]))]);
    let circle = vec![
        wants_ipv4(0, 1),
        wants_ipv4(1, 2),
        wants_ipv4(2, 0),
        wants_ipv4(3, 0),
    ];
    let mut three = Tailnet::new(circle);
    // A device outside of the circle waits as usual. Here it is overridden instead: of the two policies that
    // declare the address, the first by name takes precedence.
    let expected = [
        (of(0), swap(&["1", "2"])),
        (of(1), swap(&["2", "0"])),
        (of(2), swap(&["0", "1"])),
    ];
    assert_eq!(holds(&three), expected);
    three.run();
    assert!(three.devices.values().all(|device| device.ipv4.is_some()));
    // A chain that ends at a free address is not a circle: each device moves once the next one has.
    let mut chain = Tailnet::new(vec![wants_ipv4(0, 1), wants_ipv4(1, 2), wants_ipv4(2, 9)]);
    chain.run();
    assert_eq!(holds(&chain), []);
}

#[test]
fn first_policy_in_rank_owns_the_type_of_a_key_even_if_suspended() {
    for (mode, loses) in [
        (Mode::Enforce, true),
        (Mode::Suspended(Suspender::Policy), true),
        (Mode::Observe, false),
    ] {
        let first = Policy {
            mode,
            priority: 1,
            ..wants_attribute(0, "custom:tier", &text("gold"))
        };
        let second = wants_attribute(1, "custom:Tier", &text("gold"));
        let third = wants_attribute(2, "custom:tier", &number(3));
        let mut tailnet = Tailnet::new(vec![third, second, first]);
        tailnet.run();
        let plans = tailnet.plan().devices;
        let lost = &plans[&id(2)].owners.conflicts;
        let winner = if loses { "policy-2" } else { "policy-0" };
        let of_second = &plans[&id(1)].owners.conflicts[0];
        assert_eq!(of_second.owner.name, winner, "{mode:?}");
        assert!(matches!(of_second.kind, ConflictKind::Type(_)));
        assert_eq!(lost.len(), usize::from(loses), "{mode:?}");
    }
}

#[test]
fn key_that_the_tailnet_has_with_another_type_is_not_written() {
    let mut tailnet = Tailnet::new(vec![
        wants_attribute(0, "custom:tier", &number(3)),
        wants_attribute(1, "custom:tier", &number(3)),
    ]);
    let writes = [(
        "custom:tier".parse().unwrap(),
        Some(desired(&text("gold"), None)),
    )]
    .into();
    apply_attributes(&writes, tailnet.attributes.get_mut(&id(1)).unwrap());
    for (node, hold) in holds(&tailnet) {
        assert_eq!(
            hold.unwrap().to_string(),
            "name-1 (n1CNTRL) has custom:tier, of type string, and the API fixes the type of a key for the \
             whole tailnet by its first write: declare it as string, or declare another key",
            "{node}"
        );
    }
    // A key in another case is written once the old key is deleted everywhere.
    let mut renamed = Tailnet::new(vec![
        wants_attribute(0, "custom:Tier", &text("gold")),
        wants_attribute(1, "custom:Tier", &text("gold")),
    ]);
    for number in 0..2 {
        let writes = [(
            "custom:tier".parse().unwrap(),
            Some(desired(&text("gold"), None)),
        )]
        .into();
        apply_attributes(&writes, renamed.attributes.get_mut(&id(number)).unwrap());
        let owned = OwnedKeys::on(&id(number), ["custom:tier".parse().unwrap()].into());
        renamed.policies[usize::from(number)].record.owned = Arc::new(owned);
    }
    renamed.run();
    assert_eq!(holds(&renamed), []);
    let spelled = renamed.attributes.values().flat_map(BTreeMap::keys);
    assert_eq!(
        spelled.map(ToString::to_string).collect::<Vec<_>>(),
        ["custom:Tier"; 2]
    );
}
