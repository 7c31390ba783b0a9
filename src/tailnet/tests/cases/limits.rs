//! The limit of changed devices through repairs, approvals, and restarts.

use std::{collections::BTreeSet, time::Duration};

use jiff::SignedDuration;

use super::{
    World,
    builders::{SOON, fleet, policy, policy_key, servers, tag, tags, world},
    fleets::reported,
    model::{device, node_id},
};
use crate::{
    model::{ChangeLimit, NodeId},
    plan::{Approvals, ApprovedOn, Policy},
    tailnet::{Input, State},
};

const HOUR: Duration = Duration::from_hours(1);

fn limited(mut world: World, limit: ChangeLimit) -> World {
    world.settings.limit = limit;
    world
}

/// A policy that would change all of a hundred servers under a limit of ten, and one for a single device.
/// Both have differences.
fn mistake_and_repair() -> World {
    let mut world = limited(servers(100), ChangeLimit::default());
    world.model.add(device(500));
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    world.apply(policy(500, tags(&["tag:z"])));
    world.start();
    world.run_until(SOON);
    world
}

pub fn changed(world: &World) -> BTreeSet<NodeId> {
    let calls = world.writes().into_iter();
    calls.flat_map(|call| call.nodes()).cloned().collect()
}

pub fn approve_on_tailnet(world: &mut World, annotation: &str) {
    world.tailnet.approvals = Approvals::parse(Some(annotation));
    world.show_tailnet_object();
}

#[test]
fn a_mistake_in_one_selector_is_held_as_a_whole_while_a_small_repair_is_made() {
    let mut world = mistake_and_repair();
    assert_eq!(changed(&world), [node_id(500)].into());
    let key = policy_key(0);
    let plan = world.held(&key);
    assert_eq!(plan.on, ApprovedOn::Tailnet);
    assert_eq!((plan.devices, plan.limit), (100, Some(10)));
    let hold = reported(&world).differences[0].hold.as_ref();
    let says = format!(
        "100 devices would change, the limit is 10 per hour (10%): raise maxChangedDevices or approve plan:{}",
        plan.hash
    );
    assert_eq!(hold.map(ToString::to_string), Some(says));
    let limited = &world.tailnet_report.limited;
    assert_eq!(limited.len(), 1);
    assert_eq!((&limited[0].policy, limited[0].devices), (&key, 100));
    assert_eq!(limited[0].hash.as_ref(), Some(&plan.hash));

    // While the plan is held, nothing is reported again and small repairs continue.
    world.clear_seen();
    world.run_for(Duration::from_mins(10));
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    world.model.devices.get_mut(&node_id(500)).unwrap().tags = [tag("tag:y")].into();
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world), [node_id(500)].into());

    // The plan is too large for any hour: time alone does not release it.
    world.run_for(HOUR * 3);
    assert_eq!(changed(&world).len(), 1);
    assert_eq!(world.hash(&key), plan.hash);
}

#[test]
fn an_approval_on_the_tailnet_lets_the_frozen_plan_go_over_the_limit_once() {
    let mut world = mistake_and_repair();
    let key = policy_key(0);
    let hash = world.hash(&key);
    // An approval on the policy has no effect.
    world.approve(&key, &format!("plan:{hash}"));
    world.run_for(SOON);
    assert_eq!(changed(&world).len(), 1);
    assert!(world.last_reports[&key].approval_errors[0].contains("on the TailscaleTailnet"));

    approve_on_tailnet(&mut world, &format!("plan:{hash}"));
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world).len(), 101);
    world.assert_converged();
    assert_eq!(world.policies[&key].record.approvals_used, 1);
    assert!(world.tailnet_report.approval_errors.is_empty());

    // The approved changes count: another device is not changed within the hour. Devices that were changed
    // may be.
    let mut joins = device(600);
    joins.tags = [tag("tag:s")].into();
    world.model.add(joins);
    world.model.devices.get_mut(&node_id(7)).unwrap().tags = [tag("tag:s")].into();
    world.clear_seen();
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world), [node_id(7)].into());
    assert_eq!(world.held(&key).devices, 1);
    world.run_for(HOUR);
    assert_eq!(changed(&world), [node_id(7), node_id(600)].into());
    world.assert_converged();
    assert!(world.tailnet_report.limited.is_empty());
}

#[test]
fn raising_the_limit_sends_the_held_plan() {
    let mut world = mistake_and_repair();
    world.settings.limit = ChangeLimit::NONE;
    world.step(Input::Settings(world.settings.clone()));
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world).len(), 101);
    world.assert_converged();
}

#[test]
fn devices_changed_within_the_hour_count_after_a_restart() {
    let mut world = limited(world(40), ChangeLimit::Devices(6));
    for number in 0..5 {
        world.apply(policy(number, tags(&["tag:z"])));
    }
    world.start();
    world.run_until(SOON);
    assert_eq!(changed(&world).len(), 5);
    world.kill();
    world.run_for(Duration::from_mins(20));
    for number in 10..13 {
        world.apply(policy(number, tags(&["tag:z"])));
    }
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world).len(), 6);
    assert_eq!(world.tailnet_report.limited_total, 2);
    world.run_for(HOUR);
    assert_eq!(changed(&world).len(), 8);
    world.assert_converged();
}

