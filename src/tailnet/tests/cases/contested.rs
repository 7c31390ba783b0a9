//! Conflicts between policies, and contests with a writer outside.

use std::time::Duration;

use super::{
    World,
    builders::{SOON, attributes, key, policy, policy_key, tags, world},
    model::node_id,
};
use crate::{
    model::{AttributeValue, DesiredAttribute, ListSetting, Reason, Setting, SettingValue},
    plan::{
        Conflict, ConflictKind, DesiredSettings, Difference, Field, Hold, Mode, Policy, Suspender,
    },
    tailnet::{DeviceReport, Notification, State},
};

fn address(last: u8) -> DesiredSettings {
    DesiredSettings {
        settings: [SettingValue::Ipv4(
            format!("100.80.0.{last}").parse().unwrap(),
        )]
        .into(),
        ..DesiredSettings::default()
    }
}

fn name(name: &str) -> DesiredSettings {
    DesiredSettings {
        settings: [SettingValue::Name(name.parse().unwrap())].into(),
        ..DesiredSettings::default()
    }
}

/// A policy's attribute as an integer.
pub fn number(name: &str) -> DesiredSettings {
    let desired = DesiredAttribute {
        value: AttributeValue::Integer(3.try_into().unwrap()),
        expiry: None,
    };
    DesiredSettings {
        attributes: Some([(key(name), desired)].into()),
        ..DesiredSettings::default()
    }
}

fn reported(world: &World, number: usize) -> &DeviceReport {
    match &world.last_reports[&policy_key(number)].state {
        State::Bound(report) => report,
        other => panic!("{other:?}"),
    }
}

fn lost(world: &World, number: usize) -> Option<(&Field, String, &ConflictKind)> {
    let [
        Conflict {
            field,
            owner: winner,
            kind: dispute,
            ..
        },
    ] = &reported(world, number).conflicts[..]
    else {
        return None;
    };
    Some((field, winner.name.clone(), dispute))
}

fn hold(world: &World, number: usize) -> Option<&Hold> {
    let [Difference { hold, .. }] = &reported(world, number).differences[..] else {
        return None;
    };
    hold.as_ref()
}

#[test]
fn of_two_types_for_one_key_one_is_sent_and_the_other_is_reported() {
    let mut world = world(2);
    world.apply(policy(1, number("tier")));
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    // The younger policy ranks first, but the tailnet has the key with another type. It cannot be set, so
    // it takes precedence over nothing.
    let first = policy(0, attributes(&[("Tier", "gold")]));
    world.apply(Policy {
        priority: 1,
        ..first
    });
    world.run_for(SOON);
    assert!(lost(&world, 1).is_none());
    assert!(matches!(
        hold(&world, 0),
        Some(Hold::AttributeConflict { .. })
    ));
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    // Once no device has the key, the first policy decides the type and the other one is reported as
    // overridden.
    world.model.attributes.get_mut(&node_id(1)).unwrap().clear();
    world.run_for(Duration::from_mins(15));
    assert_eq!(world.writes().len(), 1);
    let (field, winner, dispute) = lost(&world, 1).unwrap();
    assert_eq!(
        (field, &*winner),
        (&Field::Attribute(key("tier")), "policy-0")
    );
    assert!(matches!(dispute, ConflictKind::Type(_)));
    world.assert_converged();

    world.delete(&policy_key(0));
    world.model.attributes.get_mut(&node_id(0)).unwrap().clear();
    world.run_for(SOON);
    assert!(lost(&world, 1).is_none());
    assert_eq!(world.writes().len(), 2);
    world.assert_converged();
}

