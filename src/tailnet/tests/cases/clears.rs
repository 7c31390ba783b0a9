//! `deletionPolicy: Clear`: released devices and deleted policies.
use std::time::Duration;

use super::{
    CLEAR_TIMEOUT, World,
    builders::{SOON, attributes, blank, hostname, key, policy_key, string, world},
    model::node_id,
};
use crate::{
    model::{NodeId, Reason, ReportedAttribute, Route, RouteSet, SettingValue, Tag},
    plan::{
        Deletion, DesiredSettings, ListOwnership, MAX_MANAGED, Mode, Ownership, Policy, Selector,
        Suspender, Target,
    },
    tailnet::{Failure, Input, Retry, State},
};

const SETS: [&str; 2] = ["10.0.0.0/16", "10.1.0.0/16"];

fn tag(tag: &str) -> Tag {
    tag.parse().unwrap()
}

fn routes(routes: &[&str]) -> RouteSet {
    let reported = routes.iter().map(|route| Route::reported(route).unwrap());
    reported.collect()
}

/// An attribute, a subnet route, an exit node, and settings that are never cleared.
fn desired() -> DesiredSettings {
    DesiredSettings {
        tags: Some([tag("tag:s"), tag("tag:a")].into()),
        settings: [SettingValue::KeyExpiryDisabled(true)].into(),
        enabled_routes: Some(routes(&SETS[..1])),
        exit_node: Some(true),
        ..attributes(&[("a", "gold")])
    }
}

pub fn single(number: usize, of: usize) -> Policy {
    Policy {
        target: hostname(&format!("host-{of}")),
        desired: desired(),
        deletion: Deletion::Clear,
        ownership: Ownership {
            enabled_routes: ListOwnership::AtLeast,
            ..Ownership::default()
        },
        ..blank(policy_key(number))
    }
}

/// A policy for all devices with `tag:s`.
pub fn fleet() -> Policy {
    let selector = Selector {
        tags: [tag("tag:s")].into(),
        ..Selector::default()
    };
    Policy {
        target: Target::Selector(selector),
        ..single(0, 0)
    }
}

/// Servers with a route and an attribute that no policy declares.
pub fn servers(count: usize) -> World {
    let mut world = world(count);
    for device in world.model.devices.values_mut() {
        device.tags = [tag("tag:s")].into();
        device.enabled_routes = Some(routes(&SETS[1..]));
    }
    for attributes in world.model.attributes.values_mut() {
        let value = ReportedAttribute {
            value: string("kept").to_json(),
            expiry: None,
        };
        attributes.insert(key("b"), value);
    }
    world
}

pub fn settled(count: usize, policy: Policy) -> World {
    let mut world = servers(count);
    world.apply(policy);
    world.start();
    world.run_until(Duration::from_mins(3));
    world.assert_converged();
    world.clear_seen();
    world
}

fn has_all(world: &World, id: &NodeId) -> bool {
    let exit = Route::exit_node().into_iter();
    let all: RouteSet = routes(&SETS).into_iter().chain(exit).collect();
    world.model.devices[id].enabled_routes == Some(all)
        && world.model.attributes[id].keys().eq([&key("a"), &key("b")])
}

/// Whether the settings of the policy are gone and all others are still there.
pub fn is_clear(world: &World, id: &NodeId) -> bool {
    let device = &world.model.devices[id];
    assert!(device.key_expiry_disabled && device.tags.contains(&tag("tag:a")));
    device.enabled_routes == Some(routes(&SETS[1..]))
        && world.model.attributes[id].keys().eq([&key("b")])
}

pub fn still_exists(world: &World) -> bool {
    world.policies.contains_key(&policy_key(0))
}

