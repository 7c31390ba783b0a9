//! Lists that lack existing devices: the counts of a fleet, and the content of a frozen plan.

use std::{collections::BTreeSet, time::Duration};

use super::{
    World,
    builders::{fleet, policy, policy_key, servers, tag, tags, world},
    fleets::reported,
    model::node_id,
    short_lists::A_WHILE,
};
use crate::{
    model::ChangeLimit,
    plan::{Call, Mode, Policy},
    tailnet::{Request, State},
};

/// Four servers that one policy would give `tag:a` after an approval.
fn frozen(policy: Policy) -> World {
    let mut world = servers(8);
    for number in 4..8 {
        let device = world.model.devices.get_mut(&node_id(number)).unwrap();
        device.tags = [tag("tag:other")].into();
    }
    world.apply(policy);
    world.start();
    world.run_for(A_WHILE);
    let plan = world.held(&policy_key(0));
    assert_eq!((plan.changes, plan.devices, plan.open), (4, 4, 4));
    world
}

fn with_approval() -> Policy {
    Policy {
        mode: Mode::Approve,
        ..fleet(tags(&["tag:s", "tag:a"]))
    }
}

#[test]
fn a_frozen_plan_is_the_same_whatever_lists_lack() {
    for lists in [1, 2, 6] {
        for restarts in [false, true] {
            let mut world = frozen(with_approval());
            let plan = world.held(&policy_key(0));
            world.lack(lists, [0, 1]);
            if restarts && lists == 1 {
                world.kill();
            }
            world.run_past_short_lists();
            assert_eq!(world.held(&policy_key(0)), plan);
            world.approve(&policy_key(0), &format!("plan:{}", plan.hash));
            world.run_for(A_WHILE);
            assert_eq!(world.writes().len(), 4, "{lists} lists");
            world.assert_converged();
        }
    }
}

#[test]
fn a_plan_approved_while_lists_lack_a_part_is_sent_once_they_are_complete() {
    let mut world = frozen(with_approval());
    let plan = world.held(&policy_key(0));
    world.lack(5, [0, 1]);
    world.run_for(Duration::from_secs(90));
    world.approve(&policy_key(0), &format!("plan:{}", plan.hash));
    world.run_for(Duration::from_secs(30));
    let sent = world.writes().into_iter().flat_map(Call::nodes);
    assert_eq!(sent.collect::<BTreeSet<_>>().len(), 2);
    world.run_past_short_lists();
    world.run_for(A_WHILE);
    assert_eq!(world.writes().len(), 4);
    world.assert_converged();
}

#[test]
fn devices_that_leave_a_frozen_plan_are_reported_and_the_hash_stays() {
    let mut world = frozen(with_approval());
    let plan = world.held(&policy_key(0));
    world.model.remove(&node_id(0));
    world.run_for(A_WHILE);
    let now = world.held(&policy_key(0));
    assert_eq!((&now.hash, now.changes, now.devices), (&plan.hash, 4, 4));
    assert_eq!(now.open, 3);
    assert_eq!(reported(&world).matched, 3);
    world.approve(&policy_key(0), &format!("plan:{}", plan.hash));
    world.run_for(A_WHILE);
    assert_eq!(world.writes().len(), 3);
    world.assert_converged();
}

#[test]
fn a_fleet_counts_a_device_until_it_is_proven_gone() {
    let mut world = servers(30);
    world.apply(fleet(tags(&["tag:s"])));
    world.start();
    world.run_for(A_WHILE);
    world.clear_seen();
    for lists in [1, 2, 4] {
        world.lack(lists, 0..15);
        world.run_past_short_lists();
        world.run_for(A_WHILE);
    }
    let counted = world.seen.reports.iter().map(|(_, report)| &report.state);
    let mut counted = counted.filter_map(|state| match state {
        State::Selector(fleet) => Some(fleet.matched),
        _ => None,
    });
    assert!(counted.all(|matched| matched == 30));
    world.model.remove(&node_id(0));
    world.run_for(Duration::from_mins(2));
    assert_eq!(reported(&world).matched, 29);
    assert_eq!(world.lookups(0), 3);
}

#[test]
fn one_half_list_of_a_large_tailnet_costs_one_more_list_and_no_reads() {
    let mut world = servers(1_000);
    world.apply(fleet(tags(&["tag:s"])));
    world.start();
    world.run_for(A_WHILE);
    world.clear_seen();
    world.lack(1, 0..500);
    world.run_for(Duration::from_mins(10));
    let lists = world.count(|request| *request == Request::Devices);
    assert!(lists <= 12, "{lists} lists");
    assert_eq!(world.seen.requests.len(), lists);
    assert!(world.seen.reports.is_empty() && world.seen.notifications.is_empty());
}

#[test]
fn a_device_that_no_policy_targets_is_dropped_without_a_read() {
    let mut world = world(20);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.run_for(A_WHILE);
    world.clear_seen();
    world.model.remove(&node_id(5));
    world.run_for(A_WHILE);
    assert_eq!(
        world.count(|request| matches!(request, Request::Device(_))),
        0
    );
    assert_eq!(world.tailnet_report.devices, Some(19));
}

#[test]
fn short_lists_do_not_change_how_many_devices_may_be_changed() {
    // A tenth of 100 devices: ten may be changed.
    let mut world = servers(100);
    world.limit(ChangeLimit::default());
    world.apply(fleet(tags(&["tag:s"])));
    world.start();
    world.run_for(A_WHILE);
    world.lack(3, 50..100);
    world.run_for(Duration::from_secs(70));
    for number in 0..8 {
        let device = world.model.devices.get_mut(&node_id(number)).unwrap();
        device.tags.insert(tag("tag:x"));
    }
    world.run_past_short_lists();
    assert_eq!(world.tailnet_report.limited_total, 0);
    assert_eq!(world.tailnet_report.devices, Some(100));
    world.run_for(A_WHILE);
    assert_eq!(world.writes().len(), 8);
}
