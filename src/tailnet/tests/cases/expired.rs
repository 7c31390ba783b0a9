//! Attributes with an expiry: a value that exists after it belongs to someone else.

use std::time::Duration;

use super::{
    World,
    builders::{SOON, attributes, fleet, key, policy, policy_key, servers, string, world},
    model::node_id,
};
use crate::{
    model::{DesiredAttribute, ReportedAttribute},
    plan::{Deletion, DesiredSettings, Policy},
    tailnet::State,
};

const SOON_OVER: Duration = Duration::from_mins(5);

/// `custom:a` for a few minutes, and `custom:b` without an expiry.
fn temporary(world: &World) -> DesiredSettings {
    let mut desired = attributes(&[("b", "gold")]);
    let expiry = Some(world.wall() + SOON_OVER);
    let value = string("gold");
    let attributes = desired.attributes.as_mut().unwrap();
    attributes.insert(key("a"), DesiredAttribute { value, expiry });
    desired
}

/// A person sets `custom:a` on every device.
fn set_by_a_person(world: &mut World) {
    for attributes in world.model.attributes.values_mut() {
        let value = ReportedAttribute {
            value: string("theirs").to_json(),
            expiry: None,
        };
        assert!(attributes.insert(key("a"), value).is_none());
    }
}

fn is_theirs(world: &World) -> bool {
    let mut all = world.model.attributes.values();
    all.all(|attributes| {
        attributes
            .get(&key("a"))
            .is_some_and(|it| it.expiry.is_none())
    })
}

fn single(desired: DesiredSettings) -> Policy {
    policy(0, desired)
}

/// The value of the policy has expired, and a person has set another one since.
fn replaced(policy: fn(DesiredSettings) -> Policy, deletion: Deletion) -> World {
    let mut world = servers(1);
    let desired = temporary(&world);
    world.apply(Policy {
        deletion,
        ..policy(desired)
    });
    world.start();
    world.run_until(SOON);
    assert!(world.model.attributes[&node_id(0)].contains_key(&key("a")));
    world.run_for(SOON_OVER);
    set_by_a_person(&mut world);
    world.run_for(Duration::from_mins(15));
    assert!(is_theirs(&world));
    world
}

#[test]
fn a_value_set_after_an_expiry_survives_that_the_key_is_no_longer_declared() {
    for policy in [single as fn(DesiredSettings) -> Policy, fleet] {
        let mut world = replaced(policy, Deletion::Retain);
        world.apply(policy(attributes(&[("b", "gold")])));
        world.run_for(Duration::from_mins(15));
        world.assert_converged();
        assert!(is_theirs(&world));
    }
}

#[test]
fn a_value_set_after_an_expiry_survives_that_the_key_was_taken_out_while_no_controller_ran() {
    for policy in [single as fn(DesiredSettings) -> Policy, fleet] {
        for restarted in [false, true] {
            let mut world = servers(1);
            let desired = temporary(&world);
            world.apply(policy(desired));
            world.start();
            world.run_until(SOON);
            world.end_term();
            world.apply(policy(attributes(&[("b", "gold")])));
            world.run_for(SOON_OVER);
            set_by_a_person(&mut world);
            if restarted {
                world.kill();
            } else {
                world.start_term();
            }
            world.run_for(Duration::from_mins(15));
            world.assert_converged();
            assert!(is_theirs(&world));
        }
    }
}

#[test]
fn a_value_set_after_an_expiry_survives_the_deletion_of_the_policy() {
    for policy in [single as fn(DesiredSettings) -> Policy, fleet] {
        for restarted in [false, true] {
            let mut world = replaced(policy, Deletion::Clear);
            world.delete(&policy_key(0));
            if restarted {
                world.kill();
            }
            world.run_for(Duration::from_mins(2));
            assert!(world.policies.is_empty());
            let left = &world.model.attributes[&node_id(0)];
            assert!(is_theirs(&world) && !left.contains_key(&key("b")));
        }
    }
}

#[test]
fn an_expired_value_of_another_policy_is_no_conflict_and_is_cleared() {
    let mut world = world(1);
    world.apply(Policy {
        deletion: Deletion::Clear,
        target: super::builders::hostname("host-0"),
        ..policy(1, attributes(&[("a", "gold")]))
    });
    let desired = temporary(&world);
    world.start();
    world.run_until(SOON);
    world.apply(single(desired));
    world.run_for(SOON);
    let lost = |world: &World| match &world.last_reports[&policy_key(0)].state {
        State::Bound(report) => (report.conflicts.len(), report.expired.len()),
        state => panic!("{state:?}"),
    };
    assert_eq!(lost(&world), (1, 0));
    world.run_for(SOON_OVER);
    assert_eq!(lost(&world), (0, 1));
    world.assert_converged();

    world.delete(&policy_key(1));
    world.run_for(SOON);
    assert!(!world.policies.contains_key(&policy_key(1)));
    let left = world.model.attributes[&node_id(0)].keys();
    assert!(left.eq([&key("b")]));
}
