//! Rebuilt machines and machines that someone signs in again: the policy stays with the device it was bound to.

use std::time::Duration;

use super::{
    World,
    builders::{SOON, attributes, policy, policy_key, tags, world},
    model::{device, node_id},
};
use crate::{
    model::SettingValue,
    model::{Device, DeviceField, NodeId, TagSet},
    plan::{Binding, DesiredSettings, DeviceTarget, Hold, Identity, Policy, Suspender, Target},
    tailnet::State,
};

const A_WHILE: Duration = Duration::from_mins(5);

fn set_connected(world: &mut World, number: usize, connected: bool) {
    let device = world.model.devices.get_mut(&node_id(number)).unwrap();
    device.connected = Some(connected);
}

fn bound(world: &World) -> Option<NodeId> {
    let bound = world.policies[&policy_key(0)].record.bound.as_ref();
    bound.map(|bound| bound.node.clone())
}

fn successor(world: &World) -> Option<NodeId> {
    match &world.last_reports[&policy_key(0)].state {
        State::Bound(report) => report.successor.as_ref().map(|next| next.node.clone()),
        other => panic!("{other:?}"),
    }
}

/// A policy is in sync, its machine is rebuilt, and the old node is still listed.
fn rebuilt() -> World {
    let mut world = world(3);
    set_connected(&mut world, 0, true);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.run_until(SOON);
    set_connected(&mut world, 0, false);
    world.model.add(Device {
        node_id: node_id(9),
        hostname: "host-0".to_owned(),
        connected: Some(true),
        ..device(9)
    });
    world.run_for(A_WHILE);
    world.clear_seen();
    world
}

#[test]
fn a_rebuilt_machine_is_reported_and_gets_nothing_before_it_is_approved() {
    let mut world = rebuilt();
    assert_eq!(successor(&world), Some(node_id(9)));
    assert_eq!(bound(&world), Some(node_id(0)));
    world.run_for(A_WHILE);
    assert!(world.writes().is_empty() && world.seen.reports.is_empty());
    world.approve(&policy_key(0), &format!("node:{}", node_id(9)));
    world.run_for(A_WHILE);
    assert_eq!(bound(&world), Some(node_id(9)));
    assert_eq!(successor(&world), None);
    assert!(
        world
            .writes()
            .iter()
            .all(|call| call.nodes() == [&node_id(9)])
    );
    assert_eq!(world.writes().len(), 1);
}

#[test]
fn the_report_ends_when_the_device_is_connected_again_or_the_other_one_is_not() {
    for (number, connected) in [(0, true), (9, false)] {
        let mut world = rebuilt();
        set_connected(&mut world, number, connected);
        world.run_for(A_WHILE);
        assert_eq!(successor(&world), None);
        assert_eq!(bound(&world), Some(node_id(0)));
        assert!(world.writes().is_empty());
    }
}

#[test]
fn a_machine_that_someone_signs_in_again_gets_nothing_until_it_is_approved() {
    for restarted in [false, true] {
        let mut world = world(3);
        let server = world.model.devices.get_mut(&node_id(0)).unwrap();
        server.tags = ["tag:a".parse().unwrap()].into();
        let router = policy(0, tags(&["tag:a"]));
        let Target::Device(target) = router.target else {
            unreachable!();
        };
        world.apply(Policy {
            target: Target::Device(DeviceTarget {
                tags: ["tag:a".parse().unwrap()].into(),
                ..target
            }),
            ..router
        });
        world.start();
        world.run_until(SOON);
        assert_eq!(bound(&world), Some(node_id(0)));
        let server = world.model.devices.get_mut(&node_id(0)).unwrap();
        server.tags.clear();
        server.user = "eve@example.com".to_owned();
        if restarted {
            world.kill();
        }
        world.run_for(A_WHILE);
        let state = &world.last_reports[&policy_key(0)].state;
        let State::Unbound {
            binding: Binding::IdentityChanged { bound, found, .. },
            differences,
            ..
        } = state
        else {
            panic!("{state:?}");
        };
        assert_eq!((bound, found), (&node_id(0), &node_id(0)));
        // The lost tags are pending, with the reason why they are not given again.
        let holds: Vec<_> = differences.iter().map(|it| it.hold.clone()).collect();
        assert_eq!(holds, [Some(Hold::Suspended(Suspender::Identity))]);
        assert!(world.writes().is_empty());
        world.approve(&policy_key(0), &format!("node:{}", node_id(0)));
        world.run_for(A_WHILE);
        assert_eq!(world.model.devices[&node_id(0)].tags.len(), 1);
        world.assert_converged();
    }
}

