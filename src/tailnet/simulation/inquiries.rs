//! Inquiries of those who work beside the engine, as an invite makes them, while lists lack devices.

use std::time::Duration;

use super::{
    World,
    chaos::hostname,
    counted::world,
    model::{device, node_id},
    short_lists::A_WHILE,
};
use crate::{
    model::{Device, NodeId},
    plan::{Binding, DeviceTarget, Target},
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
    fn inquire(&mut self, bound: Option<&NodeId>) -> Found {
        let found = self.engine.find(&target(), bound);
        // As the driver does after each message.
        self.step(Input::Wake);
        found
    }

    /// Asks as often as an invite does that waits, and gives what was certain in the end, if ever.
    fn inquire_for(&mut self, time: Duration, bound: Option<&NodeId>) -> Option<NodeId> {
        let end = self.clock + time;
        while self.clock < end {
            if let Ok((Binding::Device(id), None)) = self.inquire(bound) {
                return Some(id);
            }
            self.run_for(Duration::from_secs(5));
        }
        None
    }
}

/// Two devices that have one hostname, of which no policy knows.
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
fn of_two_devices_of_a_name_short_lists_make_none_certain() {
    for lists in [1, 2, 5] {
        for lacking in [vec![0], vec![9], (0..4).collect()] {
            let mut world = two_of_a_name();
            world.run_for(A_WHILE);
            let found = world.inquire(None);
            assert!(matches!(found, Ok((Binding::Ambiguous(_), None))));
            world.lack(lists, lacking);
            let certain = world.inquire_for(Duration::from_mins(10), None);
            assert_eq!(certain, None, "{lists} lists");
        }
    }
}

#[test]
fn a_name_is_not_certain_by_the_first_list_alone() {
    let mut world = two_of_a_name();
    world.lack(1, [9]);
    while world.engine.polling.seen == 0 {
        world.run_for(Duration::from_millis(100));
    }
    let found = world.inquire(None).unwrap();
    let first = (Binding::Device(node_id(0)), Some(Doubt::OneList));
    assert_eq!(found, first);
    assert_eq!(world.inquire_for(A_WHILE, None), None);
    // The second list is asked for soon.
    let mut world = self::world(1);
    world.start();
    let certain = world.inquire_for(Duration::from_secs(15), None);
    assert_eq!(certain, Some(node_id(0)));
}

#[test]
fn the_recorded_device_keeps_its_place_however_many_lists_lack_it() {
    for lists in [1, 2, 10] {
        for restarts in [false, true] {
            let mut world = two_of_a_name();
            world.run_for(A_WHILE);
            let bound = node_id(0);
            assert_eq!(
                world.inquire(Some(&bound)).unwrap().0.nodes().next(),
                Some(&bound)
            );
            world.lack(lists, [0]);
            if restarts {
                world.kill();
                world.run_for(Duration::from_secs(1));
            }
            while !world.model.short.is_empty() {
                let found = world.inquire(Some(&bound));
                let other = matches!(&found, Ok((Binding::Device(id), _)) if *id != bound);
                assert!(!other, "{found:?}");
                world.run_for(Duration::from_secs(1));
            }
            let certain = world.inquire_for(A_WHILE, Some(&bound));
            assert_eq!(certain, Some(bound));
        }
    }
}

#[test]
fn a_recorded_device_that_is_gone_is_followed_after_two_lists_and_one_lookup() {
    for restarts in [false, true] {
        let mut world = two_of_a_name();
        world.run_for(A_WHILE);
        let bound = node_id(0);
        world.inquire(Some(&bound)).unwrap();
        world.model.remove(&bound);
        world.forget_seen();
        if restarts {
            world.kill();
        }
        // Before the next list nobody can know.
        while world.count(|request| *request == Request::Devices) == 0 {
            world.run_for(Duration::from_millis(500));
        }
        world.run_for(Duration::from_secs(1));
        let certain = world.inquire_for(A_WHILE, Some(&bound));
        assert_eq!(certain, Some(node_id(9)));
        assert_eq!(world.lookups(0), 1);
    }
}

#[test]
fn a_device_that_nobody_asks_for_any_longer_costs_no_lookup() {
    let mut world = two_of_a_name();
    world.run_for(A_WHILE);
    world.inquire(Some(&node_id(0))).unwrap();
    world.run_for(Duration::from_mins(30));
    world.model.remove(&node_id(0));
    world.forget_seen();
    world.run_for(A_WHILE);
    assert_eq!(world.lookups(0), 0);
}
