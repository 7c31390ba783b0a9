//! `deletionPolicy: Clear` of a policy that was held and never sent anything: a declared route that a
//! person approved stays.

use std::time::Duration;

use super::{
    World,
    builders::{SOON, clearing, policy_key, servers},
    model::node_id,
};
use crate::{
    model::{ChangeLimit, Route, RouteSet},
    plan::{DesiredSettings, ListOwnership, Mode, Ownership, Policy},
};

fn subnet() -> RouteSet {
    [Route::reported("10.0.0.0/16").unwrap()].into()
}

/// A person has approved the route on every fourth device. The policy declares it on all of them.
fn approved_by_a_person(count: usize) -> World {
    let mut world = servers(count);
    for number in (0..count).step_by(4) {
        let device = world.model.devices.get_mut(&node_id(number)).unwrap();
        device.enabled_routes = Some(subnet());
    }
    world
}

fn with_the_route(world: &World) -> usize {
    let devices = world.model.devices.values();
    devices
        .filter(|device| device.enabled_routes == Some(subnet()))
        .count()
}

fn routed(mode: Mode, extent: ListOwnership) -> Policy {
    Policy {
        mode,
        ownership: Ownership {
            enabled_routes: extent,
            ..Ownership::default()
        },
        ..clearing(DesiredSettings {
            enabled_routes: Some(subnet()),
            ..DesiredSettings::default()
        })
    }
}

fn release(world: &mut World, restarts: bool) {
    if restarts {
        world.kill();
        world.run_for(SOON);
    }
    world.delete(&policy_key(0));
    world.run_for(Duration::from_mins(5));
}

#[test]
fn unapproved_policy_withdraws_nothing_when_it_is_deleted() {
    for extent in [ListOwnership::Exact, ListOwnership::AtLeast] {
        for restarts in [false, true] {
            let mut world = approved_by_a_person(8);
            world.apply(routed(Mode::Approve, extent));
            world.start();
            world.run_for(SOON);
            release(&mut world, restarts);
            assert!(world.writes().is_empty(), "{:?}", world.writes());
            assert_eq!(with_the_route(&world), 2);
            assert!(!world.policies.contains_key(&policy_key(0)));
        }
    }
}

#[test]
fn a_policy_that_the_limit_holds_withdraws_nothing_when_it_is_deleted() {
    for restarts in [false, true] {
        let mut world = approved_by_a_person(20);
        world.limit(ChangeLimit::Devices(5));
        world.apply(routed(Mode::Enforce, ListOwnership::Exact));
        world.start();
        world.run_for(SOON);
        release(&mut world, restarts);
        assert!(world.writes().is_empty(), "{:?}", world.writes());
        assert_eq!(with_the_route(&world), 5);
        assert!(!world.policies.contains_key(&policy_key(0)));
    }
}

#[test]
fn a_policy_that_was_not_held_withdraws_what_it_names_everywhere() {
    for restarts in [false, true] {
        let mut world = approved_by_a_person(8);
        world.apply(routed(Mode::Enforce, ListOwnership::AtLeast));
        world.start();
        world.run_for(Duration::from_mins(5));
        assert_eq!(with_the_route(&world), 8);
        release(&mut world, restarts);
        assert_eq!(with_the_route(&world), 0);
        assert!(!world.policies.contains_key(&policy_key(0)));
    }
}
