//! Generators of devices and policies, and the means to carry out a plan on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use proptest::{
    collection, option,
    prelude::*,
    sample::{select, subsequence},
};

use crate::model::{
    AttributeKey, AttributeValue, Attributes, DesiredAttribute, Device, NodeId, ReportedAttribute,
    Route, RouteSet, SettingValue, TagSet,
};
use crate::plan::{
    AllowedRules, ApprovalStates, AttributesOwnership, Call, Deletion, DesiredSettings,
    DeviceIndex, DevicePlan, DeviceTarget, Disruption, Guardrails, Identity, ListOwnership, Mode,
    OwnedKeys, Ownership, PlanContext, Policy, PolicyKey, PolicyRecord, Released, Selector,
    Suspender, TailnetWide, Target, apply, apply_attributes, next_call, plan_device,
};

/// The settings of a device with three attribute keys: no plan can need more requests.
const SETTINGS: usize = 10;
const NOW: &str = "2026-06-01T12:00:00Z";

pub(in crate::plan) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A device, its attributes, other devices, and the policies that target it.
#[derive(Debug, Clone)]
pub(in crate::plan) struct Scene {
    pub device: Device,
    pub attributes: Attributes,
    pub neighbours: Vec<Device>,
    pub policies: Vec<(Policy, PolicyRecord)>,
    pub released: Vec<Released>,
    pub guardrails: Guardrails,
}

impl Scene {
    pub fn index(&self) -> DeviceIndex {
        let all = self.neighbours.iter().chain([&self.device]);
        DeviceIndex::new(all.cloned())
    }

    pub fn plan(&self) -> DevicePlan {
        self.plan_with(&ApprovalStates::default())
    }

    pub fn plan_with(&self, permits: &ApprovalStates<'_>) -> DevicePlan {
        let policies: Vec<_> = self.policies.iter().map(|(p, m)| (p, m)).collect();
        let attributes = Some(&self.attributes);
        let index = self.index();
        let context = PlanContext {
            index: &index,
            approvals: permits,
            tailnet_wide: &TailnetWide::default(),
            now: now(),
            released: &self.released,
            turns: &BTreeSet::new(),
            guardrails: &self.guardrails,
        };
        plan_device(&self.device, attributes, &policies, &context)
    }

    pub fn make(&mut self, call: &Call) {
        apply(call, &mut self.device);
        if let Call::WriteAttributes(nodes) = call {
            for writes in nodes.values() {
                apply_attributes(writes, &mut self.attributes);
            }
        }
    }

    /// Applies all requests, one after another.
    pub fn run(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some(call) = next_call(&self.plan(), &BTreeSet::new()).map(|(call, _)| call) {
            self.make(&call);
            calls.push(call);
            assert!(calls.len() <= SETTINGS, "no end: {calls:#?}");
        }
        calls
    }

    /// Whether a policy that enforces declares such a setting.
    pub fn names(&self, desired: impl Fn(&DesiredSettings) -> bool) -> bool {
        self.ranked()
            .into_iter()
            .any(|(policy, _)| policy.mode == Mode::Enforce && desired(&policy.desired))
    }

    /// The policies that can own fields, by rank.
    pub fn ranked(&self) -> Vec<&(Policy, PolicyRecord)> {
        let deciding = self.policies.iter();
        let mut ranked: Vec<_> = deciding.filter(|(p, _)| p.mode != Mode::Observe).collect();
        ranked.sort_by_key(|(p, _)| (-p.priority, p.created, p.key.name.clone()));
        ranked
    }
}

fn node() -> NodeId {
    "n1CNTRL".parse().unwrap()
}

pub(in crate::plan) fn key(number: usize) -> AttributeKey {
    // Two of them differ only in case.
    ["custom:a", "custom:A", "custom:b"][number]
        .parse()
        .unwrap()
}

fn tags() -> impl Strategy<Value = TagSet> {
    let all = ["tag:a", "tag:b", "tag:c"];
    subsequence(all.to_vec(), 0..=3)
        .prop_map(|tags| tags.iter().map(|t| t.parse().unwrap()).collect())
}

