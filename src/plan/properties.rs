//! What must hold of every plan, whatever the device and the policies.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::{collection, option, prelude::*, sample::subsequence};

use super::{
    Call, Change, DevicePlan, Disruption, Fleet, Hold, Identity, Memory, Policy, PolicyKey, Target,
    Wishes, apply, apply_attributes, next_call, plan_device,
};
use crate::model::{
    AttributeKey, AttributeValue, AttributeWish, Attributes, Device, NodeId, ReportedAttribute,
    Route, RouteSet, TagSet,
};

const NOW: &str = "2026-06-01T12:00:00Z";
/// The settings of a device with three attribute keys: no plan can need more calls.
const SETTINGS: usize = 10;

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A device, its attributes, its neighbours, and the policies that hold it.
#[derive(Debug, Clone)]
struct Scene {
    device: Device,
    attributes: Attributes,
    neighbours: Vec<Device>,
    policies: Vec<(Policy, Memory)>,
}

impl Scene {
    fn fleet(&self) -> Fleet {
        let all = self.neighbours.iter().chain([&self.device]);
        Fleet::new(all.cloned())
    }

    fn plan(&self) -> DevicePlan {
        let policies: Vec<_> = self.policies.iter().map(|(p, m)| (p, m)).collect();
        let attributes = Some(&self.attributes);
        plan_device(&self.device, attributes, &policies, &self.fleet(), now())
    }

    fn make(&mut self, call: &Call) {
        apply(call, &mut self.device);
        if let Call::WriteAttributes(nodes) = call {
            for writes in nodes.values() {
                apply_attributes(writes, &mut self.attributes);
            }
        }
    }

    /// Makes all calls, one after another.
    fn run(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some(call) = next_call(&self.plan(), &BTreeSet::new()).map(|(call, _)| call) {
            self.make(&call);
            calls.push(call);
            assert!(calls.len() <= SETTINGS, "no end: {calls:#?}");
        }
        calls
    }

    fn names(&self, wish: impl Fn(&Wishes) -> bool) -> bool {
        self.policies.iter().any(|(policy, _)| wish(&policy.wishes))
    }
}

fn node() -> NodeId {
    "n1CNTRL".parse().unwrap()
}

fn key(number: usize) -> AttributeKey {
    // Two of them differ in case only.
    ["custom:a", "custom:A", "custom:b"][number]
        .parse()
        .unwrap()
}

fn tags() -> impl Strategy<Value = TagSet> {
    let all = ["tag:a", "tag:b", "tag:c"];
    subsequence(all.to_vec(), 0..=3)
        .prop_map(|tags| tags.iter().map(|t| t.parse().unwrap()).collect())
}

fn routes() -> impl Strategy<Value = RouteSet> {
    let all = ["10.0.0.0/16", "10.1.0.0/16", "fd00::/8"];
    subsequence(all.to_vec(), 0..=3)
        .prop_map(|routes| routes.iter().map(|r| r.parse().unwrap()).collect())
}

/// What is approved may hold none, one or both of the routes of an exit node.
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

fn attribute_wish() -> impl Strategy<Value = AttributeWish> {
    (value(), option::of(time())).prop_map(|(value, expiry)| AttributeWish { value, expiry })
}

fn reported() -> impl Strategy<Value = ReportedAttribute> {
    attribute_wish().prop_map(|wish| ReportedAttribute {
        value: wish.value.to_json(),
        expiry: wish.expiry,
    })
}

fn device() -> impl Strategy<Value = Device> {
    let flags = (any::<bool>(), any::<bool>(), option::of(time()));
    (flags, tags(), enabled_routes(), 0..3_u8, 0..3_u8).prop_map(
        |((authorized, disabled, expires), tags, routes, name, address)| Device {
            node_id: node(),
            legacy_id: "1".to_owned(),
            name: format!("name-{name}.tail1.ts.net"),
            hostname: "host".to_owned(),
            user: "amelie@example.com".to_owned(),
            tags,
            ipv4: (address > 0).then_some([100, 80, 0, address].into()),
            os: "linux".to_owned(),
            authorized,
            external: false,
            key_expiry_disabled: disabled,
            expires,
            last_seen: None,
            enabled_routes: Some(routes),
            advertised_routes: None,
        },
    )
}