#[test]
fn a_held_or_suspended_policy_still_takes_precedence() {
    for mode in [Mode::Suspended(Suspender::Policy), Mode::Enforce] {
        let mut world = world(3);
        let mut first = policy(0, attributes(&[("tier", "gold")]));
        first.mode = mode;
        first.priority = 1;
        first.desired.settings = address(9).settings;
        if mode == Mode::Enforce {
            // Held: an unmanaged device has the declared value.
            first.desired.settings = address(2).settings;
        }
        let mut second = policy(1, number("tier"));
        second.desired.settings = first.desired.settings.clone();
        world.apply(second);
        world.apply(first);
        world.start();
        world.run_until(SOON);
        let fields: Vec<_> = reported(&world, 1)
            .conflicts
            .iter()
            .map(|lost| &lost.field)
            .collect();
        // Neither policy gets an address that an unmanaged device has.
        let (tier, ipv4) = (Field::Attribute(key("tier")), Field::Setting(Setting::Ipv4));
        let expected = match mode {
            Mode::Enforce => vec![&tier],
            _ => vec![&tier, &ipv4],
        };
        assert_eq!(fields, expected, "{mode:?}");
        let sent = usize::from(mode == Mode::Enforce);
        assert_eq!(
            world.writes().len(),
            sent,
            "{mode:?}: {:#?}",
            world.writes()
        );
        // Nor once the value that the first policy is held for is applied.
        world.model.devices.get_mut(&node_id(2)).unwrap().ipv4 = Some([100, 80, 0, 77].into());
        world.run_for(Duration::from_mins(5));
        assert_eq!(world.writes().len(), 2 * sent, "{mode:?}");
        assert_eq!(reported(&world, 1).conflicts.len(), 2, "{mode:?}");
        world.assert_converged();
    }
}

#[test]
fn an_address_or_name_of_two_policies_goes_to_the_first_and_then_to_the_next() {
    for (desired, field) in [
        (address(50), Field::Setting(Setting::Ipv4)),
        (name("db"), Field::Setting(Setting::Name)),
    ] {
        let mut world = world(2);
        for number in [1, 0] {
            world.apply(policy(number, desired.clone()));
        }
        world.start();
        world.run_until(SOON);
        assert_eq!(world.writes().len(), 1, "{field}");
        let expected = (
            &field,
            "policy-0".to_owned(),
            &ConflictKind::Device("db".into()),
        );
        let (lost_field, winner, dispute) = lost(&world, 1).unwrap();
        assert_eq!((lost_field, &winner), (expected.0, &expected.1));
        assert!(matches!(dispute, ConflictKind::Device(device) if device.ends_with("(n0CNTRL)")));
        world.assert_converged();
        world.apply(policy(0, DesiredSettings::default()));
        world.run_for(SOON);
        // The device still has the value.
        let held = hold(&world, 1).unwrap();
        assert!(
            matches!(held, Hold::AddressInUse(_) | Hold::NameTaken(_)),
            "{held:?}"
        );
        world.assert_converged();
    }
}

#[test]
fn addresses_are_never_swapped_but_pass_on_along_a_chain() {
    let mut world = world(3);
    // n0 → .1 (of n1), n1 → .2 (of n2), n2 → .0 (of n0).
    for (number, last) in [(0, 1), (1, 2), (2, 0)] {
        world.apply(policy(number, address(last)));
    }
    world.start();
    world.run_until(SOON);
    for number in 0..3 {
        assert!(
            matches!(hold(&world, number), Some(Hold::AddressSwap(others)) if others.len() == 2)
        );
    }
    assert!(world.writes().is_empty());
    world.assert_converged();
    // One policy is edited, and the others follow at once.
    world.apply(policy(2, address(9)));
    world.run_for(SOON);
    assert_eq!(world.writes().len(), 3);
    world.assert_converged();
    world.apply(policy(2, address(0)));
    world.run_for(SOON);
    assert_eq!(world.writes().len(), 4);
    let addresses: Vec<_> = world
        .model
        .devices
        .values()
        .map(|d| d.ipv4.unwrap().octets()[3])
        .collect();
    assert_eq!(addresses, [1, 2, 0]);
    world.assert_converged();
}

/// Someone replaces the tags.
fn replace_tags(world: &mut World) {
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = ["tag:other".parse().unwrap()].into();
}

/// Someone replaces the tags every few minutes.
fn contest(world: &mut World, times: usize) {
    for _ in 0..times {
        world.run_for(Duration::from_mins(5));
        replace_tags(world);
    }
}

