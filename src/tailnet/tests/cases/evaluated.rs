//! Selectors whose evaluation takes more than one step.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Broken, World,
    builders::{fleet, policy, servers, tag, tags},
    model::{device, node_id},
};
use crate::{
    model::{ChangeLimit, SettingValue},
    plan::{DesiredSettings, Guardrails, ListOwnership, Mode, Policy, PolicyKey, Selector, Target},
    tailnet::{Input, Request, Term},
};

const DEVICES: usize = 60;
/// About one device for each step.
const SMALL: usize = 1;

fn of(namespace: &str, policy: Policy) -> Policy {
    let key = PolicyKey::new(namespace, &*policy.key.name);
    Policy { key, ..policy }
}

fn selecting(expression: &str, policy: Policy) -> Policy {
    let selector = Selector {
        expression: Some(expression.parse().unwrap()),
        ..Selector::default()
    };
    Policy {
        target: Target::Selector(selector),
        ..policy
    }
}

/// A world without policies so far, in which each step evaluates about one device and takes one second.
fn slow(devices: usize) -> World {
    let mut world = servers(devices);
    world.evaluation_share = Some((SMALL, Duration::from_secs(1)));
    world.start();
    world.engine.set_evaluation_share(SMALL);
    world.run_for(Duration::from_secs(20));
    world
}

fn settle(world: &mut World) {
    world.run_for(Duration::from_mins(5));
    world.assert_converged();
    world.clear_seen();
}

/// Such a world, in sync with a policy that selects all of its devices.
fn all_tagged() -> (World, Policy) {
    let mut world = slow(DEVICES);
    let policy = selecting("device.os == 'linux'", fleet(tags(&["tag:a"])));
    world.apply(policy.clone());
    settle(&mut world);
    (world, policy)
}

fn matched(world: &World, key: &PolicyKey) -> Option<usize> {
    let entry = world.engine.policies().get(key).unwrap();
    entry.targets().selected().map(BTreeSet::len)
}

#[test]
fn a_new_policy_is_not_planned_from_a_part_of_its_devices() {
    let mut world = slow(DEVICES);
    world.limit(ChangeLimit::Devices(59));
    let policy = selecting("device.os == 'linux'", fleet(tags(&["tag:a"])));
    let key = policy.key.clone();
    world.apply(policy);
    world.run_for(Duration::from_secs(30));
    assert_eq!(matched(&world, &key), None);
    assert!(world.writes().is_empty());
    world.run_for(Duration::from_mins(5));
    // The plan is held as a whole: a part of the devices would have been within the limit.
    assert_eq!(matched(&world, &key), Some(DEVICES));
    assert!(world.writes().is_empty());
}

#[test]
fn an_edited_policy_sends_nothing_and_releases_nothing_until_its_devices_are_known() {
    let (mut world, policy) = all_tagged();
    let key = policy.key.clone();
    let edited = selecting(
        "device.os == 'linux' && device.hostname != 'host-0'",
        Policy {
            desired: tags(&["tag:b"]),
            ..policy
        },
    );
    world.apply(edited);
    world.run_for(Duration::from_secs(30));
    // Drift is not corrected by the earlier spec either.
    let drifted = world.model.devices.get_mut(&node_id(7)).unwrap();
    drifted.tags = [tag("tag:z")].into();
    world.run_for(Duration::from_secs(10));
    assert_eq!(matched(&world, &key), Some(DEVICES));
    assert!(world.writes().is_empty() && world.seen.reports.is_empty());
    world.run_for(Duration::from_mins(5));
    world.assert_converged();
    assert_eq!(matched(&world, &key), Some(DEVICES - 1));
    assert_eq!(world.writes().len(), DEVICES - 1);
}

