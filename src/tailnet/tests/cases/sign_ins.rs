//! Fleets that lose a device because someone has signed in on it again.

use std::time::Duration;

use super::{World, builders, model::node_id};
use crate::{
    plan::Policy,
    tailnet::{Notification, Request},
};

fn attribute() -> crate::plan::DesiredSettings {
    builders::attributes(&[("a", "1")])
}

/// Two servers that a policy manages.
fn managed(policy: Policy) -> World {
    let mut world = builders::servers(2);
    world.apply(policy);
    world.start();
    world.run_for(Duration::from_mins(5));
    world.clear_seen();
    world
}

fn sign_in(world: &mut World) {
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags.clear();
    device.user = "eve@example.com".to_owned();
}

fn has_attribute(world: &World) -> bool {
    !world.model.attributes[&node_id(0)].is_empty()
}

/// Runs until the attribute is gone. Returns the number of lists until then.
fn lists_until_cleared(world: &mut World) -> usize {
    world.clear_seen();
    let end = world.clock + Duration::from_hours(1);
    while has_attribute(world) {
        assert!(world.clock < end, "the device is never cleared");
        world.run_for(Duration::from_secs(1));
    }
    world.count(|request| *request == Request::Devices)
}

fn sign_ins(world: &World) -> Vec<bool> {
    let sign_ins = world.seen.notifications.iter();
    let sign_ins = sign_ins.filter_map(|(_, notification)| match notification {
        Notification::SignedIn {
            node, is_cleared, ..
        } => {
            assert_eq!(*node, node_id(0));
            Some(*is_cleared)
        }
        _ => None,
    });
    sign_ins.collect()
}

#[test]
fn a_device_of_a_new_owner_is_reported_once_and_cleared_after_two_more_lists() {
    let mut world = managed(builders::clearing(attribute()));
    sign_in(&mut world);
    let lists = lists_until_cleared(&mut world);
    // One shows it first, and two confirm it.
    assert!((3..=4).contains(&lists), "{lists} lists");
    world.run_for(Duration::from_hours(2));
    assert_eq!(sign_ins(&world), [true]);
    world.assert_converged();
}

#[test]
fn a_restart_confirms_nothing() {
    let mut world = managed(builders::clearing(attribute()));
    sign_in(&mut world);
    world.run_for(Duration::from_secs(90));
    world.kill();
    assert!((3..=4).contains(&lists_until_cleared(&mut world)));
}

#[test]
fn a_device_that_gets_its_tags_again_is_managed_as_before() {
    let mut world = managed(builders::clearing(attribute()));
    sign_in(&mut world);
    world.run_for(Duration::from_secs(90));
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [builders::tag("tag:s")].into();
    world.run_for(Duration::from_mins(10));
    assert!(world.writes().is_empty(), "{:?}", world.writes());
    assert_eq!(sign_ins(&world), [true]);
    // It still owns the key: without it in the manifest, the key is deleted.
    world.apply(builders::clearing(builders::attributes(&[("b", "1")])));
    world.run_for(Duration::from_mins(10));
    assert!(!world.model.attributes[&node_id(0)].contains_key(&builders::key("a")));
    world.assert_converged();
}

#[test]
fn under_retain_it_is_reported_and_nothing_is_sent() {
    let mut world = managed(builders::fleet(attribute()));
    sign_in(&mut world);
    world.run_for(Duration::from_hours(1));
    assert_eq!(sign_ins(&world), [false]);
    assert!(world.writes().is_empty() && has_attribute(&world));
}

#[test]
fn a_device_that_gets_another_tag_is_cleared_at_once() {
    let mut world = managed(builders::clearing(attribute()));
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [builders::tag("tag:x")].into();
    assert!(lists_until_cleared(&mut world) <= 2);
    assert!(sign_ins(&world).is_empty());
}
