//! Single faults and the reaction of the engine.

use std::{sync::Arc, time::Duration};

use super::{
    World,
    builders::{SOON, attributes, key, policy, policy_key, tags, world},
    counted::{assert_idle, counts, everything},
    model::{device, failure, node_id},
};
use crate::{
    model::{NodeId, Reason, Route, RouteSet},
    plan::{DesiredSettings, ListOwnership, Ownership, Policy},
    tailnet::{Input, Notification, Request, Retry, State},
};

/// A device with the two attributes that its policy declares.
fn settled() -> World {
    let mut world = world(1);
    world.apply(policy(0, attributes(&[("a", "gold"), ("b", "gold")])));
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    world.clear_seen();
    world
}

fn has(world: &World, name: &str) -> bool {
    world.model.attributes[&node_id(0)].contains_key(&key(name))
}

#[test]
fn a_refused_batch_is_split_until_the_one_entry_is_found() {
    let mut world = world(50);
    world.model.refuses_attributes_of = Some(node_id(33));
    for number in 0..50 {
        world.apply(policy(number, attributes(&[("a", "gold")])));
    }
    world.start();
    world.run_until(SOON);
    for number in 0..50 {
        let reached = world.model.attributes[&node_id(number)].contains_key(&key("a"));
        assert_eq!(reached, number != 33, "device {number}");
    }
    assert!(world.writes().len() <= 13, "{}", world.writes().len());
    world.model.refuses_attributes_of = None;
    world.run_for(Duration::from_secs(800));
    world.assert_converged();
}

#[test]
fn a_device_that_always_fails_holds_up_no_other() {
    let mut world = world(60);
    world.model.broken = Some(node_id(7));
    for number in 0..60 {
        let desired = if number % 2 == 0 {
            attributes(&[("a", "gold")])
        } else {
            tags(&["tag:a"])
        };
        world.apply(policy(number, desired));
    }
    world.start();
    world.run_until(SOON);
    let untagged = world
        .model
        .devices
        .values()
        .filter(|device| device.tags.is_empty());
    assert_eq!(untagged.count(), 31);
    let named = world
        .model
        .attributes
        .values()
        .filter(|values| !values.is_empty());
    assert_eq!(named.count(), 30);
}

/// A hanging request blocks its lane for a moment only, not until it times out.
#[test]
fn devices_that_never_answer_delay_no_other() {
    for hanging in [8, 20] {
        let mut world = world(hanging + 1);
        for number in 0..=hanging {
            let desired = if number % 2 == 0 {
                attributes(&[("a", "gold")])
            } else {
                tags(&["tag:a"])
            };
            world.apply(policy(number, desired));
        }
        world.start();
        world.run_until(SOON);
        let ids = (0..hanging).map(node_id);
        world.model.hanging = ids.collect();
        for number in 0..hanging {
            // A read or a write of each of them would correct this drift.
            let attributes = world.model.attributes.get_mut(&node_id(number));
            attributes.unwrap().clear();
            let device = world.model.devices.get_mut(&node_id(number)).unwrap();
            device.tags.clear();
        }
        world.run_for(Duration::from_mins(10));
        let healthy = node_id(hanging);
        world.apply(policy(hanging, attributes(&[("a", "silver")])));
        let changed = |world: &World| {
            let value = world.model.attributes[&healthy].get(&key("a"));
            value.is_some_and(|value| value.value == "silver")
        };
        let start = world.clock;
        while !changed(&world) {
            world.run_for(Duration::from_millis(100));
            let until = start + Duration::from_secs(12);
            assert!(world.clock < until, "{hanging} hold it up");
        }
    }
}