pub(in crate::plan) fn routes() -> impl Strategy<Value = RouteSet> {
    let all = ["10.0.0.0/16", "10.1.0.0/16", "fd00::/8"];
    subsequence(all.to_vec(), 0..=3)
        .prop_map(|routes| routes.iter().map(|r| r.parse().unwrap()).collect())
}

/// Enabled routes with none, one, or both of the routes of an exit node.
fn enabled_routes() -> impl Strategy<Value = RouteSet> {
    let exit: Vec<Route> = Route::exit_node().into_iter().collect();
    (routes(), subsequence(exit, 0..=2))
        .prop_map(|(routes, exit)| routes.into_iter().chain(exit).collect())
}

fn value() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        (0..3_i64).prop_map(|n| AttributeValue::Integer(n.try_into().unwrap())),
        any::<bool>().prop_map(AttributeValue::Boolean),
        "[a-c]".prop_map(|text| AttributeValue::String(text.parse().unwrap())),
    ]
}

fn time() -> impl Strategy<Value = Timestamp> {
    (-2..3_i64).prop_map(|seconds| now() + jiff::SignedDuration::from_secs(seconds))
}

fn desired_attribute() -> impl Strategy<Value = DesiredAttribute> {
    (value(), option::of(time())).prop_map(|(value, expiry)| DesiredAttribute { value, expiry })
}

fn reported() -> impl Strategy<Value = ReportedAttribute> {
    desired_attribute().prop_map(|desired| ReportedAttribute {
        value: desired.value.to_json(),
        expiry: desired.expiry,
    })
}

pub(in crate::plan) fn attributes() -> impl Strategy<Value = Attributes> {
    collection::btree_map((0..3_usize).prop_map(key), reported(), 0..4)
}

pub(in crate::plan) fn device() -> impl Strategy<Value = Device> {
    let flags = (any::<bool>(), any::<bool>(), option::of(time()));
    (flags, tags(), enabled_routes(), 0..3_u8, 0..3_u8).prop_map(
        |((authorized, disabled, expires), tags, routes, name, address)| Device {
            name: format!("name-{name}.tail1.ts.net"),
            tags,
            ipv4: (address > 0).then_some([100, 80, 0, address].into()),
            authorized,
            key_expiry_disabled: disabled,
            expires,
            enabled_routes: Some(routes),
            ..plain_device()
        },
    )
}

/// A device with nothing special about it.
pub(crate) fn plain_device() -> Device {
    Device {
        legacy_id: "1".to_owned(),
        name: "name-0.tail1.ts.net".to_owned(),
        hostname: "host".to_owned(),
        user: "amelie@example.com".to_owned(),
        os: "linux".to_owned(),
        client_version: "1.96.2".to_owned(),
        enabled_routes: Some(RouteSet::new()),
        ..Device::plain(node())
    }
}

/// Another device, which may have the desired name or address.
fn neighbour() -> impl Strategy<Value = Device> {
    (device(), 3..5_u8).prop_map(|(mut device, number)| {
        device.node_id = format!("n{number}CNTRL").parse().unwrap();
        device.name = format!("name-{number}.tail1.ts.net");
        device.ipv4 = Some([100, 80, 0, number].into());
        device
    })
}

fn desired() -> impl Strategy<Value = DesiredSettings> {
    let flags = (
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    );
    let attributes = collection::btree_map((0..3_usize).prop_map(key), desired_attribute(), 0..3);
    let lists = (
        option::of(tags()),
        option::of(routes()),
        option::of(attributes),
    );
    (flags, lists, option::of(0..5_u8), option::of(1..5_u8)).prop_map(
        |(
            (authorized, key_expiry_disabled, exit_node),
            (tags, enabled_routes, attributes),
            name,
            address,
        )| DesiredSettings {
            settings: super::declared::declared([
                authorized.map(SettingValue::Authorized),
                key_expiry_disabled.map(SettingValue::KeyExpiryDisabled),
                name.map(|name| SettingValue::Name(format!("name-{name}").parse().unwrap())),
                address.map(|last| SettingValue::Ipv4(format!("100.80.0.{last}").parse().unwrap())),
            ]),
            tags,
            enabled_routes,
            exit_node,
            attributes: attributes.map(|desired| without_twins(&desired)),
            expire_key_at: None,
            delete_inactive: None,
            unreadable: BTreeSet::new(),
        },
    )
}

