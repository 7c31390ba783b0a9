//! A field that cannot be read is unknown: what depends on it waits, and nothing else.

use std::time::Duration;

use serde_json::json;

use super::{World, builders, model};
use crate::{
    model::{DeviceField, NodeId, Reason, SettingValue, TagSet, UnreadableFields},
    plan::{Call, DesiredSettings, DeviceTarget, Disruption, Hold, Identity, Policy, Target},
    tailnet::{Request, State},
};

fn unknown(world: &mut World, device: usize, field: DeviceField) {
    let fields: UnreadableFields = [field].into_iter().collect();
    world
        .model
        .unreadable
        .insert(model::node_id(device), fields);
}

fn readable(world: &mut World) {
    world.model.unreadable.clear();
}

/// The devices to which something was sent.
fn written(world: &World) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = Vec::new();
    for call in world.writes() {
        nodes.extend(call.nodes().into_iter().cloned());
    }
    nodes.sort();
    nodes
}

fn run(world: &mut World) {
    world.run_for(Duration::from_mins(10));
}

/// What the status of a policy for one device gives as the reasons of its differences.
fn holds(world: &World, number: usize) -> Vec<Option<Hold>> {
    let state = &world.last_reports[&builders::policy_key(number)].state;
    let differences = match state {
        State::Bound(report) => &report.differences,
        State::Selector(report) => &report.differences,
        other => panic!("{other:?}"),
    };
    differences.iter().map(|it| it.hold.clone()).collect()
}

fn is_unreadable(holds: &[Option<Hold>]) -> bool {
    !holds.is_empty()
        && holds
            .iter()
            .all(|it| matches!(it, Some(Hold::Unreadable(_))))
}

fn authorized() -> DesiredSettings {
    DesiredSettings {
        settings: [SettingValue::Authorized(true)].into(),
        ..builders::tags(&["tag:z"])
    }
}

#[test]
fn only_what_depends_on_an_unreadable_field_waits() {
    let mut world = builders::world(3);
    for number in 0..3 {
        world.apply(builders::policy(number, authorized()));
    }
    unknown(&mut world, 1, DeviceField::Authorized);
    world.start();
    run(&mut world);
    // The tags of all three are set, and nobody is authorized by a guess.
    assert_eq!(written(&world).len(), 3, "{:#?}", world.writes());
    let authorizes = |call: &Call| matches!(call, Call::Set(_, SettingValue::Authorized(_)));
    assert!(!world.writes().iter().any(|call| authorizes(call)));
    assert!(is_unreadable(&holds(&world, 1)), "{:?}", holds(&world, 1));
    assert!(holds(&world, 0).is_empty() && holds(&world, 2).is_empty());
    assert_eq!(world.tailnet_report.unreadable.total, 1);
    let reported = world.tailnet_report.unreadable.to_string();
    assert_eq!(reported, "n1CNTRL: authorized");
    readable(&mut world);
    run(&mut world);
    assert!(holds(&world, 1).is_empty());
    assert_eq!(world.tailnet_report.unreadable.total, 0);
}

#[test]
fn a_selector_over_an_unreadable_criterion_neither_adopts_nor_releases() {
    let mut world = builders::servers(2);
    world
        .model
        .devices
        .get_mut(&model::node_id(1))
        .unwrap()
        .tags = [builders::tag("tag:x")].into();
    world.apply(builders::clearing(builders::attributes(&[("a", "1")])));
    world.start();
    run(&mut world);
    assert_eq!(written(&world), [model::node_id(0)]);
    world.clear_seen();
    // The tags of the member and of the other one become unknown: both may match, and nothing is sent.
    unknown(&mut world, 0, DeviceField::Tags);
    unknown(&mut world, 1, DeviceField::Tags);
    world.run_for(Duration::from_mins(2));
    for attributes in world.model.attributes.values_mut() {
        attributes.clear();
    }
    world.run_for(Duration::from_hours(1));
    assert_eq!(written(&world), []);
    assert!(is_unreadable(&holds(&world, 0)), "{:?}", holds(&world, 0));
    // The device that never matched is neither managed nor cleared afterwards.
    readable(&mut world);
    world.run_for(Duration::from_hours(1));
    assert_eq!(written(&world), [model::node_id(0)]);
}