/// Another device, which may bear the name or hold the address that is wished for.
fn neighbour() -> impl Strategy<Value = Device> {
    (device(), 3..5_u8).prop_map(|(mut device, number)| {
        device.node_id = format!("n{number}CNTRL").parse().unwrap();
        device.name = format!("name-{number}.tail1.ts.net");
        device.ipv4 = Some([100, 80, 0, number].into());
        device
    })
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let flags = (
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    );
    let wished_tags = tags().prop_filter("no empty list", |tags| !tags.is_empty());
    let attributes = collection::btree_map((0..3_usize).prop_map(key), attribute_wish(), 0..3);
    let lists = (
        option::of(wished_tags),
        option::of(routes()),
        option::of(attributes),
    );
    (flags, lists, option::of(0..5_u8), option::of(1..5_u8)).prop_map(
        |(
            (authorized, key_expiry_disabled, exit_node),
            (tags, enabled_routes, attributes),
            name,
            address,
        )| Wishes {
            authorized,
            tags,
            key_expiry_disabled,
            enabled_routes,
            exit_node,
            attributes: attributes.map(|wishes| without_twins(&wishes)),
            name: name.map(|name| format!("name-{name}").parse().unwrap()),
            ipv4: address.map(|address| format!("100.80.0.{address}").parse().unwrap()),
        },
    )
}

/// A manifest with two keys that differ only in case is refused.
fn without_twins(
    wishes: &BTreeMap<AttributeKey, AttributeWish>,
) -> BTreeMap<AttributeKey, AttributeWish> {
    let folded: BTreeMap<String, AttributeKey> = wishes
        .keys()
        .map(|key| (key.folded(), key.clone()))
        .collect();
    folded
        .into_values()
        .map(|key| (key.clone(), wishes[&key].clone()))
        .collect()
}

fn policy() -> impl Strategy<Value = (Policy, Memory)> {
    let allowed = subsequence(vec![Disruption::Deauthorize, Disruption::ExpiredKey], 0..=2);
    let owned = collection::btree_set((0..3_usize).prop_map(key), 0..3);
    let asked = prop_oneof![4 => Just(TagSet::new()), 1 => tags()];
    (wishes(), allowed, owned, 0..2_i64, asked).prop_map(
        |(wishes, allowed, owned_keys, created, tags)| {
            let policy = Policy {
                key: PolicyKey {
                    namespace: "network".to_owned(),
                    name: String::new(),
                },
                uid: String::new(),
                generation: 1,
                created: Timestamp::from_second(created).unwrap(),
                target: Target {
                    identity: Identity::NodeId(node()),
                    tags,
                    users: Vec::new(),
                },
                wishes,
                allowed: allowed.into_iter().collect(),
            };
            (
                policy,
                Memory {
                    bound: None,
                    owned_keys,
                },
            )
        },
    )
}

fn scene() -> impl Strategy<Value = Scene> {
    let attributes = collection::btree_map((0..3_usize).prop_map(key), reported(), 0..4);
    let neighbours = collection::vec(neighbour(), 0..2);
    let policies = collection::vec(policy(), 0..4);
    (device(), attributes, neighbours, policies).prop_map(
        |(device, attributes, neighbours, mut policies)| {
            for (number, (policy, _)) in policies.iter_mut().enumerate() {
                policy.key.name = format!("policy-{number}");
            }
            Scene {
                device,
                attributes,
                neighbours,
                policies,
            }
        },
    )
}

/// The place of a call in the order of design: what lets a device in comes last.
fn place(call: &Call) -> usize {
    match call {
        Call::SetAuthorized(_, false) => 0,
        Call::SetTags(..) => 1,
        Call::SetKeyExpiryDisabled(..) => 2,
        Call::WriteAttributes(_) => 3,
        Call::SetRoutes(..) => 4,
        Call::SetName(..) => 5,
        Call::SetIpv4(..) => 6,
        Call::SetAuthorized(_, true) => 7,
    }
}

