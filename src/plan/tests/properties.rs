//! Properties of every plan, for random devices and policies.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::model::{
    AttributeKey, Attributes, DesiredAttribute, Device, ReportedAttribute, Route, RouteSet,
    SettingValue,
};
use crate::plan::{
    ApprovalStates, AttributesOwnership, Call, Change, DesiredSettings, DevicePlan, Difference,
    Disruption, Guardrails, Hold, ListChange, ListOwnership, Mode, PlanContext, Policy,
    PolicyRecord, TailnetWide, Target, next_call, plan_device,
    tests::{
        causes::unexplained,
        scenes::{Scene, key, now, scene},
    },
};

/// The place of a request in the designed order: authorizing a device comes last.
fn place(call: &Call) -> usize {
    match call {
        Call::Set(_, SettingValue::Authorized(false)) => 0,
        Call::SetTags(..) => 1,
        Call::Set(_, SettingValue::KeyExpiryDisabled(_)) => 2,
        Call::WriteAttributes(_) => 3,
        Call::SetRoutes(..) => 4,
        Call::Set(_, SettingValue::Name(_)) => 5,
        Call::Set(_, SettingValue::Ipv4(_)) => 6,
        Call::ExpireKey(_) => 7,
        Call::Set(_, SettingValue::Authorized(true)) => 8,
        // A deleted device gets no other request.
        Call::Delete(_) => 9,
    }
}

/// The value of a field that may be sent, found in another way than the plan does: that of the first policy in
/// rank that declares the field, if any policy that enforces declares the same.
fn winner<T: Clone + PartialEq>(
    scene: &Scene,
    desired: impl Fn(&DesiredSettings) -> Option<T>,
) -> Option<T> {
    let ranked = scene.ranked();
    let first = ranked
        .iter()
        .find_map(|(policy, _)| desired(&policy.desired))?;
    let mut acting = ranked.iter().filter(|(p, _)| p.mode == Mode::Enforce);
    acting
        .any(|(policy, _)| desired(&policy.desired).as_ref() == Some(&first))
        .then_some(first)
}

/// What a list must become: the contract, written out entry by entry.
fn winning_list<T: Ord + Clone>(
    scene: &Scene,
    before: &BTreeSet<T>,
    desired: impl Fn(&Policy) -> Option<(BTreeSet<T>, ListOwnership)>,
) -> BTreeSet<T> {
    let ranked = scene.ranked();
    let desired: Vec<(bool, BTreeSet<T>, ListOwnership)> = ranked
        .iter()
        .filter_map(|(policy, _)| {
            let (entries, extent) = desired(policy)?;
            Some((policy.mode == Mode::Enforce, entries, extent))
        })
        .collect();
    let top = desired
        .iter()
        .position(|(_, _, extent)| *extent == ListOwnership::Exact);
    let above = desired[..top.unwrap_or(desired.len())].iter();
    let added: BTreeSet<T> = above.flat_map(|(_, entries, _)| entries.clone()).collect();
    let acting = desired.iter().filter(|(enforces, ..)| *enforces);
    let Some(exact) = top.map(|at| &desired[at].1) else {
        let asked = acting.flat_map(|(_, entries, _)| entries);
        return before.iter().chain(asked).cloned().collect();
    };
    let decided: BTreeSet<T> = exact.union(&added).cloned().collect();
    let mut after = before.clone();
    for (_, entries, extent) in acting {
        if *extent == ListOwnership::Exact && entries == exact {
            after.retain(|entry| decided.contains(entry));
        }
        let fits = match extent {
            ListOwnership::Exact => entries == exact || *entries == decided,
            ListOwnership::AtLeast => entries.is_subset(&decided),
        };
        after.extend(entries.iter().filter(|_| fits).cloned());
    }
    after
}

/// The attributes that must be set: for each key, that of the first policy in rank whose attribute has not
/// expired. Of two keys that differ only in case, the first.
fn winning_attributes(scene: &Scene) -> BTreeMap<AttributeKey, DesiredAttribute> {
    let mut decided: BTreeMap<String, (AttributeKey, DesiredAttribute, bool)> = BTreeMap::new();
    for (policy, _) in scene.ranked() {
        let enforces = policy.mode == Mode::Enforce;
        for (key, desired) in policy.desired.attributes.iter().flatten() {
            if let Some((first_key, first, acting)) = decided.get_mut(&key.folded()) {
                *acting |= enforces && first_key == key && first == desired;
            } else if desired.expiry.is_none_or(|expiry| expiry > now()) {
                decided.insert(key.folded(), (key.clone(), desired.clone(), enforces));
            }
        }
    }
    let acting = decided.into_values().filter(|(.., acting)| *acting);
    acting.map(|(key, desired, _)| (key, desired)).collect()
}

