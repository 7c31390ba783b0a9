//! The limit of changed devices, through repairs, approvals and restarts.

use std::{collections::BTreeSet, time::Duration};

use super::{
    World,
    chaos::policy_key,
    counted::{SOON, policy, tags, world},
    fleets::{fleet, servers, tag, told},
    model::{device, node_id},
};
use crate::{
    model::{ChangeLimit, NodeId},
    plan::{Approvals, ApprovedOn, Hold, Policy},
    tailnet::{Input, State},
};

const HOUR: Duration = Duration::from_hours(1);

fn limited(mut world: World, limit: ChangeLimit) -> World {
    world.settings.limit = limit;
    world
}

/// A policy that wishes to change all of a hundred servers, where ten may be changed, and another
/// one of a single device. Both differ.
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
    world.tell_tailnet();
}

#[test]
fn a_mistake_in_one_selector_is_held_as_a_whole_while_a_small_repair_is_made() {
    let mut world = mistake_and_repair();
    assert_eq!(changed(&world), [node_id(500)].into());
    let key = policy_key(0);
    let plan = world.held(&key);
    assert_eq!(plan.on, ApprovedOn::Tailnet);
    assert_eq!((plan.devices, plan.limit), (100, Some(10)));
    let hold = &told(&world).differences[0].hold;
    assert_eq!(*hold, Some(Hold::Limit(Some(plan.hash.clone()))));
    let limited = &world.tailnet_report.limited;
    assert_eq!(limited.len(), 1);
    assert_eq!((&limited[0].policy, limited[0].devices), (&key, 100));
    assert_eq!(limited[0].hash.as_ref(), Some(&plan.hash));

    // While it is held, nothing is told again and again, and small repairs go on.
    world.forget_seen();
    world.run_for(Duration::from_mins(10));
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    world.model.devices.get_mut(&node_id(500)).unwrap().tags = [tag("tag:y")].into();
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world), [node_id(500)].into());

    // Too large for any hour: time alone does not release it.
    world.run_for(HOUR * 3);
    assert_eq!(changed(&world).len(), 1);
    assert_eq!(world.hash(&key), plan.hash);
}

#[test]
fn an_approval_on_the_tailnet_lets_the_frozen_plan_go_over_the_limit_once() {
    let mut world = mistake_and_repair();
    let key = policy_key(0);
    let hash = world.hash(&key);
    // On the policy it is worth nothing.
    world.approve(&key, &format!("plan:{hash}"));
    world.run_for(SOON);
    assert_eq!(changed(&world).len(), 1);
    assert!(world.last_reports[&key].approval_faults[0].contains("on the TailscaleTailnet"));

    approve_on_tailnet(&mut world, &format!("plan:{hash}"));
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world).len(), 101);
    world.assert_converged();
    assert_eq!(world.policies[&key].memory.approvals_used, 1);
    assert!(world.tailnet_report.approval_faults.is_empty());

    // It counts: another device is not changed within the hour, those that were changed are.
    let mut joins = device(600);
    joins.tags = [tag("tag:s")].into();
    world.model.add(joins);
    world.model.devices.get_mut(&node_id(7)).unwrap().tags = [tag("tag:s")].into();
    world.forget_seen();
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world), [node_id(7)].into());
    assert_eq!(world.held(&key).devices, 1);
    world.run_for(HOUR);
    assert_eq!(changed(&world), [node_id(7), node_id(600)].into());
    world.assert_converged();
    assert!(world.tailnet_report.limited.is_empty());
}

#[test]
fn raising_the_limit_releases_what_is_held() {
    let mut world = mistake_and_repair();
    world.settings.limit = ChangeLimit::NONE;
    world.step(Input::Settings(world.settings.clone()));
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world).len(), 101);
    world.assert_converged();
}

#[test]
fn what_was_changed_within_the_hour_counts_after_a_restart() {
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

#[test]
fn a_call_that_is_refused_for_good_uses_nothing_up() {
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

/// Whatever happens but a crash: within no hour more devices are changed than the limit allows.
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
        let wished = |number: u8| {
            tags(&[
                "tag:s",
                ["tag:a", "tag:b", "tag:c"][usize::from(number % 3)],
            ])
        };
        let mut changes: Vec<(Duration, NodeId)> = Vec::new();
        for _ in 0..40 {
            let number = world.rng.u8(..12);
            match world.rng.u8(..6) {
                0 => world.apply(fleet(wished(number))),
                1..=2 => world.apply(Policy {
                    priority: i32::from(number % 2),
                    ..policy(1 + usize::from(number % 11), wished(number))
                }),
                3 => world.delete(&policy_key(0)),
                4 => world.new_faults(),
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
                world.run_for(Duration::from_secs(10));
                let now = world.clock;
                let latest = std::mem::take(&mut world.model.changed);
                changes.extend(latest.into_iter().map(|id| (now, id)));
            }
        }
        for (begin, _) in &changes {
            // A call is seen up to some seconds after it was sent.
            let end = *begin + Duration::from_mins(59);
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