/// The last report of the deleted policy: how many devices were left uncleared, and why.
pub fn left_behind(world: &World) -> Option<(usize, String)> {
    let (_, report) = world.seen.ends.last().expect("no policy was released");
    let State::Deleting(abandoned) = &report.state else {
        panic!("{report:?}");
    };
    let abandoned = abandoned.as_ref();
    abandoned.map(|abandoned| (abandoned.total, abandoned.why.clone()))
}

#[test]
fn a_deleted_policy_clears_its_settings_before_it_goes() {
    let mut world = settled(1, single(0, 0));
    assert!(has_all(&world, &node_id(0)));
    world.delete(&policy_key(0));
    world.run_for(SOON);
    assert!(is_clear(&world, &node_id(0)));
    assert!(!still_exists(&world));
    assert_eq!(left_behind(&world), None);
    assert_eq!(world.writes().len(), 2, "{:?}", world.writes());
    world.clear_seen();
    world.run_for(Duration::from_mins(30));
    assert!(world.writes().is_empty());
}

#[test]
fn under_retain_nothing_is_sent_and_the_deletion_is_immediate() {
    let policy = Policy {
        deletion: Deletion::Retain,
        ..single(0, 0)
    };
    let mut world = settled(1, policy);
    world.delete(&policy_key(0));
    assert!(!still_exists(&world));
    world.run_for(Duration::from_mins(5));
    assert!(world.writes().is_empty());
    assert!(has_all(&world, &node_id(0)));
}

#[test]
fn a_policy_edited_to_retain_no_longer_records_devices() {
    let mut world = settled(2, fleet());
    assert_eq!(world.policies[&policy_key(0)].record.managed.nodes.len(), 2);
    world.apply(Policy {
        deletion: Deletion::Retain,
        ..fleet()
    });
    world.run_for(SOON);
    world.assert_converged();
    assert!(world.policies[&policy_key(0)].record.managed.is_empty());
    assert!(world.writes().is_empty());
}

#[test]
fn devices_that_leave_the_selection_are_cleared_and_others_are_not() {
    let mut world = settled(3, fleet());
    let leaves = world.model.devices.get_mut(&node_id(1)).unwrap();
    leaves.tags = [tag("tag:a")].into();
    world.run_for(Duration::from_mins(2));
    world.assert_converged();
    assert!(is_clear(&world, &node_id(1)));
    assert!(has_all(&world, &node_id(0)) && has_all(&world, &node_id(2)));
    assert_eq!(world.writes().len(), 2, "{:?}", world.writes());
}

#[test]
fn a_device_on_which_the_expression_fails_is_not_cleared() {
    let mut policy = fleet();
    let Target::Selector(selector) = &mut policy.target else {
        unreachable!("a fleet");
    };
    selector.expression = Some("device.lastSeen > '2000'".parse().unwrap());
    let mut world = servers(2);
    let seen = "2026-01-01T00:00:00Z".parse().ok();
    for device in world.model.devices.values_mut() {
        device.last_seen = seen;
    }
    world.apply(policy);
    world.start();
    world.run_until(Duration::from_mins(3));
    assert!(has_all(&world, &node_id(0)));
    world.clear_seen();
    world.model.devices.get_mut(&node_id(0)).unwrap().last_seen = None;
    world.run_for(Duration::from_mins(5));
    world.kill();
    world.run_for(Duration::from_mins(5));
    assert!(world.writes().is_empty(), "{:?}", world.writes());

    // Now the expression works, and the device does not match.
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.last_seen = "1999-01-01T00:00:00Z".parse().ok();
    world.run_for(Duration::from_mins(2));
    world.assert_converged();
    assert!(is_clear(&world, &node_id(0)));
    assert!(has_all(&world, &node_id(1)));
}

#[test]
fn a_device_that_the_spec_no_longer_names_is_cleared_of_the_earlier_settings() {
    let mut world = settled(2, single(0, 0));
    let mut other = single(0, 1);
    other.desired = attributes(&[("b", "silver"), ("c", "gold")]);
    world.apply(other);
    world.run_for(SOON);
    world.assert_converged();
    assert!(is_clear(&world, &node_id(0)));
    let keys = world.model.attributes[&node_id(1)].keys();
    assert!(keys.eq([&key("b"), &key("c")]));
}