#[test]
fn an_edited_selector_restarts_its_evaluation_and_edited_settings_do_not() {
    let (mut world, policy) = all_tagged();
    let narrower = selecting("device.hostname == 'host-3'", policy.clone());
    world.apply(narrower.clone());
    world.run_for(Duration::from_secs(50));
    let desired = tags(&["tag:c"]);
    world.apply(Policy {
        desired,
        ..narrower
    });
    world.run_for(Duration::from_secs(25));
    let nodes: Vec<_> = world.writes().iter().flat_map(|it| it.nodes()).collect();
    assert_eq!(nodes, [&node_id(3)]);
    settle(&mut world);
    world.apply(selecting("device.os == 'windows'", policy.clone()));
    world.run_for(Duration::from_secs(30));
    world.apply(policy);
    world.run_for(Duration::from_mins(5));
    world.assert_converged();
}

#[test]
fn a_policy_deleted_during_an_evaluation_goes() {
    let (mut world, policy) = all_tagged();
    let key = policy.key.clone();
    world.apply(selecting("device.os == 'windows'", policy));
    world.run_for(Duration::from_secs(10));
    world.delete(&key);
    world.run_for(Duration::from_mins(5));
    assert!(world.engine.policies().keys().next().is_none() && !world.engine.is_evaluating());
}

#[test]
fn a_namespace_waits_for_another_one_as_long_as_for_itself_at_most() {
    let mut world = slow(DEVICES);
    for number in 0..5 {
        let mut large = of(
            "hostile",
            selecting("device.os == 'linux'", fleet(tags(&["tag:a"]))),
        );
        large.mode = Mode::Observe;
        large.key = PolicyKey::new(&*large.key.namespace, format!("large-{number}"));
        world.apply(large);
    }
    world.run_for(Duration::from_secs(10));
    let other = of(
        "other",
        selecting("device.os == 'linux'", fleet(tags(&["tag:a"]))),
    );
    let key = other.key.clone();
    world.apply(other);
    let from = world.clock;
    world.run_for(Duration::from_secs(1));
    while matched(&world, &key).is_none() {
        world.run_for(Duration::from_secs(1));
    }
    let taken = world.clock.checked_sub(from).unwrap();
    // Alone, an evaluation takes a second for each device.
    assert!(taken <= Duration::from_secs(125), "{taken:?}");
}

#[test]
fn a_device_is_not_compared_twice() {
    let mut world = slow(DEVICES);
    world.apply(selecting("device.os == 'linux'", fleet(tags(&["tag:a"]))));
    settle(&mut world);
    // A poll with another change of a device, another connection, another term.
    let device = world.model.devices.get_mut(&node_id(3)).unwrap();
    device.authorized = !device.authorized;
    world.run_for(Duration::from_mins(1));
    assert!(!world.engine.is_evaluating());
    world.step(Input::connection(Ok(())));
    world.step(Input::Term(None));
    world.step(Input::Term(Some(Term::FIRST.next())));
    world.run_for(Duration::from_secs(2));
    assert!(world.engine.observed().lists() > 0 && !world.engine.is_evaluating());
}

/// Entries that a policy does not own need a fresh read before the request. Were the device matched again after it,
/// the read would be out of date once that is done, and another one would follow, forever.
#[test]
fn a_read_that_says_nothing_new_makes_no_device_wait_for_its_selectors() {
    let mut world = slow(DEVICES);
    for name in ["other-1", "other-2", "other-3"] {
        let mut other = selecting("device.os == 'windows'", fleet(tags(&["tag:b"])));
        other.key = PolicyKey::new(&*other.key.namespace, name);
        world.apply(other);
    }
    for device in world.model.devices.values_mut() {
        device.tags = [tag("tag:c")].into();
    }
    let mut sharing = selecting("device.os == 'linux'", fleet(tags(&["tag:a"])));
    sharing.ownership.tags = ListOwnership::AtLeast;
    world.apply(sharing);
    world.run_for(Duration::from_mins(10));
    world.assert_converged();
    // One request to read and one to write for each device, and one to verify the change.
    let reads = world.count(|request| matches!(request, Request::Device(_)));
    assert_eq!(world.writes().len(), DEVICES);
    assert!(reads <= 2 * DEVICES, "{reads}");
}

