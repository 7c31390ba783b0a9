//! A release under `Clear` is a change like any other: it counts against the limit, needs approvals, and
//! gets the time that it needs.

use std::{collections::BTreeSet, time::Duration};

use super::{
    CLEAR_TIMEOUT, World,
    builders::{SOON, attributes, clearing, fleet, key, policy_key, servers, string, tag},
    clears::left_behind,
    limits::{approve_on_tailnet, changed},
    model::node_id,
};
use crate::{
    model::{ChangeLimit, DesiredAttribute, ReportedAttribute},
    plan::{
        ApprovedOn, Deletion, DesiredSettings, Hold, Mode, Policy, PolicyKey, Selector, Target,
    },
};

const HOUR: Duration = Duration::from_hours(1);

fn first() -> PolicyKey {
    policy_key(0)
}

fn gold() -> Policy {
    clearing(attributes(&[("a", "gold")]))
}

/// The policy with a selector for another tag.
fn elsewhere(policy: Policy) -> Policy {
    Policy {
        target: Target::Selector(Selector {
            tags: [tag("tag:nobody")].into(),
            ..Selector::default()
        }),
        ..policy
    }
}

/// `count` devices in sync for longer than the limit counts. The limit is five now.
fn settled(count: usize, policy: Policy) -> World {
    let mut world = servers(count);
    world.apply(policy);
    world.start();
    world.run_until(2 * HOUR);
    world.assert_converged();
    world.limit(ChangeLimit::Devices(5));
    world.run_for(SOON);
    world.clear_seen();
    world
}

/// The number of devices that still have the settings of the policy.
fn marked(world: &World) -> usize {
    let attributes = world.model.attributes.values();
    attributes.filter(|it| it.contains_key(&key("a"))).count()
}

fn is_there(world: &World) -> bool {
    world.policies.contains_key(&first())
}

/// Everything is held under a hash that must be approved on the tailnet, and the policy says so.
fn assert_held(world: &World, devices: usize) {
    assert!(world.writes().is_empty(), "{:?}", world.writes());
    let report = &world.last_reports[&first()];
    let plan = world.held(&first());
    assert_eq!((plan.on, plan.devices), (ApprovedOn::Tailnet, devices));
    let clearing = report.clearing.as_ref().unwrap();
    assert_eq!(clearing.left, devices);
    let hold = &clearing.differences[0].hold;
    let Some(Hold::Limit(Some(limited))) = hold else {
        panic!("{hold:?}");
    };
    assert_eq!(
        (&limited.hash, limited.devices),
        (&Some(plan.hash.clone()), devices)
    );
    let limited = &world.tailnet_report.limited;
    assert_eq!(limited.len(), 1);
    assert_eq!(limited[0].hash, Some(plan.hash));
}

/// Edits the selector to match no device, or deletes the policy.
fn release(world: &mut World, deleted: bool) {
    if deleted {
        world.delete(&first());
    } else {
        world.apply(elsewhere(gold()));
    }
    world.run_for(Duration::from_mins(2));
}

#[test]
fn more_devices_than_the_limit_allows_are_not_cleared_before_an_approval() {
    for deleted in [false, true] {
        let mut world = settled(20, gold());
        release(&mut world, deleted);
        assert_held(&world, 20);
        // However long that takes, and across handovers.
        world.run_for(5 * HOUR);
        assert_held(&world, 20);
        world.kill();
        world.run_for(Duration::from_mins(30));
        assert_held(&world, 20);
        assert_eq!(marked(&world), 20);

        let hash = world.hash(&first());
        approve_on_tailnet(&mut world, &format!("plan:{hash}"));
        world.run_for(Duration::from_mins(2));
        assert_eq!((marked(&world), is_there(&world)), (0, !deleted));
        if deleted {
            assert_eq!(left_behind(&world), None);
        }
        world.assert_converged();
    }
}

#[test]
fn a_typo_right_after_a_rollout_is_held_though_all_its_devices_count_already() {
    let mut world = servers(20);
    world.apply(gold());
    world.start();
    world.run_until(SOON);
    world.limit(ChangeLimit::Devices(5));
    world.clear_seen();
    release(&mut world, false);
    assert_held(&world, 20);
    // An edit is not free either.
    world.apply(clearing(attributes(&[("a", "silver")])));
    world.run_for(Duration::from_mins(5));
    assert!(world.writes().is_empty());
    assert_eq!(world.held(&first()).devices, 20);
}