/// Without keys that differ only in case, because a manifest with two of them is refused.
fn without_twins(
    desired: &BTreeMap<AttributeKey, DesiredAttribute>,
) -> BTreeMap<AttributeKey, DesiredAttribute> {
    let folded: BTreeMap<String, AttributeKey> = desired
        .keys()
        .map(|key| (key.folded(), key.clone()))
        .collect();
    folded
        .into_values()
        .map(|key| (key.clone(), desired[&key].clone()))
        .collect()
}

fn ownership() -> impl Strategy<Value = Ownership> {
    let extent = || prop_oneof![Just(ListOwnership::Exact), Just(ListOwnership::AtLeast)];
    let attributes = prop_oneof![
        3 => Just(AttributesOwnership::Named),
        1 => Just(AttributesOwnership::Exact),
    ];
    (extent(), extent(), attributes).prop_map(|(tags, enabled_routes, attributes)| Ownership {
        tags,
        enabled_routes,
        attributes,
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        4 => Just(Mode::Enforce),
        1 => Just(Mode::Approve),
        1 => Just(Mode::Suspended(Suspender::Policy)),
        1 => Just(Mode::Observe),
    ]
}

/// A target: the device if it has these tags, or all devices with these tags and this expression.
fn target(tags: TagSet, expression: Option<&str>, many: bool) -> Target {
    if many {
        return Target::Selector(Selector {
            tags,
            expression: expression.map(|text| text.parse().unwrap()),
            ..Selector::default()
        });
    }
    Target::Device(DeviceTarget {
        identity: Identity::NodeId(node()),
        tags,
        users: Vec::new(),
    })
}

pub(in crate::plan) fn policy() -> impl Strategy<Value = (Policy, PolicyRecord)> {
    let allowed = subsequence(
        vec![
            Disruption::Deauthorize,
            Disruption::ExpiredKey,
            Disruption::FirstTag,
        ],
        0..=3,
    );
    let owned = collection::btree_set((0..3_usize).prop_map(key), 0..3);
    let required_tags = prop_oneof![4 => Just(TagSet::new()), 1 => tags()];
    let rank = (-1..2_i32, 0..2_i64);
    let expressions = [
        "!('tag:a' in device.tags)",
        "size(device.tags) != 1",
        "device.lastSeen < '2026'",
    ];
    let expression = prop_oneof![4 => Just(None), 1 => select(expressions.to_vec()).prop_map(Some)];
    let target_parts = (required_tags, expression, any::<bool>());
    (
        desired(),
        allowed,
        owned,
        rank,
        target_parts,
        ownership(),
        mode(),
    )
        .prop_map(
            |(
                desired,
                allowed,
                owned_keys,
                (priority, created),
                (tags, expression, many),
                ownership,
                mode,
            )| {
                let policy = Policy {
                    key: PolicyKey::new("network", String::new()),
                    uid: String::new(),
                    generation: 1,
                    priority,
                    created: Timestamp::from_second(created).unwrap(),
                    target: target(tags, expression, many),
                    desired,
                    ownership,
                    mode,
                    allowed: allowed.into_iter().collect(),
                    deletion: Deletion::default(),
                    allowance: AllowedRules::default(),
                };
                (
                    policy,
                    PolicyRecord {
                        owned: Arc::new(OwnedKeys::on(&node(), owned_keys)),
                        ..PolicyRecord::default()
                    },
                )
            },
        )
}

pub(in crate::plan) fn scene() -> impl Strategy<Value = Scene> {
    let neighbours = collection::vec(neighbour(), 0..2);
    let policies = collection::vec(policy(), 0..4);
    (device(), attributes(), neighbours, policies).prop_map(
        |(device, attributes, neighbours, mut policies)| {
            for (number, (policy, _)) in policies.iter_mut().enumerate() {
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
            }
            Scene {
                device,
                attributes,
                neighbours,
                policies,
                released: Vec::new(),
                guardrails: Guardrails::default(),
            }
        },
    )
}