/// The device with the desired state of every field, except held ones.
fn desired(scene: &Scene) -> (Device, Attributes) {
    let held: Vec<Change> = scene
        .plan()
        .differences
        .into_iter()
        .filter(|d| d.hold.is_some())
        .map(|d| d.change)
        .collect();
    let is_held = |test: fn(&Change) -> bool| held.iter().any(test);
    let (mut device, mut attributes) = (scene.device.clone(), scene.attributes.clone());
    if !is_held(|c| matches!(c, Change::List(ListChange::Tags { .. }))) {
        let tags = winning_list(scene, &scene.device.tags, |policy| {
            let tags = policy.desired.tags.as_deref()?;
            Some((tags.clone(), policy.ownership.tags))
        });
        device.tags = tags.into();
    }
    if let Some(desired) = winner(scene, DesiredSettings::key_expiry_disabled)
        && !is_held(|c| {
            matches!(
                c,
                Change::Setting {
                    after: SettingValue::KeyExpiryDisabled(_),
                    ..
                }
            )
        })
    {
        device.key_expiry_disabled = desired;
    }
    let before = device.enabled_routes.clone().unwrap();
    let (exit, subnets): (RouteSet, RouteSet) = before.into_iter().partition(Route::is_exit_node);
    let exit = match winner(scene, |w| w.exit_node) {
        Some(true) => Route::exit_node(),
        Some(false) => RouteSet::new(),
        None => exit,
    };
    let subnets = winning_list(scene, &subnets, |policy| {
        let routes = policy.desired.enabled_routes.clone()?;
        Some((routes, policy.ownership.enabled_routes))
    });
    device.enabled_routes = Some(exit.into_iter().chain(subnets).collect());
    if let Some(name) = winner(scene, DesiredSettings::name)
        && !is_held(|c| {
            matches!(
                c,
                Change::Setting {
                    after: SettingValue::Name(_),
                    ..
                }
            )
        })
    {
        device.name = format!("{name}.tail1.ts.net");
    }
    if let Some(address) = winner(scene, DesiredSettings::ipv4)
        && !is_held(|c| {
            matches!(
                c,
                Change::Setting {
                    after: SettingValue::Ipv4(_),
                    ..
                }
            )
        })
    {
        device.ipv4 = Some(address.addr());
    }
    match winner(scene, DesiredSettings::authorized) {
        Some(false)
            if !is_held(|c| {
                matches!(
                    c,
                    Change::Setting {
                        after: SettingValue::Authorized(_),
                        ..
                    }
                )
            }) =>
        {
            device.authorized = false;
        }
        Some(true) if lets_in(&scene.plan()) => device.authorized = true,
        _ => {}
    }
    attributes.retain(|key, _| !is_pruned(scene, key));
    for (key, desired) in winning_attributes(scene) {
        let value = desired.value.to_json();
        attributes.insert(
            key,
            ReportedAttribute {
                value,
                expiry: desired.expiry,
            },
        );
    }
    (device, attributes)
}

/// Whether the device is authorized in the end. It is not while anything that a policy declares for it is
/// held; only what can hold nowhere in the tailnet delays nobody but the policies that declare it.
fn lets_in(plan: &DevicePlan) -> bool {
    let is_entry = |difference: &&Difference| {
        matches!(
            difference.change,
            Change::Setting {
                after: SettingValue::Authorized(true),
                ..
            }
        )
    };
    let Some(entry) = plan.differences.iter().find(is_entry) else {
        return false;
    };
    let inactive = plan.shown.iter().filter(|difference| {
        !matches!(difference.hold, Some(Hold::Observed | Hold::NotAllowed(_)))
    });
    let held = plan.differences.iter().filter(|it| it.hold.is_some());
    held.chain(inactive)
        .all(|other| other.cannot_hold() && !other.owners().any(|owner| entry.concerns(owner)))
}