/// The wishes that decide, found in another way than the plan does: field by field, the first
/// policy in rank that names the field.
fn winners(scene: &Scene) -> Wishes {
    let mut ranked: Vec<&Policy> = scene.policies.iter().map(|(policy, _)| policy).collect();
    ranked.sort_by_key(|policy| (policy.created, policy.key.name.clone()));
    let mut won = Wishes::default();
    for Policy { wishes, .. } in ranked.into_iter().rev().cloned() {
        won.authorized = wishes.authorized.or(won.authorized);
        won.tags = wishes.tags.or(won.tags);
        won.key_expiry_disabled = wishes.key_expiry_disabled.or(won.key_expiry_disabled);
        won.enabled_routes = wishes.enabled_routes.or(won.enabled_routes);
        won.exit_node = wishes.exit_node.or(won.exit_node);
        won.name = wishes.name.or(won.name);
        won.ipv4 = wishes.ipv4.or(won.ipv4);
        let attributes = won.attributes.get_or_insert_default();
        for (key, wish) in wishes.attributes.into_iter().flatten() {
            if wish.expiry.is_none_or(|expiry| expiry > now()) {
                attributes.retain(|other, _| other.folded() != key.folded());
                attributes.insert(key, wish);
            }
        }
    }
    won
}

/// The device with all its winning wishes granted, except those that are held.
fn wished(scene: &Scene) -> (Device, Attributes) {
    let won = winners(scene);
    let held: Vec<Change> = scene
        .plan()
        .differences
        .into_iter()
        .filter(|d| d.hold.is_some())
        .map(|d| d.change)
        .collect();
    let is_held = |test: fn(&Change) -> bool| held.iter().any(test);
    let (mut device, mut attributes) = (scene.device.clone(), scene.attributes.clone());
    if let Some(tags) = won.tags
        && !is_held(|c| matches!(c, Change::Tags { .. }))
    {
        device.tags = tags;
    }
    if let Some(wish) = won.key_expiry_disabled
        && !is_held(|c| matches!(c, Change::KeyExpiryDisabled { .. }))
    {
        device.key_expiry_disabled = wish;
    }
    let before = device.enabled_routes.clone().unwrap();
    let (exit, subnets): (RouteSet, RouteSet) = before.into_iter().partition(Route::is_exit_node);
    let exit = match won.exit_node {
        Some(true) => Route::exit_node(),
        Some(false) => RouteSet::new(),
        None => exit,
    };
    device.enabled_routes = Some(
        exit.into_iter()
            .chain(won.enabled_routes.unwrap_or(subnets))
            .collect(),
    );
    if let Some(name) = won.name
        && !is_held(|c| matches!(c, Change::Name { .. }))
    {
        device.name = format!("{name}.tail1.ts.net");
    }
    if let Some(address) = won.ipv4
        && !is_held(|c| matches!(c, Change::Ipv4 { .. }))
    {
        device.ipv4 = Some(address.addr());
    }
    match won.authorized {
        Some(false) if !is_held(|c| matches!(c, Change::Authorized { .. })) => {
            device.authorized = false
        }
        Some(true) if held.is_empty() => device.authorized = true,
        _ => {}
    }
    attributes.retain(|key, _| !is_pruned(scene, key));
    for (key, wish) in won.attributes.unwrap_or_default() {
        let value = wish.value.to_json();
        attributes.insert(
            key,
            ReportedAttribute {
                value,
                expiry: wish.expiry,
            },
        );
    }
    (device, attributes)
}

