//! Policies for many devices: the exact requests, and devices that join and leave.

use std::time::{Duration, Instant};

use super::{
    World,
    builders::{SOON, attributes, fleet, key, policy, policy_key, servers, tag, tags, world},
    counted::{assert_idle, counts},
    model::{device, node_id},
};
use crate::{
    model::SettingValue,
    model::{Device, Reason},
    plan::{Call, DesiredSettings, Disruption, Expression, Glob, Hold, Policy, Selector, Target},
    tailnet::{Request, SelectorReport, State},
};

const MANY: usize = 1000;

pub fn reported(world: &World) -> &SelectorReport {
    match &world.last_reports[&policy_key(0)].state {
        State::Selector(report) => report,
        state => panic!("{state:?}"),
    }
}

fn settled(count: usize, desired: DesiredSettings) -> World {
    let mut world = servers(count);
    world.apply(fleet(desired));
    world.start();
    world.run_until(Duration::from_mins(4));
    world.assert_converged();
    world
}

#[test]
fn a_tag_for_a_thousand_devices_costs_a_call_each_and_one_list() {
    let mut world = servers(MANY);
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    assert_eq!(counts(&world), [2, 0, 0, 0, MANY]);
    // Reports: the start, the progress at the first list, and the end.
    assert_eq!(world.seen.reports.len(), 3);
    assert_idle(&mut world);
}

#[test]
fn an_attribute_for_a_thousand_devices_goes_in_twenty_batches() {
    let mut world = servers(MANY);
    world.apply(fleet(attributes(&[("a", "gold")])));
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    let [_, device_reads, routes, reads, writes] = counts(&world);
    assert_eq!([device_reads, routes, reads, writes], [0, 0, MANY, 20]);
    assert!(world.writes().iter().all(|call| call.nodes().len() == 50));
}

#[test]
fn a_thousand_devices_that_a_person_changed_are_put_back_by_a_call_each() {
    let mut world = settled(MANY, tags(&["tag:s", "tag:a"]));
    for device in world.model.devices.values_mut() {
        device.tags.insert(tag("tag:b"));
    }
    world.clear_seen();
    world.run_for(Duration::from_mins(2));
    world.assert_converged();
    let [_, device_reads, routes, reads, writes] = counts(&world);
    assert_eq!([device_reads, routes, reads, writes], [0, 0, 0, MANY]);
}

#[test]
fn a_device_that_joins_is_adopted_and_one_that_leaves_keeps_its_settings() {
    let desired = DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(true)].into(),
        ..attributes(&[("a", "gold")])
    };
    let mut world = settled(3, desired);
    let mut joins = device(7);
    joins.tags = [tag("tag:s")].into();
    world.model.add(joins);
    world.model.add(device(8));
    world.run_for(Duration::from_mins(2));
    world.assert_converged();
    assert_eq!(reported(&world).matched, 4);
    assert!(world.model.devices[&node_id(7)].key_expiry_disabled);
    assert!(!world.model.devices[&node_id(8)].key_expiry_disabled);

    let leaves = world.model.devices.get_mut(&node_id(7)).unwrap();
    leaves.tags = [tag("tag:other")].into();
    leaves.key_expiry_disabled = false;
    world.model.remove(&node_id(0));
    world.clear_seen();
    world.run_for(Duration::from_mins(2));
    world.assert_converged();
    assert_eq!(reported(&world).matched, 2);
    assert!(world.writes().is_empty(), "{:?}", world.writes());
    assert!(world.model.attributes[&node_id(7)].contains_key(&key("a")));
}

#[test]
fn a_tag_that_one_policy_gives_brings_a_device_into_the_fleet_of_another_at_once() {
    let mut world = world(2);
    let desired = DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(true)].into(),
        ..DesiredSettings::default()
    };
    world.apply(fleet(desired));
    world.start();
    world.run_until(SOON);
    assert_eq!(reported(&world).matched, 0);
    world.apply(policy(1, tags(&["tag:s"])));
    world.run_for(Duration::from_secs(10));
    world.assert_converged();
    assert_eq!(reported(&world).in_sync, 1);
    assert!(world.model.devices[&node_id(1)].key_expiry_disabled);
}

#[test]
fn a_key_that_is_no_longer_declared_is_owned_until_the_last_device_has_lost_it() {
    let mut world = settled(30, attributes(&[("a", "gold"), ("b", "gold")]));
    world.model.broken = Some(node_id(29));
    world.apply(fleet(attributes(&[("a", "gold")])));
    world.run_for(Duration::from_mins(20));
    let owned = |world: &World| world.owned(&policy_key(0)).names();
    assert!(owned(&world).contains(&key("b")));
    world.model.broken = None;
    world.run_for(Duration::from_mins(30));
    world.assert_converged();
    assert!(owned(&world).iter().eq([&key("a")]));
    let left = |id| world.model.attributes[id].contains_key(&key("b"));
    assert!(!world.model.devices.keys().any(left));
}