#[test]
fn a_changed_device_waits_until_its_policies_are_known() {
    let mut world = slow(DEVICES);
    let desired = DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(true)].into(),
        ..DesiredSettings::default()
    };
    world.apply(selecting("device.os == 'linux'", fleet(desired)));
    let single = of("other", policy(DEVICES, tags(&["tag:z"])));
    world.model.add(device(DEVICES));
    world.apply(single);
    settle(&mut world);
    for number in 0..DEVICES {
        let device = world.model.devices.get_mut(&node_id(number)).unwrap();
        device.os = "windows".to_owned();
        device.key_expiry_disabled = false;
    }
    let device = world.model.devices.get_mut(&node_id(DEVICES)).unwrap();
    device.tags = [tag("tag:b")].into();
    world.run_for(Duration::from_mins(4));
    let nodes: Vec<_> = world.writes().iter().flat_map(|it| it.nodes()).collect();
    // Nothing for the device that left the fleet. The device of the other namespace did not wait.
    assert_eq!(nodes, [&node_id(DEVICES)]);
    assert!(world.count(|request| matches!(request, Request::Write(_))) == 1);
}

#[test]
fn a_denied_policy_is_compared_with_no_device() {
    let mut world = slow(DEVICES);
    let policy = selecting("device.os == 'linux'", fleet(tags(&["tag:a"])));
    let key = policy.key.clone();
    world.apply(policy);
    settle(&mut world);
    assert!(
        world
            .engine
            .policies()
            .get(&key)
            .unwrap()
            .targets()
            .evaluation()
            .is_some()
    );
    world.settings.guardrails = Guardrails::of_namespace("tsdp-system");
    world.step(Input::Settings(world.settings.clone()));
    world.run_for(Duration::from_secs(5));
    assert!(
        world
            .engine
            .policies()
            .get(&key)
            .unwrap()
            .targets()
            .evaluation()
            .is_none()
    );
    assert!(!world.engine.is_evaluating());
}

/// A new process must evaluate all policies again.
#[test]
fn after_a_start_nothing_is_sent_before_it_is_known_who_takes_precedence() {
    for broken in [Broken::Valid, Broken::Invalid] {
        let mut world = slow(DEVICES);
        let desires = |disabled, priority| Policy {
            priority,
            ..fleet(DesiredSettings {
                settings: [SettingValue::KeyExpiryDisabled(disabled)].into(),
                ..DesiredSettings::default()
            })
        };
        let mut first = selecting("device.os == 'linux'", desires(true, 1));
        // This policy is evaluated after the other one.
        first.key = PolicyKey::new(&*first.key.namespace, "z");
        let key = first.key.clone();
        world.apply(first);
        world.apply(desires(false, 0));
        settle(&mut world);
        world.break_spec(&key, broken);
        world.run_for(Duration::from_mins(5));
        world.clear_seen();
        world.kill();
        world.run_for(Duration::from_mins(5));
        assert!(world.writes().is_empty(), "{:?}", world.writes());
    }
}

#[test]
fn after_a_start_a_device_waits_neither_for_a_selector_that_is_edited_nor_for_a_deleted_policy() {
    let mut world = slow(DEVICES);
    let large = |expression| {
        let large = selecting(expression, fleet(tags(&["tag:a"])));
        of("other", large)
    };
    let key = large("device.os == 'plan9'").key;
    world.apply(large("device.os == 'plan9'"));
    world.model.add(device(DEVICES));
    world.apply(policy(DEVICES, tags(&["tag:z"])));
    settle(&mut world);
    for deletes in [false, true] {
        let device = world.model.devices.get_mut(&node_id(DEVICES)).unwrap();
        device.tags = [tag("tag:b")].into();
        world.kill();
        world.run_for(Duration::from_secs(20));
        assert!(world.writes().is_empty(), "{:?}", world.writes());
        if deletes {
            world.delete(&key);
        } else {
            world.apply(large("device.os == 'beos'"));
        }
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.writes().len(), 1);
        settle(&mut world);
    }
}