fn is_pruned(scene: &Scene, key: &AttributeKey) -> bool {
    let named = |w: &Wishes| {
        w.attributes
            .as_ref()
            .is_some_and(|wishes| wishes.contains_key(key))
    };
    let owned =
        |(p, m): &(Policy, Memory)| p.wishes.attributes.is_some() && m.owned_keys.contains(key);
    !scene.names(named) && scene.policies.iter().any(owned)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_calls_lead_to_every_wish_that_won_and_to_nothing_else(scene in scene()) {
        let (device, attributes) = wished(&scene);
        let mut scene = scene;
        scene.run();
        prop_assert_eq!(&scene.device, &device);
        prop_assert_eq!(&scene.attributes, &attributes);
        let left = scene.plan();
        let held = left.differences.iter().any(|difference| difference.hold.is_some());
        for difference in &left.differences {
            let waits = held && matches!(difference.change, Change::Authorized { after: true, .. });
            prop_assert!(difference.hold.is_some() || waits, "{difference:?}");
        }
    }

    #[test]
    fn each_kind_of_call_is_made_at_most_once_and_in_the_safe_order(scene in scene()) {
        let mut scene = scene;
        let places: Vec<usize> = scene.run().iter().map(place).collect();
        prop_assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    }

    #[test]
    fn a_call_changes_only_what_a_policy_names(scene in scene()) {
        let mut after = scene.clone();
        after.run();
        let mut device = after.device.clone();
        let before = &scene.device;
        if scene.names(|w| w.authorized.is_some()) { device.authorized = before.authorized; }
        if scene.names(|w| w.tags.is_some()) { device.tags.clone_from(&before.tags); }
        if scene.names(|w| w.key_expiry_disabled.is_some()) { device.key_expiry_disabled = before.key_expiry_disabled; }
        if scene.names(|w| w.name.is_some()) { device.name.clone_from(&before.name); }
        if scene.names(|w| w.ipv4.is_some()) { device.ipv4 = before.ipv4; }
        let side = |device: &Device, exit: bool| -> RouteSet {
            let all = device.enabled_routes.clone().unwrap().into_iter();
            all.filter(|route| route.is_exit_node() == exit).collect()
        };
        if !scene.names(|w| w.exit_node.is_some()) {
            prop_assert_eq!(side(&device, true), side(before, true));
        }
        if !scene.names(|w| w.enabled_routes.is_some()) {
            prop_assert_eq!(side(&device, false), side(before, false));
        }
        device.enabled_routes.clone_from(&before.enabled_routes);
        prop_assert_eq!(&device, before);
        for number in 0..3 {
            let key = key(number);
            let named = scene.names(|w| w.attributes.as_ref().is_some_and(|wishes| wishes.contains_key(&key)));
            if !named && !is_pruned(&scene, &key) {
                prop_assert_eq!(after.attributes.get(&key), scene.attributes.get(&key));
            }
        }
    }

    #[test]
    fn the_order_in_which_policies_arrive_changes_nothing(scene in scene(), turn in 0..4_usize) {
        let mut other = scene.clone();
        let turn = turn.min(other.policies.len());
        other.policies.rotate_left(turn);
        prop_assert_eq!(scene.plan(), other.plan());
        other.policies.reverse();
        prop_assert_eq!(scene.plan(), other.plan());
    }

    #[test]
    fn what_is_unknown_is_not_compared_and_lets_nobody_in(scene in scene()) {
        let policies: Vec<_> = scene.policies.iter().map(|(p, m)| (p, m)).collect();
        let mut device = scene.device.clone();
        device.enabled_routes = None;
        let plan = plan_device(&device, None, &policies, &scene.fleet(), now());
        for difference in &plan.differences {
            let unknown = matches!(
                difference.change,
                Change::Attribute { .. } | Change::EnabledRoutes { .. } | Change::ExitNode { .. }
            );
            prop_assert!(!unknown, "{difference:?}");
        }
        if let Some((Call::SetAuthorized(_, true), _)) = next_call(&plan, &BTreeSet::new()) {
            prop_assert!(plan.complete());
        }
    }

    #[test]
    fn what_may_cut_somebody_off_is_held_unless_its_owner_allows_it(scene in scene()) {
        for difference in scene.plan().differences {
            let disruption = match difference.change {
                Change::Authorized { after: false, .. } => Disruption::Deauthorize,
                Change::KeyExpiryDisabled { after: false, .. }
                    if scene.device.expires.is_some_and(|expires| expires <= now()) => Disruption::ExpiredKey,
                _ => continue,
            };
            let owner = scene.policies.iter().find(|(policy, _)| policy.key == difference.owner);
            let allowed = owner.unwrap().0.allowed.contains(&disruption);
            let held = difference.hold == Some(Hold::Disruption(disruption));
            prop_assert_eq!(held, !allowed);
        }
    }
}
