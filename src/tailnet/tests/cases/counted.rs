//! The exact requests of runs without failures.

use std::{collections::BTreeMap, time::Duration};

use super::{
    World,
    builders::{SOON, attributes, key, policy, policy_key, tags, world},
    model::node_id,
};
use crate::{
    model::{Device, ReportedAttribute, Route, SettingValue},
    plan::{Call, DesiredSettings, ListOwnership, Mode, Ownership, Policy, PolicyKey, Suspender},
    tailnet::{Input, Request},
};

/// The requests since the last count, by kind: lists, reads of devices, reads of routes, reads of
/// attributes, writes.
pub fn counts(world: &World) -> [usize; 5] {
    [
        world.count(|request| matches!(request, Request::Devices)),
        world.count(|request| matches!(request, Request::Device(_))),
        world.count(|request| matches!(request, Request::Routes(_))),
        world.count(|request| matches!(request, Request::Attributes(_))),
        world.count(|request| matches!(request, Request::Write(_))),
    ]
}

/// With nothing to change, a poll is one list, and nothing is reported.
pub fn assert_idle(world: &mut World) {
    world.clear_seen();
    world.run_for(Duration::from_mins(3));
    let [lists, rest @ ..] = counts(world);
    assert!((2..=4).contains(&lists), "{lists} lists in three minutes");
    assert_eq!(rest, [0; 4]);
    assert!(world.seen.reports.is_empty());
}

fn kinds(world: &World) -> Vec<&'static str> {
    let kind = |call: &&Call| match call {
        Call::Set(_, SettingValue::Authorized(false)) => "deauthorize",
        Call::Set(_, SettingValue::Authorized(true)) => "authorize",
        Call::SetTags(..) => "tags",
        Call::Set(_, SettingValue::KeyExpiryDisabled(_)) => "key",
        Call::WriteAttributes(_) => "attributes",
        Call::SetRoutes(..) => "routes",
        Call::Set(_, SettingValue::Name(_)) => "name",
        Call::Set(_, SettingValue::Ipv4(_)) => "ip",
        Call::ExpireKey(_) => "expire",
        Call::Delete(_) => "delete",
    };
    world.writes().iter().map(kind).collect()
}

pub fn everything() -> DesiredSettings {
    DesiredSettings {
        settings: [
            SettingValue::Authorized(true),
            SettingValue::KeyExpiryDisabled(true),
            SettingValue::Name("desired".parse().unwrap()),
            SettingValue::Ipv4("100.81.0.1".parse().unwrap()),
        ]
        .into(),
        tags: Some(["tag:a".parse().unwrap()].into()),
        enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
        exit_node: Some(true),
        ..attributes(&[("a", "gold"), ("b", "gold")])
    }
}

#[test]
fn each_setting_costs_one_request_in_the_safe_order() {
    let mut world = world(1);
    world.model.devices.get_mut(&node_id(0)).unwrap().authorized = false;
    world.start();
    world.run_for(Duration::from_secs(1));
    world.apply(policy(0, everything()));
    world.run_until(SOON);
    world.assert_converged();
    let order = [
        "tags",
        "key",
        "attributes",
        "routes",
        "name",
        "ip",
        "authorize",
    ];
    assert_eq!(kinds(&world), order);
    // One read after the tags, and one to verify. Attributes are read before and after.
    assert_eq!(counts(&world), [2, 2, 0, 2, 7]);
    // Reports: a second list precedes the binding of a name; the record has the device before the first
    // request, and the keys before the request that sets them; the outcome follows the last request.
    assert_eq!(world.seen.reports.len(), 4);
    assert_eq!(world.seen.notifications.len(), 9);
}

#[test]
fn unmanaged_routes_are_read_before_a_write_carries_them() {
    let mut world = world(1);
    let exit_node = |device: &mut Device| device.enabled_routes = Some(Route::exit_node());
    exit_node(world.model.devices.get_mut(&node_id(0)).unwrap());
    let desired = DesiredSettings {
        enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
        ..DesiredSettings::default()
    };
    world.apply(policy(0, desired));
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    assert_eq!(counts(&world), [2, 1, 1, 0, 1]);
    let routes = world.model.devices[&node_id(0)]
        .enabled_routes
        .clone()
        .unwrap();
    assert!(routes.is_superset(&Route::exit_node()) && routes.len() == 3);
}

