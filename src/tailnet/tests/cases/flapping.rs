//! Machines that keep changing their hostname between the selectors of two fleets.
use std::time::Duration;

use super::{
    World,
    builders::{attributes, blank, key, policy_key, world},
    model::node_id,
};
use crate::{
    model::Tag,
    plan::{Glob, Policy, PolicyKey, Selector, Target},
    tailnet::{Notification, SelectorReport, State},
};

const POLL: Duration = Duration::from_mins(1);

/// A policy for machines whose hostname matches, among those with `tag:s`.
fn fleet(number: usize, pattern: &str) -> Policy {
    Policy {
        target: Target::Selector(Selector {
            tags: [tag()].into(),
            hostnames: vec![Glob::of_folded(pattern)],
            ..Selector::default()
        }),
        desired: attributes(&[("tier", &pattern[..1])]),
        ..blank(policy_key(number))
    }
}

fn tag() -> Tag {
    "tag:s".parse().unwrap()
}

fn call_itself(world: &mut World, hostname: &str) {
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    hostname.clone_into(&mut device.hostname);
}

/// One machine and two fleets that select it by its hostname.
fn two_fleets() -> World {
    let mut world = world(1);
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [tag()].into();
    call_itself(&mut world, "a-1");
    world.apply(fleet(0, "a-*"));
    world.apply(fleet(1, "b-*"));
    world.start();
    world.run_for(Duration::from_mins(5));
    world.clear_seen();
    world
}

fn flap(world: &mut World, polls: usize) {
    for poll in 0..polls {
        call_itself(world, if poll % 2 == 0 { "b-1" } else { "a-1" });
        world.run_for(POLL);
    }
}

fn reported(world: &World, key: &PolicyKey) -> SelectorReport {
    match &world.last_reports[key].state {
        State::Selector(report) => (**report).clone(),
        state => panic!("{state:?}"),
    }
}

/// For each fleet: how many machines match, and whether it reports one that keeps moving.
fn places(world: &World) -> [(usize, bool); 2] {
    [0, 1].map(|number| {
        let report = reported(world, &policy_key(number));
        (report.matched, report.flapping.is_some())
    })
}

#[test]
fn a_machine_that_changes_its_hostname_at_every_poll_costs_three_moves_an_hour_and_one_event() {
    let mut world = two_fleets();
    flap(&mut world, 6);
    let moves = world.writes().len();
    assert!((1..=3).contains(&moves), "{:#?}", world.writes());
    assert_eq!(places(&world).map(|(_, flapping)| flapping), [true; 2]);
    let message = world.seen.notifications.iter();
    let message = message.filter(|(_, message)| matches!(message, Notification::Flapping { .. }));
    assert_eq!(message.count(), 2, "once for each fleet");
    assert_eq!(world.tailnet_report.flapping, 2);
    // From then on the flapping costs nothing.
    world.clear_seen();
    flap(&mut world, 180);
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    assert!(world.seen.notifications.is_empty());
    // The flapping stops. After a quarter of an hour the machine joins the fleet that it matches.
    call_itself(&mut world, "b-1");
    world.run_for(Duration::from_mins(10));
    assert!(world.writes().is_empty());
    world.run_for(Duration::from_mins(10));
    assert_eq!(places(&world), [(0, false), (1, false)]);
    assert_eq!(world.tailnet_report.flapping, 0);
    let tier = &world.model.attributes[&node_id(0)][&key("tier")];
    assert_eq!(tier.value, serde_json::json!("b"));
    world.assert_converged();
    // An hour later it may move at once again.
    world.run_for(Duration::from_hours(1));
    call_itself(&mut world, "a-1");
    world.run_for(Duration::from_mins(3));
    assert_eq!(places(&world), [(1, false), (0, false)]);
}

/// The control server's facts about a device apply at once: flapping keeps no device in a fleet.
#[test]
fn a_tag_that_is_taken_ends_the_membership_of_a_machine_that_keeps_moving() {
    let mut world = two_fleets();
    flap(&mut world, 9);
    assert_eq!(places(&world).map(|(_, flapping)| flapping), [true; 2]);
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags.clear();
    world.run_for(Duration::from_mins(2));
    assert_eq!(places(&world), [(0, false), (0, false)]);
    assert_eq!(world.tailnet_report.flapping, 0);
    // Nor do moves by tags keep the machine in its fleet.
    for _ in 0..10 {
        for tags in [vec![tag()], Vec::new()] {
            let device = world.model.devices.get_mut(&node_id(0)).unwrap();
            device.tags = tags.into_iter().collect();
            world.run_for(Duration::from_mins(2));
        }
    }
    assert_eq!(places(&world), [(0, false), (0, false)]);
}

#[test]
fn an_edit_and_a_list_that_lacks_the_machine_are_no_moves() {
    let mut world = two_fleets();
    for round in 0..8 {
        world.apply(fleet(0, if round % 2 == 0 { "none-*" } else { "a-*" }));
        world.run_for(Duration::from_mins(2));
        world.model.short = [[node_id(0)].into()].into();
        world.run_for(Duration::from_mins(2));
    }
    assert_eq!(places(&world), [(1, false), (0, false)]);
    world.assert_converged();
}

#[test]
fn a_policy_that_is_edited_or_deleted_counts_no_device_that_keeps_moving() {
    let mut world = two_fleets();
    flap(&mut world, 9);
    world.apply(fleet(0, "a-*"));
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.tailnet_report.flapping, 1);
    world.delete(&policy_key(1));
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.tailnet_report.flapping, 0);
}