/// A policy that waits for the approval of its device keeps its precedence there, as a held policy does.
#[test]
fn no_lower_policy_takes_the_fields_of_a_device_that_someone_signs_in_on_again() {
    let mut world = world(2);
    let untagged = DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(false)].into(),
        ..tags(&["tag:a"])
    };
    let lower = DesiredSettings {
        settings: [
            SettingValue::KeyExpiryDisabled(true),
            SettingValue::Authorized(true),
        ]
        .into(),
        ..attributes(&[("tier", "gold")])
    };
    world.apply(Policy {
        priority: 10,
        ..policy(0, untagged)
    });
    world.apply(Policy {
        target: Target::Device(DeviceTarget {
            identity: Identity::NodeId(node_id(0)),
            tags: TagSet::new(),
            users: Vec::new(),
        }),
        ..policy(1, lower)
    });
    world.start();
    world.run_until(SOON);
    let server = world.model.devices.get_mut(&node_id(0)).unwrap();
    server.tags.clear();
    server.authorized = false;
    server.user = "eve@example.com".to_owned();
    for killed in [false, true] {
        if killed {
            world.kill();
        }
        world.run_for(A_WHILE);
        assert!(!world.model.devices[&node_id(0)].key_expiry_disabled);
        // The held policy keeps the device out too: what it declares does not hold.
        assert!(!world.model.devices[&node_id(0)].authorized);
    }
    world.approve(&policy_key(0), &format!("node:{}", node_id(0)));
    world.run_for(A_WHILE);
    assert!(world.model.devices[&node_id(0)].authorized);
    world.assert_converged();
}

/// Whether someone else has signed in cannot be read: the policy waits, and keeps its precedence.
#[test]
fn a_bound_device_whose_owner_cannot_be_read_gets_nothing() {
    for field in [DeviceField::Tags, DeviceField::User] {
        let mut world = world(1);
        let device = world.model.devices.get_mut(&node_id(0)).unwrap();
        device.key_expiry_disabled = false;
        world.apply(Policy {
            priority: 10,
            ..policy(0, key_expiry(false))
        });
        world.apply(Policy {
            target: Target::Device(DeviceTarget {
                identity: Identity::NodeId(node_id(0)),
                tags: TagSet::new(),
                users: Vec::new(),
            }),
            ..policy(1, key_expiry(true))
        });
        world.start();
        world.run_until(SOON);
        world.clear_seen();
        let device = world.model.devices.get_mut(&node_id(0)).unwrap();
        device.key_expiry_disabled = true;
        let unreadable = [field].into_iter().collect();
        world.model.unreadable.insert(node_id(0), unreadable);
        world.run_for(A_WHILE);
        assert!(world.writes().is_empty(), "{:?}", world.writes());
        let state = &world.last_reports[&policy_key(0)].state;
        let State::Bound(report) = state else {
            panic!("{state:?}");
        };
        let holds: Vec<_> = report.differences.iter().map(|it| &it.hold).collect();
        assert!(
            matches!(holds[..], [Some(Hold::Unreadable(_))]),
            "{holds:?}"
        );
        world.model.unreadable.clear();
        world.run_for(A_WHILE);
        assert!(!world.model.devices[&node_id(0)].key_expiry_disabled);
    }
}

fn key_expiry(disabled: bool) -> DesiredSettings {
    DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(disabled)].into(),
        ..DesiredSettings::default()
    }
}