#[test]
fn a_restart_releases_no_device_whose_match_is_unknown() {
    let mut world = builders::servers(1);
    world.apply(builders::clearing(builders::attributes(&[("a", "1")])));
    world.start();
    run(&mut world);
    world.clear_seen();
    unknown(&mut world, 0, DeviceField::Tags);
    world.kill();
    world.run_for(Duration::from_hours(1));
    assert_eq!(written(&world), []);
}

#[test]
fn a_guardrail_over_an_unreadable_criterion_protects() {
    let mut world = builders::world(1);
    world.apply(builders::policy(0, builders::attributes(&[("a", "1")])));
    world.guard(&json!({
        "allowedPolicies": [{}],
        "protectedDevices": [{"tags": ["tag:never-touch"]}]
    }));
    unknown(&mut world, 0, DeviceField::Tags);
    world.start();
    run(&mut world);
    assert_eq!(written(&world), []);
    assert!(is_unreadable(&holds(&world, 0)), "{:?}", holds(&world, 0));
    readable(&mut world);
    run(&mut world);
    assert_eq!(written(&world), [model::node_id(0)]);
}

#[test]
fn a_lower_policy_does_not_win_what_a_higher_one_may_own() {
    let mut world = builders::world(1);
    let lower = Policy {
        target: builders::hostname("host-0"),
        allowed: [Disruption::Deauthorize].into(),
        ..builders::policy(
            1,
            DesiredSettings {
                settings: [SettingValue::Authorized(false)].into(),
                ..DesiredSettings::default()
            },
        )
    };
    let higher = Policy {
        priority: 10,
        ..builders::fleet(DesiredSettings {
            settings: [SettingValue::Authorized(true)].into(),
            ..DesiredSettings::default()
        })
    };
    world.apply(higher);
    world.apply(lower);
    unknown(&mut world, 0, DeviceField::Tags);
    world.start();
    run(&mut world);
    let deauthorizes = |call: &Call| matches!(call, Call::Set(_, SettingValue::Authorized(false)));
    assert!(!world.writes().iter().any(|call| deauthorizes(call)));
    // It does not match after all.
    readable(&mut world);
    run(&mut world);
    assert!(world.writes().iter().any(|call| deauthorizes(call)));
}

#[test]
fn a_bound_device_with_an_unreadable_hostname_stays_bound() {
    let mut world = builders::world(1);
    world.apply(builders::policy(0, builders::attributes(&[("a", "1")])));
    world.start();
    run(&mut world);
    unknown(&mut world, 0, DeviceField::Hostname);
    world
        .model
        .attributes
        .values_mut()
        .for_each(std::collections::BTreeMap::clear);
    world.clear_seen();
    world.run_for(Duration::from_hours(1));
    assert_eq!(written(&world), [model::node_id(0)]);
}

/// A device without an identity that can be read is present: the one that the list lacks is not gone.
#[test]
fn a_device_without_a_readable_identity_is_present() {
    let mut world = builders::world(2);
    world.apply(builders::policy(0, builders::attributes(&[("a", "1")])));
    world.start();
    run(&mut world);
    world.clear_seen();
    world.model.unnamed = Some(model::node_id(0));
    run(&mut world);
    assert_eq!(written(&world), []);
    assert_eq!(world.tailnet_report.unreadable.total, 1);
    world.model.unnamed = None;
    run(&mut world);
    let report = &world.last_reports[&builders::policy_key(0)];
    assert!(matches!(report.state, State::Bound(_)), "{report:?}");
}