/// A status write in flight may arrive after its object is gone and another object has the same name.
#[test]
fn the_record_of_a_deleted_object_does_not_apply_to_a_new_one_of_its_name() {
    let mut world = world(1);
    world.apply(policy(0, attributes(&[("a", "gold")])));
    world.start();
    while world
        .seen
        .reports
        .iter()
        .all(|(_, report)| report.record.owned.is_empty())
    {
        world.run_for(Duration::from_millis(1));
    }
    let (key, previous) = world.seen.reports.last().unwrap().clone();
    world.remove(&key);
    world.show_policy(&key);
    // Long enough for all reads that the engine needs before the write.
    let slowly = world.clock + Duration::from_secs(5);
    world.keeping.insert(key.clone(), slowly);
    world.apply(policy(0, attributes(&[("a", "gold")])));
    world.show_policy(&key);
    let uid = world.policies[&key].policy.uid.clone();
    assert_ne!(uid, previous.uid);
    world.clear_seen();
    // Each request is checked against the record before it, and the record is that of this object.
    world.run_until(SOON);
    assert_eq!(world.writes().len(), 1);
    assert!(has(&world, "a"));
    assert!(
        world
            .seen
            .reports
            .iter()
            .all(|(_, report)| report.uid == uid)
    );
    assert_eq!(world.owned(&key).names(), previous.record.owned.names());
}

#[test]
fn a_change_without_an_effect_is_reported_and_not_repeated_at_once() {
    let mut world = world(1);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    for _ in 0..600 {
        world.run_for(Duration::from_secs(1));
        world
            .model
            .devices
            .get_mut(&node_id(0))
            .unwrap()
            .tags
            .clear();
    }
    assert!(world.writes().len() < 30, "{} writes", world.writes().len());
}

#[test]
fn an_impostor_under_the_name_of_a_bound_device_is_not_touched() {
    let mut world = world(1);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    let mut impostor = device(0);
    impostor.node_id = node_id(9);
    world.model.remove(&node_id(0));
    world.model.add(impostor);
    world.run_for(Duration::from_mins(5));
    // One read of the device that lists lack proves that it is gone.
    assert_eq!(counts(&world)[1..], [1, 0, 0, 0]);
    world.assert_converged();
    let reason = &world.last_reports[&policy_key(0)].state;
    assert!(matches!(reason, State::Unbound { .. }), "{reason:?}");
}

#[test]
fn the_outcome_of_the_last_request_is_reported_after_a_stop() {
    let mut world = world(1);
    world.apply(policy(0, everything()));
    world.start();
    while world.writes().is_empty() {
        world.run_for(Duration::from_millis(10));
    }
    world.clear_seen();
    world.step(Input::Stop);
    world.run_for(SOON);
    assert!(world.seen.requests.is_empty());
    assert!(world.engine.is_idle() && world.engine.wake_at().is_none());
    assert_eq!(world.seen.notifications.len(), 1);
    let [(_, report)] = world.seen.reports.as_slice() else {
        panic!("{:?}", world.seen.reports);
    };
    assert!(report.changed_at.is_some());
}

#[test]
fn a_list_from_before_a_write_does_not_replace_newer_state() {
    let mut world = world(1);
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    world.faults.list_delay = Duration::from_secs(20);
    while world.seen.requests.is_empty() {
        world.run_for(Duration::from_secs(1));
    }
    // The list in flight shows the device without the tag.
    world.apply(policy(0, tags(&["tag:a"])));
    world.run_for(Duration::from_secs(40));
    world.assert_converged();
    assert_eq!(world.writes().len(), 1);
}

/// Else the request to add a route would take away those that were added meanwhile.
#[test]
fn a_list_from_before_a_read_of_routes_does_not_replace_them() {
    let route = |route: &str| route.parse::<Route>().unwrap();
    let mut world = world(1);
    world.apply(policy(0, DesiredSettings::default()));
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    world.faults.list_delay = Duration::from_secs(5);
    while world.seen.requests.is_empty() {
        world.run_for(Duration::from_millis(100));
    }
    world.run_for(Duration::from_secs(1));
    let desired = DesiredSettings {
        enabled_routes: Some([route("10.1.0.0/16")].into()),
        ..DesiredSettings::default()
    };
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    let added: RouteSet = [route("10.1.0.0/16"), route("10.9.0.0/16")].into();
    device.enabled_routes = Some(added.clone());
    world.apply(Policy {
        ownership: Ownership {
            enabled_routes: ListOwnership::AtLeast,
            ..Ownership::default()
        },
        ..policy(0, desired)
    });
    world.run_for(Duration::from_secs(8));
    assert_eq!(world.model.devices[&node_id(0)].enabled_routes, Some(added));
    assert!(world.writes().is_empty(), "{:?}", world.writes());
}

