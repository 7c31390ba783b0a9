//! Device lookups by others than policies, such as invites, while lists lack devices.

use std::time::Duration;

use super::{
    World,
    builders::{attributes, hostname, policy, policy_key, tags, world},
    model::{device, node_id},
    short_lists::A_WHILE,
};
use crate::{
    model::{Device, NodeId, SettingValue},
    plan::{Binding, DesiredSettings, DeviceTarget, Identity, Policy, Target},
    tailnet::{Failure, Input, Request, device_lookup::Doubt},
};

type Found = Result<(Binding, Option<Doubt>), Failure>;

fn target() -> DeviceTarget {
    match hostname("host-0") {
        Target::Device(target) => target,
        Target::Selector(_) => unreachable!(),
    }
}

impl World {
    fn look_up(&mut self, bound: Option<&NodeId>) -> Found {
        let found = self.engine.find(&target(), bound);
        // The driver does this after each message.
        self.step(Input::Wake);
        found
    }

    /// Looks a device up as often as a pending invite does. Returns the device once it is certain.
    fn look_up_for(&mut self, time: Duration, bound: Option<&NodeId>) -> Option<NodeId> {
        let end = self.clock + time;
        while self.clock < end {
            if let Ok((Binding::Device(id), None)) = self.look_up(bound) {
                return Some(id);
            }
            self.run_for(Duration::from_secs(5));
        }
        None
    }
}

/// Two devices with one hostname that no policy targets.
fn two_of_a_name() -> World {
    let mut world = world(8);
    world.model.add(Device {
        node_id: node_id(9),
        hostname: "host-0".to_owned(),
        ..device(9)
    });
    world.start();
    world
}

#[test]
fn short_lists_make_neither_of_two_devices_with_one_hostname_certain() {
    for lists in [1, 2, 5] {
        for lacking in [vec![0], vec![9], (0..4).collect()] {
            let mut world = two_of_a_name();
            world.run_for(A_WHILE);
            let found = world.look_up(None);
            assert!(matches!(found, Ok((Binding::Ambiguous(_), None))));
            world.lack(lists, lacking);
            let certain = world.look_up_for(Duration::from_mins(10), None);
            assert_eq!(certain, None, "{lists} lists");
        }
    }
}

#[test]
fn the_first_list_alone_makes_no_device_certain() {
    let mut world = two_of_a_name();
    world.lack(1, [9]);
    while world.engine.observed().lists() == 0 {
        world.run_for(Duration::from_millis(100));
    }
    let found = world.look_up(None).unwrap();
    let first = (Binding::Device(node_id(0)), Some(Doubt::OneList));
    assert_eq!(found, first);
    assert_eq!(world.look_up_for(A_WHILE, None), None);
    // The second list is requested soon.
    let mut world = self::world(1);
    world.start();
    let certain = world.look_up_for(Duration::from_secs(15), None);
    assert_eq!(certain, Some(node_id(0)));
}

#[test]
fn the_recorded_device_stays_recorded_however_many_lists_lack_it() {
    for lists in [1, 2, 10] {
        for restarts in [false, true] {
            let mut world = two_of_a_name();
            world.run_for(A_WHILE);
            let bound = node_id(0);
            assert_eq!(
                world.look_up(Some(&bound)).unwrap().0.nodes().next(),
                Some(&bound)
            );
            world.lack(lists, [0]);
            if restarts {
                world.kill();
                world.run_for(Duration::from_secs(1));
            }
            while !world.model.short.is_empty() {
                let found = world.look_up(Some(&bound));
                let other = matches!(&found, Ok((Binding::Device(id), _)) if *id != bound);
                assert!(!other, "{found:?}");
                world.run_for(Duration::from_secs(1));
            }
            let certain = world.look_up_for(A_WHILE, Some(&bound));
            assert_eq!(certain, Some(bound));
        }
    }
}

#[test]
fn a_recorded_device_that_is_gone_is_replaced_after_two_lists_and_one_read() {
    for restarts in [false, true] {
        let mut world = two_of_a_name();
        world.run_for(A_WHILE);
        let bound = node_id(0);
        world.look_up(Some(&bound)).unwrap();
        world.model.remove(&bound);
        world.clear_seen();
        if restarts {
            world.kill();
        }
        // Before the next list the device may still be there.
        while world.count(|request| *request == Request::Devices) == 0 {
            world.run_for(Duration::from_millis(500));
        }
        world.run_for(Duration::from_secs(1));
        let certain = world.look_up_for(A_WHILE, Some(&bound));
        assert_eq!(certain, Some(node_id(9)));
        assert_eq!(world.lookups(0), 1);
    }
}

#[test]
fn a_lookup_that_ended_costs_no_read() {
    let mut world = two_of_a_name();
    world.run_for(A_WHILE);
    world.look_up(Some(&node_id(0))).unwrap();
    world.run_for(Duration::from_mins(30));
    world.model.remove(&node_id(0));
    world.clear_seen();
    world.run_for(A_WHILE);
    assert_eq!(world.lookups(0), 0);
}

#[test]
fn a_policy_acts_once_a_read_shows_that_its_device_is_what_it_says() {
    let mut world = world(1);
    world.apply(policy(0, tags(&["tag:b"])));
    let mut waiting = policy(1, attributes(&[("a", "gold")]));
    waiting.target = Target::Device(DeviceTarget {
        identity: Identity::NodeId(node_id(0)),
        tags: ["tag:b".parse().unwrap()].into(),
        users: Vec::new(),
    });
    world.apply(waiting);
    world.start();
    // Less than a poll: only the read after the first write shows the tag.
    world.run_for(Duration::from_secs(40));
    assert_eq!(world.writes().len(), 2, "{:?}", world.writes());
    world.assert_converged();
}

/// The first list of a process may lack the device of the other policy, which could have the address already.
#[test]
fn a_change_that_waits_for_the_device_of_another_policy_goes_on_once_that_one_is_gone_or_found() {
    let of = |number, tags: &[&str], desired| Policy {
        target: Target::Device(DeviceTarget {
            identity: Identity::NodeId(node_id(number)),
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            users: Vec::new(),
        }),
        ..policy(number, desired)
    };
    for is_found in [false, true] {
        let mut world = world(2);
        let address = DesiredSettings {
            settings: [SettingValue::Ipv4("100.80.9.9".parse().unwrap())].into(),
            ..DesiredSettings::default()
        };
        world.apply(of(0, &[], address));
        let waiting = Policy {
            key: policy_key(2),
            ..of(1, &["tag:b"], attributes(&[("a", "gold")]))
        };
        world.apply(waiting);
        if is_found {
            world.apply(of(1, &[], tags(&["tag:b"])));
        }
        world.start();
        while world.engine.observed().lists() == 0 {
            world.run_for(Duration::from_millis(10));
        }
        if !is_found {
            world.delete(&policy_key(2));
        }
        world.run_for(Duration::from_mins(5));
        world.assert_converged();
    }
}
