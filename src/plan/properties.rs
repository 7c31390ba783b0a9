//! What must hold of every plan, whatever the device and the policies.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    Call, Change, Disruption, Hold, Memory, Policy, Target, Wishes, next_call, plan_device,
    scenes::{Scene, key, now, scene},
};
use crate::model::{AttributeKey, Attributes, Device, ReportedAttribute, Route, RouteSet};

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
            device.authorized = false;
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
    fn a_fleet_gives_no_tags_that_it_could_not_keep_and_no_first_tag_unasked(scene in scene()) {
        for difference in scene.plan().differences {
            let Change::Tags { before, after } = &difference.change else {
                continue;
            };
            let owner = scene.policies.iter().find(|(policy, _)| policy.key == difference.owner);
            let (policy, _) = owner.unwrap();
            let Target::Fleet(selector) = &policy.target else {
                continue;
            };
            let kept = selector.fits(&Device { tags: after.clone(), ..scene.device.clone() });
            let first = before.is_empty() && !policy.allowed.contains(&Disruption::FirstTag);
            if !kept || first {
                prop_assert!(difference.hold.is_some(), "{difference:?}");
            }
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
