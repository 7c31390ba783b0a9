//! The cause of each change: an edit, drift, a new device, a release.

use std::time::Duration;

use super::{
    World,
    builders::{SOON, attributes, clearing, fleet, key, policy_key, servers, tag, tags},
    model::{device, node_id},
};
use crate::{
    model::ReportedAttribute,
    plan::{ChangeCause, DesiredSettings, History, Mode, Policy},
    tailnet::Notification,
};

const POLL: Duration = Duration::from_mins(2);

/// The causes of the changes that were reported, and their devices.
fn causes(world: &mut World) -> Vec<(String, ChangeCause)> {
    let reported = world.seen.notifications.iter();
    let changed = reported.filter_map(|(_, reported)| match reported {
        Notification::Changed(it) => Some((it.device.clone(), it.cause.unwrap())),
        _ => None,
    });
    let mut causes: Vec<_> = changed.collect();
    causes.sort_by(|(a, _), (b, _)| a.cmp(b));
    world.clear_seen();
    causes
}

fn all(devices: std::ops::Range<usize>, cause: ChangeCause) -> Vec<(String, ChangeCause)> {
    devices.map(|it| (format!("name-{it}"), cause)).collect()
}

fn run(world: &mut World) -> Vec<(String, ChangeCause)> {
    world.run_for(POLL);
    world.assert_converged();
    causes(world)
}

/// Two servers in sync.
fn settled(desired: DesiredSettings) -> World {
    let mut world = servers(2);
    world.apply(fleet(desired));
    world.start();
    let made = run(&mut world);
    assert_eq!(made, all(0..2, ChangeCause::Declared));
    world
}

fn edit_outside(world: &mut World, number: usize) {
    let edited = world.model.devices.get_mut(&node_id(number)).unwrap();
    edited.tags.insert(tag("tag:b"));
}

#[test]
fn a_setting_that_someone_changes_back_is_drift_and_one_that_an_edit_declares_is_not() {
    let mut world = settled(tags(&["tag:s", "tag:a"]));
    edit_outside(&mut world, 1);
    assert_eq!(run(&mut world), all(1..2, ChangeCause::Drift));
    world.apply(fleet(tags(&["tag:s", "tag:c"])));
    assert_eq!(run(&mut world), all(0..2, ChangeCause::Declared));
    // An edit of another field leaves the tags as they were: they were in sync.
    edit_outside(&mut world, 0);
    world.apply(Policy {
        priority: 7,
        ..fleet(tags(&["tag:s", "tag:c"]))
    });
    assert_eq!(run(&mut world), all(0..1, ChangeCause::Drift));
}

#[test]
fn a_device_that_joins_a_policy_is_no_drift_until_it_was_in_sync() {
    let mut world = settled(tags(&["tag:s", "tag:a"]));
    let mut joins = device(2);
    joins.tags = [tag("tag:s")].into();
    world.model.add(joins);
    assert_eq!(run(&mut world), all(2..3, ChangeCause::Joined));
    edit_outside(&mut world, 2);
    assert_eq!(run(&mut world), all(2..3, ChangeCause::Drift));
}

#[test]
fn attributes_that_were_not_read_yet_are_no_drift() {
    let mut world = settled(attributes(&[("a", "gold")]));
    let attributes_of = world.model.attributes.get_mut(&node_id(0)).unwrap();
    let value = serde_json::json!("lead");
    attributes_of.insert(
        key("a"),
        ReportedAttribute {
            value,
            expiry: None,
        },
    );
    world.run_for(Duration::from_mins(15));
    world.assert_converged();
    assert_eq!(causes(&mut world), all(0..1, ChangeCause::Drift));
}

#[test]
fn a_change_that_waits_for_people_keeps_its_cause() {
    let mut world = servers(2);
    let asking = Policy {
        mode: Mode::Observe,
        ..fleet(tags(&["tag:s", "tag:a"]))
    };
    world.apply(asking.clone());
    world.start();
    world.run_for(POLL);
    world.apply(Policy {
        mode: Mode::Enforce,
        ..asking
    });
    assert_eq!(run(&mut world), all(0..2, ChangeCause::Declared));
}

#[test]
fn a_change_that_had_no_effect_keeps_its_cause() {
    let mut world = servers(1);
    world.apply(fleet(tags(&["tag:s", "tag:a"])));
    world.start();
    while !world.model.devices[&node_id(0)]
        .tags
        .contains(&tag("tag:a"))
    {
        world.run_for(Duration::from_millis(1));
    }
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = [tag("tag:s")].into();
    // Until then, the API is not asked again for a change without effect.
    world.run_for(Duration::from_mins(30));
    world.assert_converged();
    assert_eq!(world.writes().len(), 2);
    let made = ("name-0".to_owned(), ChangeCause::Declared);
    assert_eq!(causes(&mut world), [made.clone(), made]);
}

#[test]
fn a_field_that_another_policy_gives_up_is_declared_by_its_next_owner() {
    let mut world = settled(tags(&["tag:s", "tag:a"]));
    let other = Policy {
        key: policy_key(1),
        priority: 9,
        ..fleet(tags(&["tag:s", "tag:c"]))
    };
    world.apply(other);
    assert_eq!(run(&mut world), all(0..2, ChangeCause::Declared));
    world.delete(&policy_key(1));
    assert_eq!(run(&mut world), all(0..2, ChangeCause::Declared));
}

#[test]
fn what_a_deleted_policy_clears_is_released() {
    let mut world = servers(2);
    world.apply(clearing(attributes(&[("a", "gold")])));
    world.start();
    run(&mut world);
    world.delete(&policy_key(0));
    world.run_for(POLL);
    assert_eq!(causes(&mut world), all(0..2, ChangeCause::Released));
}

#[test]
fn after_a_restart_the_status_says_whether_a_difference_is_drift() {
    let mut world = settled(tags(&["tag:s", "tag:a"]));
    let mut restart = |history| {
        edit_outside(&mut world, 0);
        world.policies.get_mut(&policy_key(0)).unwrap().history = history;
        world.kill();
        run(&mut world)
    };
    assert_eq!(
        restart(Some(History::New)),
        all(0..1, ChangeCause::Declared)
    );
    let since = "2026-01-01T00:00:00Z".parse().unwrap();
    let in_sync = Some(History::InSync { since });
    assert_eq!(restart(in_sync), all(0..1, ChangeCause::Drift));

    // It appeared while no process ran.
    let mut joins = device(3);
    joins.tags = [tag("tag:s")].into();
    joins.created = Some("2026-01-01T00:00:01Z".parse().unwrap());
    world.model.add(joins);
    world.kill();
    assert_eq!(run(&mut world), all(3..4, ChangeCause::Joined));
    // The status is of the spec before the edit.
    world.kill();
    world.apply(fleet(tags(&["tag:s", "tag:c"])));
    world.run_for(SOON);
    let edited = run(&mut world);
    assert!(
        edited
            .iter()
            .all(|(_, cause)| *cause == ChangeCause::Declared)
    );
    assert_eq!(edited.len(), 3);
}