/// Whether an acting policy may delete this attribute: the policy declared it before, and no policy desires
/// it; or the policy owns all attributes, and no policy declares this one.
fn is_pruned(scene: &Scene, key: &AttributeKey) -> bool {
    let ranked = scene.ranked();
    let names = |policy: &Policy| {
        let desired = policy.desired.attributes.as_ref();
        desired.is_some_and(|desired| desired.contains_key(key))
    };
    let desires = |policy: &Policy| names(policy) && !policy.has_expired(key, now());
    let enforces =
        |policy: &Policy| policy.mode == Mode::Enforce && policy.desired.attributes.is_some();
    let named_before = |policy: &Policy, record: &PolicyRecord| {
        let owned = record.owned.known_at(&scene.device.node_id);
        enforces(policy) && owned.is_some_and(|owned| owned.contains(key)) && !names(policy)
    };
    let owns_all = |policy: &Policy| {
        enforces(policy) && policy.ownership.attributes == AttributesOwnership::Exact
    };
    let by_anybody = |test: &dyn Fn(&Policy) -> bool| ranked.iter().any(|(policy, _)| test(policy));
    (!by_anybody(&desires) && ranked.iter().any(|(p, m)| named_before(p, m)))
        || (!by_anybody(&names) && ranked.iter().any(|(p, _)| owns_all(p)))
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(512))]

    #[test]
    fn requests_lead_to_exactly_the_desired_state(scene in scene()) {
        let (device, attributes) = desired(&scene);
        let mut scene = scene;
        scene.run();
        prop_assert_eq!(&scene.device, &device);
        prop_assert_eq!(&scene.attributes, &attributes);
        let left = scene.plan();
        let held = left.differences.iter().any(|difference| difference.hold.is_some());
        for difference in &left.differences {
            let waits = (held || left.lacks_what_waits()) && matches!(difference.change, Change::Setting { after: SettingValue::Authorized(true), .. });
            prop_assert!(difference.hold.is_some() || waits, "{difference:?}");
        }
    }

    #[test]
    fn each_kind_of_request_is_sent_at_most_once_and_in_the_safe_order(scene in scene()) {
        let mut scene = scene;
        let places: Vec<usize> = scene.run().iter().map(place).collect();
        prop_assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    }

    #[test]
    fn requests_change_only_declared_fields(scene in scene()) {
        let mut after = scene.clone();
        after.run();
        let mut device = after.device.clone();
        let before = &scene.device;
        if scene.names(|w| w.authorized().is_some()) { device.authorized = before.authorized; }
        if scene.names(|w| w.tags.is_some()) { device.tags.clone_from(&before.tags); }
        if scene.names(|w| w.key_expiry_disabled().is_some()) { device.key_expiry_disabled = before.key_expiry_disabled; }
        if scene.names(|w| w.name().is_some()) { device.name.clone_from(&before.name); }
        if scene.names(|w| w.ipv4().is_some()) { device.ipv4 = before.ipv4; }
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
            let named = scene.names(|w| w.attributes.as_ref().is_some_and(|desired| desired.contains_key(&key)));
            if !named && !is_pruned(&scene, &key) {
                prop_assert_eq!(after.attributes.get(&key), scene.attributes.get(&key));
            }
        }
    }

    #[test]
    fn order_of_policies_changes_nothing(scene in scene(), turn in 0..4_usize) {
        let mut other = scene.clone();
        let turn = turn.min(other.policies.len());
        other.policies.rotate_left(turn);
        prop_assert_eq!(scene.plan(), other.plan());
        other.policies.reverse();
        prop_assert_eq!(scene.plan(), other.plan());
    }

    #[test]
    fn every_declared_value_that_does_not_hold_has_a_cause(scene in scene()) {
        let plan = scene.plan();
        for (policy, _) in &scene.policies {
            let unexplained = unexplained(policy, &scene.device, &scene.attributes, &plan, now());
            prop_assert!(unexplained.is_empty(), "{}: {unexplained:?}", policy.key);
        }
    }

    #[test]
    fn unread_settings_are_not_compared_and_prevent_authorization(scene in scene()) {
        let policies: Vec<_> = scene.policies.iter().map(|(p, m)| (p, m)).collect();
        let mut device = scene.device.clone();
        device.enabled_routes = None;
        let index = scene.index();
        let context = PlanContext { index: &index, approvals: &ApprovalStates::default(), tailnet_wide: &TailnetWide::default(), now: now(), released: &[], turns: &BTreeSet::new(), guardrails: &Guardrails::default() };
        let plan = plan_device(&device, None, &policies, &context);
        for difference in &plan.differences {
            let unknown = matches!(
                difference.change,
                Change::Attribute { .. }
                    | Change::List(ListChange::EnabledRoutes { .. } | ListChange::ExitNode { .. })
            );
            prop_assert!(!unknown, "{difference:?}");
        }
        if let Some((Call::Set(_, SettingValue::Authorized(true)), _)) = next_call(&plan, &BTreeSet::new()) {
            prop_assert!(plan.complete());
        }
    }

    #[test]
    fn selector_policy_gives_no_tag_that_ends_its_match_and_no_first_tag_unless_allowed(scene in scene()) {
        for difference in scene.plan().differences {
            let Change::List(ListChange::Tags { before, after }) = &difference.change else {
                continue;
            };
            let owner = scene.policies.iter().find(|(policy, _)| policy.key == difference.owner);
            let (policy, _) = owner.unwrap();
            let Target::Selector(selector) = &policy.target else {
                continue;
            };
            // A policy that declares the same tags and still matches would make the change by itself.
            let later = Device { tags: after.clone(), ..scene.device.clone() };
            let keeps = |key: &crate::plan::PolicyKey| scene.policies.iter().any(|(policy, _)| {
                policy.key == *key && match &policy.target {
                    Target::Selector(selector) => selector.matches(&later),
                    Target::Device(_) => true,
                }
            });
            let kept = selector.matches(&later) || difference.others.iter().any(keeps);
            let first = before.is_empty() && !policy.allowed.contains(&Disruption::FirstTag);
            if !kept || first {
                prop_assert!(difference.hold.is_some(), "{difference:?}");
            }
        }
    }

    #[test]
    fn disruption_is_held_unless_its_owner_allows_it(scene in scene()) {
        for difference in scene.plan().differences {
            let disruption = match difference.change {
                Change::Setting { after: SettingValue::Authorized(false), .. } => Disruption::Deauthorize,
                Change::Setting { after: SettingValue::KeyExpiryDisabled(false), .. }
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