#[test]
fn a_route_and_a_tag_given_a_moment_before_survive_what_only_adds() {
    let mut world = world(1);
    let desired = DesiredSettings {
        enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
        exit_node: Some(false),
        ..tags(&["tag:a"])
    };
    let ownership = Ownership {
        tags: ListOwnership::AtLeast,
        enabled_routes: ListOwnership::AtLeast,
        ..Ownership::default()
    };
    world.start();
    world.run_for(Duration::from_secs(1));
    // Since the list, someone has approved a route and added a tag.
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags.insert("tag:b".parse().unwrap());
    device.enabled_routes = Some(["10.1.0.0/16".parse().unwrap()].into());
    world.apply(Policy {
        ownership,
        ..policy(0, desired)
    });
    world.run_until(SOON);
    world.assert_converged();
    // One read before the tags, one of the routes before the routes, and one to verify.
    assert_eq!(counts(&world), [2, 2, 1, 0, 2]);
    let device = &world.model.devices[&node_id(0)];
    assert_eq!(device.tags.len(), 2);
    assert_eq!(device.enabled_routes.as_ref().unwrap().len(), 2);
}

#[test]
fn nothing_is_sent_for_a_suspended_policy_and_no_other_takes_its_field() {
    let mut world = world(1);
    let first = Policy {
        mode: Mode::Suspended(Suspender::Policy),
        ..policy(0, tags(&["tag:a"]))
    };
    let second = Policy {
        key: policy_key(1),
        ..policy(0, tags(&["tag:b"]))
    };
    world.start();
    world.run_for(Duration::from_secs(1));
    world.apply(first.clone());
    world.run_for(Duration::from_secs(1));
    world.apply(second);
    world.run_until(SOON);
    world.assert_converged();
    assert!(world.writes().is_empty());
    world.apply(Policy {
        mode: Mode::Observe,
        ..first.clone()
    });
    world.run_for(SOON);
    world.assert_converged();
    let tags_are = |world: &World| world.model.devices[&node_id(0)].tags.clone();
    assert_eq!(tags_are(&world), ["tag:b".parse().unwrap()].into());
    world.apply(Policy {
        mode: Mode::Enforce,
        ..first
    });
    world.run_for(SOON);
    world.assert_converged();
    assert_eq!(tags_are(&world), ["tag:a".parse().unwrap()].into());
}

#[test]
fn a_changed_annotation_costs_one_poll_at_once_and_is_reported_as_handled() {
    let mut world = world(2);
    world.start();
    world.run_for(Duration::from_secs(1));
    world.apply(policy(0, attributes(&[("a", "gold")])));
    world.apply(policy(1, tags(&["tag:a"])));
    world.run_until(SOON);
    world.clear_seen();
    let key = policy_key(0);
    world.policies.get_mut(&key).unwrap().request = [Some("now".to_owned()), None];
    world.show_policy(&key);
    world.run_for(Duration::from_secs(2));
    assert_eq!(counts(&world), [1, 0, 0, 1, 0]);
    assert_eq!(world.policies[&key].record.handled.as_deref(), Some("now"));
    // The watch reports the policy again after each status write. That is no new request, nor is it one for
    // a new process.
    world.clear_seen();
    world.show_policy(&key);
    world.run_for(Duration::from_secs(2));
    assert_eq!(counts(&world), [0; 5]);
    world.kill();
    world.run_for(Duration::from_secs(5));
    assert_eq!(
        world.last_reports[&key].record.handled.as_deref(),
        Some("now")
    );
}

#[test]
fn two_hundred_policies_with_nothing_to_change_cost_one_list_each_poll() {
    let mut world = world(200);
    for number in 0..200 {
        let device = world.model.devices.get_mut(&node_id(number)).unwrap();
        device.tags = ["tag:a".parse().unwrap()].into();
        world.apply(policy(number, tags(&["tag:a"])));
    }
    world.start();
    world.run_until(SOON);
    assert_idle(&mut world);
}

#[test]
fn two_hundred_changed_devices_cost_one_request_each_and_one_list_to_verify() {
    let mut world = world(200);
    for number in 0..200 {
        world.apply(policy(number, tags(&["tag:a"])));
    }
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    assert_eq!(counts(&world), [3, 0, 0, 0, 200]);
}

#[test]
fn two_hundred_attributes_go_in_four_batches() {
    let mut world = world(200);
    for number in 0..200 {
        world.apply(policy(number, attributes(&[("a", "gold")])));
    }
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    assert_eq!(counts(&world), [2, 0, 0, 200, 4]);
    assert!(world.writes().iter().all(|call| call.nodes().len() == 50));
}