/// A policy that changes thirty servers, at most a hundred and thirty. The process is killed four times
/// meanwhile.
#[test]
fn four_kills_change_no_more_devices_than_the_limit_allows() {
    for pause in [300, 700, 1_100, 2_300, 4_700] {
        let mut world = limited(servers(130), ChangeLimit::Devices(30));
        world.start();
        world.run_until(SOON);
        for number in 0..130 {
            let mut one = policy(number, tags(&["tag:s", "tag:a"]));
            one.priority = i32::try_from(number).unwrap();
            world.apply(one);
        }
        world.clear_seen();
        for _ in 0..4 {
            world.run_for(Duration::from_millis(pause));
            world.kill();
        }
        world.run_for(Duration::from_mins(50));
        let changed = changed(&world).len();
        assert!(
            (1..=30).contains(&changed),
            "{changed} after kills each {pause}"
        );
    }
}

#[test]
fn devices_are_reserved_together_and_given_back_at_rest() {
    let mut world = limited(servers(100), ChangeLimit::Percent(80));
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    for device in world.model.devices.values_mut().skip(60) {
        device.tags = [tag("tag:s"), tag("tag:a")].into();
    }
    world.start();
    let mut most = 0;
    let mut records = BTreeSet::new();
    for _ in 0..200 {
        world.run_for(Duration::from_millis(200));
        most = most.max(world.tailnet.reserved.len());
        records.insert(world.tailnet_report.revision);
    }
    assert_eq!(changed(&world).len(), 60);
    assert_eq!(most, 50);
    assert!(records.len() < 10, "{records:?}");
    assert!(world.tailnet.reserved.is_empty());
    let counted = world.tailnet.recent.iter().map(|recent| recent.devices);
    assert_eq!(counted.sum::<usize>(), 60);
    // Without a limit no reservation is written.
    let mut world = limited(servers(100), ChangeLimit::NONE);
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    world.start();
    world.run_for(SOON);
    assert_eq!(changed(&world).len(), 100);
    assert!(world.tailnet.recent.is_empty());
}

#[test]
fn nothing_is_changed_while_no_reservation_can_be_recorded() {
    let mut world = limited(servers(10), ChangeLimit::Devices(20));
    world.start();
    world.run_until(SOON);
    world.loses_tailnet_reports = true;
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    world.run_for(Duration::from_mins(10));
    assert!(world.writes().is_empty());
    world.kill();
    world.loses_tailnet_reports = false;
    world.run_for(SOON);
    assert_eq!(changed(&world).len(), 10);
}

#[test]
fn a_request_that_is_refused_for_good_uses_none_of_the_limit() {
    let mut world = limited(world(10), ChangeLimit::Devices(2));
    world.model.unowned_tag = Some(tag("tag:nobody"));
    for number in 0..2 {
        world.apply(policy(number, tags(&["tag:nobody"])));
    }
    world.start();
    world.run_until(SOON);
    assert!(
        matches!(&world.last_reports[&policy_key(0)].state, State::Bound(report) if !report.failures.is_empty())
    );
    world.delete(&policy_key(0));
    world.delete(&policy_key(1));
    for number in 2..4 {
        world.apply(policy(number, tags(&["tag:z"])));
    }
    world.run_for(SOON);
    world.assert_converged();
    assert_eq!(world.model.devices[&node_id(3)].tags, [tag("tag:z")].into());
}

/// No hour has more changed devices than the limit, despite crashes.
#[test]
fn the_limit_is_never_exceeded() {
    for seed in 0..60 {
        let mut world = limited(World::new(seed), ChangeLimit::Devices(3));
        for number in 0..12 {
            let mut device = device(number);
            device.tags = [tag("tag:s")].into();
            world.model.add(device);
        }
        world.start();
        let desired = |number: u8| {
            tags(&[
                "tag:s",
                ["tag:a", "tag:b", "tag:c"][usize::from(number % 3)],
            ])
        };
        for _ in 0..40 {
            let number = world.rng.u8(..12);
            match world.rng.u8(..8) {
                0 => world.apply(fleet(desired(number))),
                1..=2 => world.apply(Policy {
                    priority: i32::from(number % 2),
                    ..policy(1 + usize::from(number % 11), desired(number))
                }),
                3 => world.delete(&policy_key(0)),
                4 => world.new_faults(),
                5 => world.kill(),
                6 => world.lose_the_lead(),
                _ => {
                    let drifts = world
                        .model
                        .devices
                        .get_mut(&node_id(number.into()))
                        .unwrap();
                    drifts.tags = [tag("tag:s"), tag("tag:d")].into();
                }
            }
            for _ in 0..world.rng.u64(1..60) {
                let pause = world.rng.u64(100..20_000);
                world.run_for(Duration::from_millis(pause));
                if world.rng.u8(..20) == 0 {
                    world.kill();
                }
            }
        }
        let changes = &world.model.written;
        for (begin, _) in changes {
            // The hour starts at the response, which comes up to some seconds after the effect.
            let end = *begin + SignedDuration::from_mins(59);
            let within = changes.iter().filter(|(at, _)| begin <= at && *at < end);
            let devices: BTreeSet<_> = within.map(|(_, id)| id).collect();
            assert!(
                devices.len() <= 3,
                "seed {seed}: {devices:?} from {begin:?}"
            );
        }
        assert!(!changes.is_empty(), "seed {seed}");
    }
}
