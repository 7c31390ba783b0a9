//! Invalid and unreadable specs, and finalizers that someone removes.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Broken, World,
    builders::{SOON, attributes, fleet, key, policy, policy_key, servers, tags, world},
    model::node_id,
};
use crate::{
    model::{Route, TagSet},
    plan::{AttributesOwnership, Deletion, Mode, Ownership, Policy, Suspender},
    tailnet::State,
};

fn tag_set(names: &[&str]) -> TagSet {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// An older policy sets tags and an attribute of a device. A younger one declares others and is the
/// exclusive owner of the attributes.
fn two_policies() -> World {
    let mut world = world(1);
    let mut first = policy(0, attributes(&[("a", "gold")]));
    first.desired.tags = Some(tag_set(&["tag:a"]));
    first.priority = 1;
    world.apply(first);
    let mut second = policy(0, attributes(&[("b", "gold")]));
    second.key = policy_key(1);
    second.desired.tags = Some(tag_set(&["tag:b"]));
    second.ownership = Ownership {
        attributes: AttributesOwnership::Exact,
        ..Ownership::default()
    };
    world.apply(second);
    world.start();
    world.run_until(SOON);
    assert_eq!(world.model.devices[&node_id(0)].tags, tag_set(&["tag:a"]));
    world.clear_seen();
    world
}

fn assert_untouched(world: &World) {
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    let keys: Vec<_> = world.model.attributes[&node_id(0)]
        .keys()
        .cloned()
        .collect();
    assert_eq!(keys, [key("a"), key("b")]);
}

#[test]
fn an_edit_that_makes_a_policy_invalid_gives_nothing_to_policies_of_lower_precedence() {
    for broken in [Broken::Invalid, Broken::Unreadable] {
        for restart in [false, true] {
            let mut world = two_policies();
            let before = world.policies[&policy_key(0)].record.clone();
            world.break_spec(&policy_key(0), broken);
            world.run_for(SOON);
            if restart {
                world.kill();
            }
            world.run_for(Duration::from_hours(2));
            assert_untouched(&world);
            assert_eq!(world.policies[&policy_key(0)].record, before);
            // Once corrected, the policy changes devices again. Once deleted, its fields go to the other
            // policy.
            world.apply(policy(0, tags(&["tag:c"])));
            world.run_for(SOON);
            assert_eq!(world.model.devices[&node_id(0)].tags, tag_set(&["tag:c"]));
            world.delete(&policy_key(0));
            world.run_for(SOON);
            assert_eq!(world.model.devices[&node_id(0)].tags, tag_set(&["tag:b"]));
            world.assert_converged();
        }
    }
}

#[test]
fn an_invalid_policy_is_reported_and_an_unreadable_one_is_not() {
    let mut world = two_policies();
    world.break_spec(&policy_key(0), Broken::Unreadable);
    world.run_for(SOON);
    let about = |world: &World| {
        let reports = world.seen.reports.iter();
        reports.filter(|(key, _)| *key == policy_key(0)).count()
    };
    assert_eq!(about(&world), 0);
    world.break_spec(&policy_key(0), Broken::Invalid);
    world.run_for(SOON);
    assert_eq!(about(&world), 1);
    let report = &world.last_reports[&policy_key(0)];
    assert!(matches!(report.state, State::Invalid(_)));
    assert_eq!(report.mode, Mode::Suspended(Suspender::Invalid));
}

fn clearing() -> World {
    let mut world = world(1);
    let mut clears = policy(0, attributes(&[("a", "gold")]));
    clears.desired.exit_node = Some(true);
    clears.deletion = Deletion::Clear;
    world.apply(clears);
    world.start();
    world.run_until(SOON);
    assert!(world.policies[&policy_key(0)].anchored);
    world
}

fn is_clear(world: &World) -> bool {
    let routes = world.model.devices[&node_id(0)].enabled_routes.clone();
    let routes = routes.unwrap_or_default();
    world.model.attributes[&node_id(0)].is_empty() && !routes.iter().any(Route::is_exit_node)
}

#[test]
fn a_removed_finalizer_is_put_back_though_nothing_else_changes() {
    for restart in [false, true] {
        let mut world = clearing();
        world.clear_seen();
        world.replace(&policy_key(0));
        if restart {
            world.kill();
        }
        world.run_for(SOON);
        assert!(world.policies[&policy_key(0)].anchored, "{restart}");
        assert!(world.writes().is_empty());
        let written: BTreeSet<_> = world.seen.reports.iter().map(|(key, _)| key).collect();
        assert_eq!(written.len(), 1);
        world.delete(&policy_key(0));
        world.run_for(SOON);
        assert!(is_clear(&world), "{:#?}", world.model);
        assert!(world.policies.is_empty());
    }
}

#[test]
fn an_unreadable_policy_is_not_released() {
    for restart in [false, true] {
        let mut world = clearing();
        let before = world.policies[&policy_key(0)].record.clone();
        world.break_spec(&policy_key(0), Broken::Unreadable);
        world.run_for(SOON);
        world.delete(&policy_key(0));
        if restart {
            world.kill();
        }
        world.run_for(Duration::from_hours(24));
        assert_eq!(world.policies[&policy_key(0)].record, before);
        assert!(!is_clear(&world));
        // A version that can read the policy takes over.
        let kept: &mut _ = world.policies.get_mut(&policy_key(0)).unwrap();
        kept.broken = Broken::Valid;
        kept.deleting = true;
        world.kill();
        world.run_for(SOON);
        assert!(is_clear(&world) && world.policies.is_empty());
    }
}

#[test]
fn an_invalid_fleet_policy_keeps_its_settings_on_all_devices() {
    let mut world = servers(4);
    let fleet = |number, names: &[&str], priority| Policy {
        key: policy_key(number),
        priority,
        ..fleet(tags(names))
    };
    world.apply(fleet(0, &["tag:s", "tag:a"], 1));
    world.apply(fleet(1, &["tag:s"], 0));
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    world.break_spec(&policy_key(0), Broken::Invalid);
    world.run_for(SOON);
    world.kill();
    world.run_for(SOON);
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    for device in world.model.devices.values() {
        assert_eq!(device.tags, tag_set(&["tag:a", "tag:s"]));
    }
}