#[test]
fn a_change_whose_response_was_lost_is_verified_reported_and_not_repeated() {
    for desired in [tags(&["tag:a"]), attributes(&[("a", "gold")])] {
        let mut world = world(1);
        world.apply(policy(0, desired));
        world.start();
        world.lose_first(|world| world.writes().len(), true);
        world.run_for(SOON);
        world.assert_converged();
        assert_eq!(world.writes().len(), 1);
        let reported = world.seen.notifications.iter();
        let changed = reported.filter(|(_, reported)| matches!(reported, Notification::Changed(_)));
        assert_eq!(changed.count(), 1);
    }
}

#[test]
fn a_change_whose_response_was_lost_is_not_repeated_unread_for_a_policy_that_comes_back() {
    let mut world = world(1);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.lose_first(|world| world.writes().len(), true);
    // Neither a read nor a list succeeds while the policy is gone.
    world.faults.rate_limited = 1.0;
    world.run_for(Duration::from_secs(1));
    world.delete(&policy_key(0));
    world.run_for(Duration::from_secs(1));
    world.apply(policy(0, tags(&["tag:a"])));
    world.run_for(Duration::from_secs(1));
    world.faults.rate_limited = 0.0;
    world.run_for(SOON);
    world.assert_converged();
    assert_eq!(world.writes().len(), 1);
}

#[test]
fn a_device_that_is_gone_with_a_lost_answer_and_without_a_policy_is_looked_up_no_longer() {
    let mut world = world(2);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.lose_first(|world| world.writes().len(), true);
    world.faults.rate_limited = 1.0;
    world.run_for(Duration::from_secs(1));
    world.delete(&policy_key(0));
    world.model.remove(&node_id(0));
    world.faults.rate_limited = 0.0;
    world.run_for(Duration::from_mins(10));
    assert_idle(&mut world);
    assert!(!world.engine.remembers(&node_id(0)));
}

#[test]
fn one_short_list_does_not_prove_that_a_device_is_gone() {
    let mut world = world(1);
    world.apply(policy(0, tags(&["tag:a"])));
    world.start();
    world.run_until(SOON);
    // Another device of the name. It is tagged too, but differently.
    let mut other = device(0);
    other.node_id = node_id(9);
    other.tags = ["tag:b".parse().unwrap()].into();
    world.model.add(other.clone());
    world.model.left_out = Some(node_id(0));
    world.clear_seen();
    while world.seen.requests.is_empty() {
        world.run_for(Duration::from_secs(1));
    }
    world.run_for(Duration::from_secs(1));
    world.model.left_out = None;
    world.run_for(Duration::from_mins(2));
    world.assert_converged();
    assert_eq!(world.model.devices[&node_id(9)].tags, other.tags);
    // Once the device is gone for good, the policy binds the other one: it is tagged as well.
    world.model.remove(&node_id(0));
    world.run_for(Duration::from_secs(200));
    world.assert_converged();
    let bound: Option<NodeId> = world.policies[&policy_key(0)]
        .record
        .bound
        .clone()
        .map(|b| b.node);
    assert_eq!(bound, Some(node_id(9)));
}

#[test]
fn a_deletion_without_an_effect_is_not_forgotten() {
    let mut world = settled();
    world.model.keeps_attributes = true;
    world.apply(policy(0, attributes(&[("a", "gold")])));
    world.run_for(SOON);
    assert!(has(&world, "b"));
    world.model.keeps_attributes = false;
    world.run_for(Duration::from_mins(10));
    world.assert_converged();
    assert!(!has(&world, "b"));
}