#[test]
fn a_name_that_no_device_has_releases_nothing() {
    let mut world = settled(1, single(0, 0));
    world.apply(single(0, 99));
    world.run_for(Duration::from_mins(5));
    assert!(world.writes().is_empty());
    world.delete(&policy_key(0));
    world.run_for(SOON);
    assert!(is_clear(&world, &node_id(0)));
}

#[test]
fn settings_that_another_policy_declares_stay() {
    let mut world = settled(1, single(0, 0));
    world.apply(Policy {
        desired: DesiredSettings {
            exit_node: Some(true),
            enabled_routes: Some(routes(&SETS[..1])),
            ..attributes(&[("a", "gold")])
        },
        deletion: Deletion::Retain,
        ..single(1, 0)
    });
    world.run_for(SOON);
    world.delete(&policy_key(0));
    world.run_for(SOON);
    assert!(!still_exists(&world));
    assert!(world.writes().is_empty());
    assert!(has_all(&world, &node_id(0)));
}

#[test]
fn a_policy_that_sends_nothing_clears_nothing_and_goes_at_once() {
    for (mode, why) in [
        (
            Mode::Suspended(Suspender::Policy),
            "the policy is suspended",
        ),
        (Mode::Observe, "the policy only observes"),
    ] {
        let mut world = settled(1, single(0, 0));
        world.apply(Policy {
            mode,
            ..single(0, 0)
        });
        world.run_for(SOON);
        assert!(world.writes().is_empty());
        world.delete(&policy_key(0));
        world.run_for(Duration::from_secs(3));
        assert!(!still_exists(&world), "{mode:?}");
        assert_eq!(left_behind(&world), Some((1, why.to_owned())));
        world.run_for(Duration::from_mins(5));
        assert!(world.writes().is_empty());
    }
}

#[test]
fn a_device_that_left_the_tailnet_does_not_delay_the_deletion() {
    let mut world = settled(1, single(0, 0));
    world.model.remove(&node_id(0));
    world.run_for(Duration::from_mins(2));
    world.delete(&policy_key(0));
    world.run_for(Duration::from_mins(2));
    assert!(!still_exists(&world));
    assert_eq!(left_behind(&world), None);
    assert!(world.writes().is_empty());
}

#[test]
fn one_list_without_a_device_does_not_count_it_as_cleared() {
    let mut world = settled(1, single(0, 0));
    world.model.left_out = Some(node_id(0));
    world.delete(&policy_key(0));
    // The first list without it.
    let lists = |world: &World| world.count(|r| matches!(r, crate::tailnet::Request::Devices));
    while lists(&world) < 1 {
        world.run_for(Duration::from_millis(10));
    }
    world.run_for(Duration::from_millis(450));
    world.model.left_out = None;
    world.run_for(SOON);
    assert!(!still_exists(&world));
    assert!(is_clear(&world, &node_id(0)));
}

#[test]
fn a_removed_tailnet_ends_the_deletion_at_once() {
    let mut world = settled(2, fleet());
    world.step(Input::connection(Err(Failure {
        reason: Reason::TailnetNotFound,
        message: "There is no TailscaleTailnet 'default'.".to_owned(),
        retry: Retry::Later,
        unknown_outcome: false,
    })));
    world.delete(&policy_key(0));
    world.run_for(Duration::from_secs(3));
    assert!(!still_exists(&world));
    let why = "There is no TailscaleTailnet 'default'.".to_owned();
    assert_eq!(left_behind(&world), Some((2, why)));
}