#[test]
fn a_typo_in_a_selector_that_is_corrected_costs_nothing() {
    let mut world = settled(20, gold());
    release(&mut world, false);
    assert_held(&world, 20);
    world.apply(gold());
    world.run_for(2 * HOUR);
    assert!(world.writes().is_empty());
    world.assert_converged();
}

#[test]
fn a_few_devices_are_cleared_at_once_and_others_once_the_limit_allows() {
    let mut world = settled(20, gold());
    let leave = |world: &mut World, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let device = world.model.devices.get_mut(&node_id(number)).unwrap();
            device.tags = [tag("tag:b")].into();
        }
        world.run_for(Duration::from_mins(3));
    };
    leave(&mut world, 0..4);
    assert_eq!(marked(&world), 16);
    leave(&mut world, 4..8);
    assert_eq!(marked(&world), 16);
    assert_eq!(world.held(&first()).devices, 4);
    world.run_for(HOUR);
    assert_eq!(marked(&world), 12);
    world.assert_converged();
}

#[test]
fn a_held_release_is_sent_under_a_higher_limit_and_dropped_under_retain() {
    for retain in [false, true] {
        let mut world = settled(20, gold());
        release(&mut world, true);
        if retain {
            let kept = world.policies.get_mut(&first()).unwrap();
            kept.policy.deletion = Deletion::Retain;
            kept.policy.generation += 1;
            world.show_policy(&first());
        } else {
            world.limit(ChangeLimit::NONE);
        }
        world.run_for(Duration::from_mins(2));
        assert_eq!(marked(&world), if retain { 20 } else { 0 });
        assert!(!is_there(&world));
    }
}

#[test]
fn a_policy_that_requires_approval_requires_it_for_releases_too() {
    for deleted in [false, true] {
        let mut world = settled(3, gold());
        let with_approval = Policy {
            mode: Mode::Approve,
            ..gold()
        };
        world.apply(with_approval.clone());
        world.run_for(SOON);
        if deleted {
            world.delete(&first());
        } else {
            world.apply(elsewhere(with_approval));
        }
        world.run_for(5 * CLEAR_TIMEOUT);
        assert!(world.writes().is_empty());
        let plan = world.held(&first());
        assert_eq!((plan.on, plan.devices), (ApprovedOn::Policy, 3));
        world.approve(&first(), &format!("plan:{}", plan.hash));
        world.run_for(Duration::from_mins(2));
        assert_eq!((marked(&world), is_there(&world)), (0, !deleted));
        world.assert_converged();
    }
}

/// Two policies would change the same devices, and both are held.
#[test]
fn an_approval_covers_no_other_plan_of_the_same_devices() {
    let mut world = servers(20);
    world.settings.limit = ChangeLimit::Devices(5);
    for device in world.model.devices.values_mut() {
        device.enabled_routes = Some(["10.0.0.0/16".parse().unwrap()].into());
    }
    world.apply(fleet(attributes(&[("a", "gold")])));
    world.apply(Policy {
        key: policy_key(1),
        ..fleet(DesiredSettings {
            enabled_routes: Some(BTreeSet::new()),
            ..DesiredSettings::default()
        })
    });
    world.start();
    world.run_until(Duration::from_mins(3));
    // A few devices were changed before their total number was known.
    let before = changed(&world).len();
    assert!(before <= 5);
    let other = world.held(&policy_key(1));
    let hash = world.hash(&first());
    approve_on_tailnet(&mut world, &format!("plan:{hash}"));
    world.run_for(Duration::from_mins(30));
    assert_eq!(marked(&world), 20);
    let routes = |world: &World| {
        let devices = world.model.devices.values();
        devices
            .filter(|it| it.enabled_routes.as_ref().is_some_and(|it| !it.is_empty()))
            .count()
    };
    assert_eq!(routes(&world), 20);
    assert_eq!(world.hash(&policy_key(1)), other.hash);

    // A small correction of devices that were changed within the hour is free.
    let attributes = world.model.attributes.get_mut(&node_id(3)).unwrap();
    attributes.clear();
    world.run_for(Duration::from_mins(15));
    assert_eq!(marked(&world), 20);
    // Too large for any hour.
    world.run_for(3 * HOUR);
    assert_eq!(routes(&world), 20);
    approve_on_tailnet(&mut world, &format!("plan:{}", other.hash));
    world.run_for(Duration::from_mins(3));
    assert_eq!(routes(&world), 0);
    world.assert_converged();
}