#[test]
fn a_new_leader_deletes_keys_that_the_previous_one_owned() {
    let mut world = settled();
    world.end_term();
    // The previous leader set b for an edit that this process never saw. That edit declared b again.
    let kept = world.policies.get_mut(&policy_key(0)).unwrap();
    let fact = (kept.policy.uid.clone(), key("c"), node_id(0));
    world.reported.managed.insert(fact);
    Arc::make_mut(&mut kept.record.owned).add(&node_id(0), [key("c")]);
    let person = world.model.attributes[&node_id(0)][&key("a")].clone();
    world
        .model
        .attributes
        .get_mut(&node_id(0))
        .unwrap()
        .insert(key("c"), person);
    world.show_policy(&policy_key(0));
    world.start_term();
    world.run_for(SOON);
    world.assert_converged();
    assert!(!has(&world, "c"));
}

/// A person sets the policy's value of `a` for another key too.
fn a_person_sets(world: &mut World, name: &str) {
    let attributes = world.model.attributes.get_mut(&node_id(0)).unwrap();
    let value = attributes[&key("a")].clone();
    attributes.insert(key(name), value);
}

/// Another leader has recorded that the policy no longer owns a key.
fn disown(world: &mut World, name: &str) {
    let mut owned = world.owned(&policy_key(0));
    owned.retain(&node_id(0), |it| *it != key(name));
    let kept = world.policies.get_mut(&policy_key(0)).unwrap();
    kept.record.owned = Arc::new(owned);
}

#[test]
fn a_key_that_another_leader_has_released_is_not_owned_in_a_later_term() {
    let mut world = settled();
    world.end_term();
    // The other leader deletes b for an edit, and the policy no longer owns it. Then a person sets b.
    world.apply(policy(0, attributes(&[("a", "gold")])));
    disown(&mut world, "b");
    world.run_for(SOON);
    a_person_sets(&mut world, "b");
    world.start_term();
    world.run_for(SOON);
    assert!(has(&world, "b"));
}

#[test]
fn a_term_that_follows_another_at_once_starts_from_what_is_stored() {
    let mut world = settled();
    disown(&mut world, "b");
    // The end of the term between the two was never reported.
    world.start_term();
    world.apply(policy(0, attributes(&[("a", "gold")])));
    world.run_for(SOON);
    assert!(has(&world, "b"));
}

#[test]
fn the_time_of_the_last_change_is_not_that_of_an_earlier_term() {
    let mut world = settled();
    assert!(world.last_reports[&policy_key(0)].changed_at.is_some());
    world.end_term();
    world.start_term();
    world.run_for(SOON);
    assert_eq!(world.last_reports[&policy_key(0)].changed_at, None);
}

#[test]
fn a_new_leader_reads_attributes_before_it_trusts_them() {
    let mut world = settled();
    world.end_term();
    world.model.attributes.get_mut(&node_id(0)).unwrap().clear();
    world.start_term();
    world.run_for(SOON);
    world.assert_converged();
    assert!(has(&world, "a"));
}

#[test]
fn a_new_leader_reports_an_unavailable_tailnet() {
    let mut world = world(1);
    world.apply(policy(0, attributes(&[("a", "gold")])));
    world.step(Input::connection(Err(failure(
        Reason::TailnetNotFound,
        Retry::Later,
    ))));
    world.show_policy(&policy_key(0));
    world.step(Input::PoliciesListed);
    world.run_for(SOON);
    assert!(world.seen.reports.is_empty());
    world.start_term();
    world.run_for(SOON);
    let states = world.seen.reports.iter().map(|(_, report)| &report.state);
    let states: Vec<_> = states.collect();
    assert!(matches!(states[..], [State::Unavailable(_)]), "{states:?}");
}

#[test]
fn an_outage_is_reported_once_and_ends_with_the_next_list() {
    let mut world = settled();
    world.faults.list_down = true;
    world.apply(policy(0, DesiredSettings::default()));
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.count(|request| *request != Request::Devices), 0);
    let reported = world.seen.reports.iter().map(|(_, report)| &report.state);
    let reported: Vec<_> = reported
        .filter(|state| matches!(state, State::Unavailable(_)))
        .collect();
    assert_eq!(reported.len(), 1);
    let lists = world.seen.requests.len();
    assert!(
        (10..40).contains(&lists),
        "{lists} lists in an hour of outage"
    );
    world.faults.list_down = false;
    world.run_for(Duration::from_mins(10));
    world.assert_converged();
}