fn contested(world: &World) -> bool {
    let mut failures = reported(world, 0).failures.iter();
    failures.any(|(_, failure)| failure.reason == Reason::Contested)
}

#[test]
fn a_contested_field_is_tried_once_an_hour_until_the_other_writer_stops() {
    let mut world = world(1);
    let mut both = tags(&["tag:a"]);
    both.settings.set(SettingValue::KeyExpiryDisabled(true));
    world.apply(policy(0, both.clone()));
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    contest(&mut world, 2);
    world.run_for(Duration::from_mins(3));
    assert!(!contested(&world));
    assert_eq!(world.writes().len(), 2);
    contest(&mut world, 1);
    world.run_for(Duration::from_mins(3));
    assert!(contested(&world), "{:#?}", reported(&world, 0));
    let (_, failure) = &reported(&world, 0).failures[0];
    let begins = "Another writer keeps changing it back: 3 times so far, the last time from tag:a \
                  to tag:other.";
    assert!(failure.message.starts_with(begins), "{}", failure.message);
    // For six hours there is one try an hour, with one report each.
    world.clear_seen();
    contest(&mut world, 72);
    let writes = world.writes().len();
    assert!((5..=6).contains(&writes), "{writes} writes in six hours");
    assert!(contested(&world));
    let message = world.seen.notifications.iter();
    let failed = message.filter(|(_, message)| matches!(message, Notification::Failed { .. }));
    assert_eq!(failed.count(), 0, "it is reported once");
    // Another field of the device is not contested.
    world
        .model
        .devices
        .get_mut(&node_id(0))
        .unwrap()
        .key_expiry_disabled = false;
    world.run_for(Duration::from_mins(3));
    assert!(world.model.devices[&node_id(0)].key_expiry_disabled);
    // The other writer stops: the next try holds, and the contest ends after an hour.
    world.run_for(Duration::from_mins(70));
    assert!(!world.model.devices[&node_id(0)].tags.is_empty());
    world.run_for(Duration::from_mins(70));
    assert!(!contested(&world));
    world.assert_converged();
    world.clear_seen();
    world.run_for(Duration::from_hours(3));
    assert!(world.writes().is_empty() && world.seen.reports.is_empty());
}

#[test]
fn an_edit_ends_a_contest_and_rare_reversals_are_none() {
    let mut world = world(1);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.run_until(SOON);
    contest(&mut world, 3);
    world.run_for(Duration::from_mins(3));
    assert!(contested(&world));
    world.apply(policy(0, tags(&["tag:a", "tag:b"])));
    world.run_for(SOON);
    assert!(!contested(&world));
    world.assert_converged();
    for _ in 0..10 {
        world.run_for(Duration::from_mins(40));
        replace_tags(&mut world);
        world.run_for(Duration::from_mins(3));
        assert!(!contested(&world));
        world.assert_converged();
    }
    // Edits of the policy itself are no contest: each changes the desired value.
    for number in 0..6 {
        world.apply(policy(0, tags(&[["tag:a", "tag:b"][number % 2]])));
        world.run_for(SOON);
        world.assert_converged();
    }
}

/// Nothing enters the tailnet before its other settings are in sync, and one of them never is.
#[test]
fn what_waits_for_a_contested_field_says_so() {
    let mut world = world(1);
    let mut both = tags(&["tag:a"]);
    both.settings.set(SettingValue::Authorized(true));
    world.apply(policy(0, both));
    world.start();
    world.run_until(SOON);
    contest(&mut world, 3);
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.authorized = false;
    world.run_for(Duration::from_mins(3));
    assert!(contested(&world));
    let waits = &reported(&world, 0).waits;
    let why = |field: Field| {
        let mut waits = waits.iter().filter(|(of, _)| *of == field);
        waits.next().map(|(_, why)| why.as_str()).unwrap()
    };
    let tags = why(Field::List(ListSetting::Tags));
    assert!(tags.starts_with("Another writer"), "{tags}");
    let authorized = why(Field::Setting(Setting::Authorized));
    assert!(
        authorized.starts_with("it waits for tags: "),
        "{authorized}"
    );
}