#[test]
fn one_device_that_fails_among_many_is_counted_and_named_first() {
    let mut world = servers(30);
    world.model.broken = Some(node_id(17));
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    world.start();
    world.run_until(Duration::from_mins(2));
    let report = reported(&world);
    assert_eq!((report.matched, report.in_sync, report.failed), (30, 29, 1));
    assert_eq!(report.details[0].node, node_id(17));
    assert_eq!(report.details[0].failures[0].1.reason, Reason::ApiError);
    assert_eq!(report.details.len(), 20);
}

#[test]
fn the_first_tag_of_many_is_held_until_it_is_allowed() {
    let mut world = world(3);
    let by_hostname = |allowed: &[Disruption]| {
        let selector = Selector {
            hostnames: vec![Glob::of_folded("host-*")],
            ..Selector::default()
        };
        Policy {
            target: Target::Selector(selector),
            allowed: allowed.iter().copied().collect(),
            ..fleet(tags(&["tag:s"]))
        }
    };
    world.apply(by_hostname(&[]));
    world.start();
    world.run_until(SOON);
    assert_eq!((reported(&world).held, world.writes().len()), (3, 0));
    world.apply(by_hostname(&[Disruption::FirstTag]));
    world.run_for(SOON);
    world.assert_converged();
    assert_eq!((reported(&world).in_sync, world.writes().len()), (3, 3));
}

#[test]
fn a_change_that_would_unselect_its_own_device_is_held() {
    let mut world = servers(2);
    world.apply(fleet(tags(&["tag:a"])));
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    assert!(world.writes().is_empty());
    let hold = reported(&world).details[0].differences[0].hold.clone();
    assert_eq!(hold, Some(Hold::WouldUnselect(policy_key(0))));
}

#[test]
fn two_fleets_that_take_tags_from_each_other_come_to_rest() {
    let mut world = servers(2);
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    let other = Selector {
        tags: [tag("tag:a")].into(),
        ..Selector::default()
    };
    world.apply(Policy {
        target: Target::Selector(other),
        ..Policy {
            key: policy_key(1),
            ..fleet(tags(&["tag:a"]))
        }
    });
    world.start();
    world.run_for(Duration::from_mins(5));
    world.assert_converged();
    world.clear_seen();
    world.run_for(Duration::from_mins(30));
    assert!(world.writes().is_empty());
}

#[test]
fn a_single_device_goes_before_a_large_fleet() {
    let mut world = settled(200, tags(&["tag:s", "tag:a"]));
    world.model.add(device(999));
    world.run_for(Duration::from_mins(2));
    world.clear_seen();
    world.apply(fleet(tags(&["tag:s", "tag:b"])));
    while world.writes().is_empty() {
        world.run_for(Duration::from_millis(10));
    }
    world.apply(policy(999, tags(&["tag:z"])));
    world.run_for(SOON);
    let single = |call: &&Call| call.nodes() == [&node_id(999)];
    let place = world.writes().iter().position(single);
    assert!(place.unwrap() < 30, "{place:?}");
    let lists = world.count(|request| *request == Request::Devices);
    assert!(lists <= 4, "{lists} lists");
}

/// `cargo test --release --lib cost_of_expressions -- --ignored --nocapture`
#[test]
#[ignore = "measures time, which says something only in release and on an idle machine"]
fn the_cost_of_expressions_is_small_even_for_hostile_ones() {
    let flat = "device.hostname.lowerAscii().contains('db-1') && ".repeat(9);
    let texts = [
        "device.clientVersion.startsWith('1.9')".to_owned(),
        flat + "device.os == 'linux'",
        r"device.hostname.matches(r'(([a-z]*[0-9]*-?){1,9}x|[a-z0-9-]{1,60}y)$')".to_owned(),
        r"device.hostname.matches(r'(.?){40}z|(a|b|0|1|-)*y')".to_owned(),
    ];
    for text in texts {
        let device = Device {
            hostname: "db-1".repeat(60),
            ..device(1)
        };
        let begin = Instant::now();
        let expression: Expression = text.parse().unwrap();
        let parsed = begin.elapsed();
        let begin = Instant::now();
        let all = (0..10_000).filter_map(|_| expression.holds(&device).ok());
        let held = all.filter(|held| *held).count();
        let taken = begin.elapsed();
        println!("read in {parsed:?}, {held} of 10,000 devices in {taken:?}: {text:.60}");
        assert!(taken.as_secs() < 5, "{text}");
    }
}

/// Before the second list, policies for names have found no device yet.
#[test]
fn devices_that_no_policy_targets_are_counted_once_it_is_known_which_ones_are() {
    let mut world = servers(3);
    world.apply(fleet(tags(&["tag:s"])));
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [].into();
    world.start();
    while world.engine.observed().lists() == 0 {
        world.run_for(Duration::from_millis(1));
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.engine.observed().lists(), 1);
    assert_eq!(world.tailnet_report.unmanaged, None);
    world.run_for(Duration::from_mins(3));
    assert_eq!(world.tailnet_report.unmanaged, Some(1));
}