#[test]
fn a_value_that_a_person_sets_while_the_release_is_held_is_kept() {
    let mut world = servers(20);
    let mut desired = attributes(&[("b", "gold")]);
    let temporary = DesiredAttribute {
        value: string("gold"),
        expiry: Some(world.wall() + 3 * HOUR),
    };
    desired
        .attributes
        .as_mut()
        .unwrap()
        .insert(key("a"), temporary);
    world.apply(clearing(desired.clone()));
    world.start();
    world.run_until(2 * HOUR);
    world.limit(ChangeLimit::Devices(5));
    world.delete(&first());
    world.run_for(2 * HOUR);
    assert!(is_there(&world) && marked(&world) == 0);
    for attributes in world.model.attributes.values_mut() {
        let value = ReportedAttribute {
            value: string("theirs").to_json(),
            expiry: None,
        };
        attributes.insert(key("a"), value);
    }
    world.run_for(HOUR);
    world.limit(ChangeLimit::NONE);
    world.run_for(Duration::from_mins(5));
    assert!(!is_there(&world));
    assert_eq!(marked(&world), 20);
}

#[test]
fn a_policy_deleted_while_no_process_ran_is_cleared_whatever_the_clock_says() {
    let minutes = jiff::SignedDuration::from_mins;
    for (pause, ahead) in [
        (3 * HOUR, minutes(0)),
        (SOON, minutes(15)),
        (SOON, minutes(-90)),
    ] {
        let mut world = settled(3, gold());
        world.limit(ChangeLimit::NONE);
        // The process stops.
        world.life += 1;
        world.wake = None;
        world.policies.get_mut(&first()).unwrap().deleting = true;
        world.run_for(pause);
        world.start += ahead;
        world.kill();
        world.run_for(Duration::from_mins(2));
        assert_eq!((marked(&world), is_there(&world)), (0, false));
        assert_eq!(left_behind(&world), None);
    }
}

#[test]
fn a_failing_release_ends_on_time_though_the_clock_was_set_back() {
    let mut world = settled(3, gold());
    world.model.broken = Some(node_id(2));
    world.delete(&first());
    world.run_for(Duration::from_mins(1));
    world.start -= jiff::SignedDuration::from_hours(5);
    world.run_for(CLEAR_TIMEOUT);
    assert!(!is_there(&world));
    assert_eq!(left_behind(&world).unwrap().0, 1);
}

/// An attribute, a route and an exit node on each device, and a budget of about a request a minute.
#[test]
fn a_release_that_makes_progress_is_not_given_up() {
    let desired = DesiredSettings {
        enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
        exit_node: Some(true),
        ..attributes(&[("a", "gold")])
    };
    let mut world = settled(30, clearing(desired));
    world.settings.requests_per_second = 0.01;
    world.faults.queue = Duration::from_mins(2);
    world.limit(ChangeLimit::NONE);
    let begin = world.clock;
    world.delete(&first());
    while is_there(&world) {
        world.run_for(Duration::from_mins(1));
        assert!(world.clock < begin + 10 * HOUR);
    }
    let taken = world.clock.saturating_sub(begin);
    assert!(taken > 2 * CLEAR_TIMEOUT, "{taken:?}");
    assert_eq!(left_behind(&world), None);
    assert_eq!(marked(&world), 0);
}

#[test]
fn an_outage_ends_a_release_after_the_timeout_but_not_while_approval_is_pending() {
    let mut world = settled(20, gold());
    world.delete(&first());
    world.run_for(Duration::from_mins(2));
    assert_held(&world, 20);
    // While approval is pending, an outage does not end the release.
    world.faults.list_down = true;
    world.run_for(3 * CLEAR_TIMEOUT);
    assert!(is_there(&world));
    let hash = world.hash(&first());
    approve_on_tailnet(&mut world, &format!("plan:{hash}"));
    world.run_for(CLEAR_TIMEOUT.saturating_sub(Duration::from_secs(5)));
    assert!(is_there(&world));
    world.run_for(Duration::from_secs(10));
    assert!(!is_there(&world));
    assert_eq!(left_behind(&world).unwrap().0, 20);
}