#[test]
fn clearing_that_always_fails_is_given_up_after_the_timeout() {
    let mut world = settled(3, fleet());
    world.model.broken = Some(node_id(2));
    world.delete(&policy_key(0));
    world.run_for(CLEAR_TIMEOUT.saturating_sub(Duration::from_secs(5)));
    assert!(still_exists(&world));
    let report = &world.last_reports[&policy_key(0)];
    let clearing = report.clearing.as_ref().unwrap();
    assert_eq!(clearing.left, 1);
    assert!(clearing.blocker.is_some());
    world.run_for(Duration::from_secs(10));
    assert!(!still_exists(&world));
    let (total, why) = left_behind(&world).unwrap();
    assert_eq!(total, 1);
    assert!(why.contains("name-2"), "{why}");
    for cleared in [0, 1] {
        assert!(is_clear(&world, &node_id(cleared)));
    }
}

#[test]
fn an_unreachable_tailnet_is_given_up_after_the_timeout() {
    let mut world = settled(1, single(0, 0));
    world.faults.list_down = true;
    world.kill();
    world.delete(&policy_key(0));
    world.run_for(CLEAR_TIMEOUT.saturating_sub(Duration::from_secs(5)));
    assert!(still_exists(&world));
    world.run_for(Duration::from_secs(10));
    assert!(!still_exists(&world));
    assert_eq!(left_behind(&world).map(|(total, _)| total), Some(1));
}

#[test]
fn a_device_that_comes_back_while_it_is_cleared_is_as_declared_again() {
    let mut world = settled(1, fleet());
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [tag("tag:a")].into();
    world.model.broken = Some(node_id(0));
    world.run_for(Duration::from_mins(3));
    world.model.broken = None;
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [tag("tag:a"), tag("tag:s")].into();
    world.run_for(Duration::from_mins(10));
    world.assert_converged();
    assert!(has_all(&world, &node_id(0)));
}

#[test]
fn more_devices_than_a_status_can_record_are_refused_and_untouched() {
    let desired = attributes(&[("a", "gold")]);
    let policy = Policy { desired, ..fleet() };
    let mut world = servers(MAX_MANAGED + 1);
    world.apply(policy.clone());
    world.start();
    world.run_for(Duration::from_secs(20));
    let state = &world.last_reports[&policy_key(0)].state;
    assert_eq!(*state, State::TooMany(MAX_MANAGED + 1));
    assert!(world.writes().is_empty());
    world.model.remove(&node_id(MAX_MANAGED));
    let end = world.clock + Duration::from_mins(2);
    let kept = |world: &World| world.policies[&policy_key(0)].record.managed.nodes.len();
    while kept(&world) == 0 && world.clock < end {
        world.run_for(Duration::from_millis(100));
    }
    assert_eq!(kept(&world), MAX_MANAGED);
    let state = &world.last_reports[&policy_key(0)].state;
    assert!(matches!(state, State::Selector(_)), "{state:?}");
}

#[test]
fn a_thousand_devices_are_cleared_of_an_attribute_in_twenty_batches() {
    let desired = attributes(&[("a", "gold")]);
    let mut world = settled(1000, Policy { desired, ..fleet() });
    world.delete(&policy_key(0));
    world.run_for(Duration::from_mins(5));
    assert!(!still_exists(&world));
    let left = |id| world.model.attributes[id].contains_key(&key("a"));
    assert!(!world.model.devices.keys().any(left));
    assert_eq!(world.writes().len(), 20);
    let reports = world.seen.reports.len();
    assert!(reports <= 10, "{reports} reports");
}

#[test]
fn a_device_that_leaves_the_selection_with_the_first_list_of_a_term_is_cleared() {
    let mut world = settled(3, fleet());
    world.end_term();
    let device = world.model.devices.get_mut(&node_id(1)).unwrap();
    device.tags = [tag("tag:a"), tag("tag:u")].into();
    world.start_term();
    world.run_for(SOON);
    assert!(is_clear(&world, &node_id(1)));
    assert!(has_all(&world, &node_id(0)) && has_all(&world, &node_id(2)));
}