/// The request for the routes is of one device, and so is an answer to it that cannot be read.
#[test]
fn routes_that_cannot_be_read_concern_one_device() {
    let mut world = builders::world(2);
    for number in 0..2 {
        let desired = DesiredSettings {
            enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
            ..DesiredSettings::default()
        };
        world.apply(builders::policy(number, desired));
    }
    unknown(&mut world, 0, DeviceField::EnabledRoutes);
    world.start();
    run(&mut world);
    assert_eq!(written(&world), [model::node_id(1)]);
    let state = &world.last_reports[&builders::policy_key(0)].state;
    let State::Bound(report) = state else {
        panic!("{state:?}");
    };
    let reasons: Vec<Reason> = report.failures.iter().map(|(_, it)| it.reason).collect();
    assert_eq!(reasons, [Reason::DeviceUnreadable]);
    readable(&mut world);
    run(&mut world);
    assert_eq!(written(&world), [model::node_id(0), model::node_id(1)]);
}

#[test]
fn tailnet_lock_keeps_an_authorized_device_out_of_sync() {
    let mut world = builders::world(1);
    world.apply(builders::policy(0, authorized()));
    let device = world.model.devices.get_mut(&model::node_id(0)).unwrap();
    device.lock_error = "node key signature is missing".to_owned();
    world.start();
    run(&mut world);
    let holds = holds(&world, 0);
    assert!(
        matches!(&holds[..], [Some(Hold::LockedOut(_))]),
        "{holds:?}"
    );
}

/// Unknown is not "no error".
#[test]
fn an_unreadable_lock_error_is_not_taken_for_none() {
    let mut world = builders::world(1);
    world.apply(builders::policy(0, authorized()));
    unknown(&mut world, 0, DeviceField::TailnetLockError);
    world.start();
    run(&mut world);
    assert!(is_unreadable(&holds(&world, 0)), "{:?}", holds(&world, 0));
    readable(&mut world);
    run(&mut world);
    assert!(holds(&world, 0).is_empty());
}

/// Without an owner, the binding cannot be recorded, and a name needs a recorded one before each request. A
/// A `nodeId` names the same device under any owner.
#[test]
fn a_policy_binds_no_device_by_its_name_while_the_owner_is_unknown() {
    for (identity, is_name) in [
        (Identity::Hostname("host-0".to_owned()), true),
        (Identity::NodeId(model::node_id(0)), false),
    ] {
        let mut world = builders::servers(1);
        let device = world.model.devices.get_mut(&model::node_id(0)).unwrap();
        device.tags.clear();
        device.user = "amelie@example.com".to_owned();
        unknown(&mut world, 0, DeviceField::User);
        world.apply(Policy {
            target: Target::Device(DeviceTarget {
                identity,
                tags: TagSet::new(),
                users: Vec::new(),
            }),
            ..builders::policy(0, authorized())
        });
        world.start();
        run(&mut world);
        assert_eq!(written(&world).is_empty(), is_name);
        assert_eq!(is_unreadable(&holds(&world, 0)), is_name);
        readable(&mut world);
        run(&mut world);
        assert_eq!(written(&world), [model::node_id(0)]);
    }
}

/// A hold that comes and goes must not repeat what the API has refused.
#[test]
fn a_refused_change_waits_although_the_device_was_unreadable_meanwhile() {
    let mut world = builders::servers(1);
    world.model.unowned_tag = Some(builders::tag("tag:nobody"));
    world.apply(builders::policy(0, builders::tags(&["tag:nobody"])));
    world.start();
    let run = |world: &mut World| world.run_for(Duration::from_mins(2));
    run(&mut world);
    unknown(&mut world, 0, DeviceField::IsExternal);
    run(&mut world);
    assert!(is_unreadable(&holds(&world, 0)), "{:?}", holds(&world, 0));
    readable(&mut world);
    run(&mut world);
    assert_eq!(holds(&world, 0), [None]);
    let tries = world.count(|it| matches!(it, Request::Write(Call::SetTags(..))));
    assert_eq!(tries, 1);
}