#[test]
fn a_key_that_is_no_longer_declared_is_deleted_and_then_no_longer_owned() {
    let mut world = world(1);
    world.apply(policy(0, attributes(&[("a", "gold"), ("b", "gold")])));
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    world.clear_seen();
    world.apply(policy(0, attributes(&[("a", "gold")])));
    world.run_for(SOON);
    world.assert_converged();
    assert_eq!(world.writes().len(), 1);
    let left: Vec<_> = world.model.attributes[&node_id(0)].keys().collect();
    assert_eq!(left, [&key("a")]);
    assert!(world.owned(&policy_key(0)).names().iter().eq([&key("a")]));
}

#[test]
fn an_absent_attribute_map_releases_all_keys_and_an_empty_one_deletes_them() {
    for (desired, writes) in [(DesiredSettings::default(), 0), (attributes(&[]), 1)] {
        let mut world = world(1);
        world.apply(policy(0, attributes(&[("a", "gold"), ("b", "gold")])));
        world.start();
        world.run_until(SOON);
        world.clear_seen();
        world.apply(policy(0, desired));
        world.run_for(SOON);
        world.assert_converged();
        assert_eq!(world.writes().len(), writes);
        assert!(world.owned(&policy_key(0)).is_empty());
    }
}

#[test]
fn a_key_that_a_person_adds_is_not_touched() {
    let mut world = world(1);
    let person = ReportedAttribute {
        value: 3.into(),
        expiry: None,
    };
    let before = BTreeMap::from([(key("b"), person)]);
    world.model.attributes.insert(node_id(0), before.clone());
    world.apply(policy(0, attributes(&[])));
    world.start();
    world.run_until(SOON);
    assert_eq!(world.model.attributes[&node_id(0)], before);
    assert_eq!(counts(&world)[4], 0);
}

#[test]
fn routes_missing_from_the_list_are_not_read_at_each_poll() {
    let mut world = world(1);
    world.model.list_hides_routes = true;
    let desired = DesiredSettings {
        enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
        exit_node: Some(false),
        ..DesiredSettings::default()
    };
    world.apply(policy(0, desired));
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    world.clear_seen();
    world.run_for(Duration::from_hours(1));
    let [_, device_reads, routes, _, writes] = counts(&world);
    assert_eq!((device_reads, writes), (0, 0));
    assert!((5..=6).contains(&routes), "{routes} reads in an hour");
}

#[test]
fn a_new_policy_goes_before_routine_work() {
    let mut world = world(101);
    for number in 0..100 {
        world.apply(policy(number, tags(&["tag:a"])));
    }
    world.start();
    world.run_until(SOON);
    // Someone changes all devices. While they are corrected, a new policy is applied.
    for device in world.model.devices.values_mut() {
        device.tags = ["tag:b".parse().unwrap()].into();
    }
    world.clear_seen();
    while world.writes().is_empty() {
        world.run_for(Duration::from_millis(10));
    }
    world.apply(policy(100, tags(&["tag:a"])));
    world.run_for(SOON);
    let new = node_id(100);
    let place = world
        .writes()
        .iter()
        .position(|call| call.nodes() == [&new]);
    assert!(place.unwrap() < 30, "{place:?}");
}

#[test]
fn a_status_that_the_watch_returns_causes_no_work() {
    let mut world = world(1);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    let key: PolicyKey = policy_key(0);
    world.show_policy(&key);
    world.run_for(Duration::from_secs(1));
    assert!(world.seen.reports.is_empty() && world.seen.requests.is_empty());
}

/// `cargo test --release --lib ten_thousand -- --ignored --nocapture`
#[test]
#[ignore = "measures time, which says something only in release and on an idle machine"]
fn ten_thousand_policies_with_nothing_to_change_cost_little_time() {
    const MANY: usize = 10_000;
    let mut world = world(MANY);
    for number in 0..MANY {
        world.apply(policy(number, tags(&["tag:a"])));
    }
    let clock = std::time::Instant::now();
    world.start();
    world.run_until(SOON);
    println!("first poll and {MANY} writes: {:?}", clock.elapsed());
    world.clear_seen();
    world.run_for(Duration::from_mins(10));
    let list = Request::Devices;
    let now = crate::tailnet::Now {
        monotonic: world.clock,
        wall: world.wall(),
    };
    while world.count(|request| *request == list) < 20 {
        world.run_for(Duration::from_secs(1));
    }
    let clock = std::time::Instant::now();
    for _ in 0..10 {
        assert!(world.engine.step(Input::Wake, now).is_empty());
    }
    println!("a step without an effect: {:?}", clock.elapsed() / 10);
    let lists = world.count(|request| *request == list);
    let clock = std::time::Instant::now();
    world.run_for(Duration::from_mins(10));
    let lists = u32::try_from(world.count(|request| *request == list) - lists).unwrap();
    println!(
        "a poll, the model's own time counted: {:?}",
        clock.elapsed() / lists
    );
}
