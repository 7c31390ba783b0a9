//! Deletion of inactive devices: one test for each guard.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::json;

use super::{
    super::{
        World,
        builders::{SOON, fleet, policy, policy_key, servers, world},
        model::node_id,
    },
    DAY, HOUR, deleting_inactive, leave,
};
use crate::{
    model::{ChangeLimit, NodeId},
    plan::{Deletion, DesiredSettings, Hold, Mode, Policy, Stage, Target},
    tailnet::{Input, Request, State},
};

/// Forty servers, `away` of them offline for 60 days, and a policy that deletes `max_per_day`.
fn abandoned(away: usize, max_per_day: u32) -> World {
    let mut world = servers(40);
    for device in world.model.devices.values_mut() {
        device.connected = Some(true);
    }
    for number in 0..away {
        leave(&mut world, number, 60 * DAY);
    }
    world.apply(fleet(deleting_inactive(max_per_day)));
    world.start();
    world
}

fn deleted(world: &World) -> Vec<NodeId> {
    let deleted = world.model.deleted.iter();
    deleted.map(|(_, id)| id.clone()).collect()
}

#[test]
fn devices_that_have_been_away_are_deleted_straight_after_the_second_list() {
    let mut world = abandoned(3, 5);
    world.run_until(SOON);
    assert_eq!(world.deletions(), 0);
    assert_eq!(world.stages(), [(Stage::Due, 3)]);
    world.run_for(Duration::from_mins(2));
    let gone: BTreeSet<NodeId> = deleted(&world).into_iter().collect();
    assert_eq!(gone, [node_id(0), node_id(1), node_id(2)].into());
    assert_eq!(world.deletions(), 3);
    assert_eq!(world.reported_changes(), 3);
    assert_eq!(world.stages(), [(Stage::Done, 3)]);
    world.assert_converged();
    // Each was read right before its deletion.
    assert_eq!(world.count(|r| matches!(r, Request::Device(_))), 3);
    world.clear_seen();
    world.run_for(3 * DAY);
    assert!(world.writes().is_empty());
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
}

#[test]
fn the_daily_limit_holds_however_often_the_process_dies() {
    let mut world = abandoned(12, 5);
    for _ in 0..4 {
        world.run_for(Duration::from_secs(70));
        world.kill();
    }
    world.run_for(HOUR);
    assert_eq!(deleted(&world).len(), 5);
    assert_eq!(world.stages(), [(Stage::Waiting, 7), (Stage::Done, 5)]);
    assert!(
        matches!(&world.last_reports[&policy_key(0)].state, State::Selector(reported) if reported.out_of_sync == 0)
    );
    world.assert_converged();
    world.run_for(22 * HOUR);
    assert_eq!(deleted(&world).len(), 5);
    world.run_for(2 * HOUR);
    assert_eq!(deleted(&world).len(), 10);
    world.run_for(DAY);
    assert_eq!(deleted(&world).len(), 12);
    world.assert_converged();
}

#[test]
fn deletions_of_the_day_count_after_a_policy_is_recreated() {
    for (name, restored) in [(0, false), (1, false), (0, true)] {
        let mut world = abandoned(12, 5);
        world.run_for(HOUR);
        assert_eq!(deleted(&world).len(), 5);
        if restored {
            // Its status is lost.
            let kept = world.policies.get_mut(&policy_key(0)).unwrap();
            kept.record.actions = Arc::default();
            world.kill();
        } else {
            world.delete(&policy_key(0));
            world.run_for(Duration::from_mins(1));
            let mut anew = fleet(deleting_inactive(5));
            anew.key = policy_key(name);
            world.apply(anew);
        }
        world.run_for(20 * HOUR);
        assert_eq!(deleted(&world).len(), 5, "{name}");
        world.run_for(4 * HOUR);
        assert_eq!(deleted(&world).len(), 10, "{name}");
    }
}

#[test]
fn a_crash_before_the_tailnet_counts_a_deletion_deletes_nothing() {
    let mut world = abandoned(3, 5);
    world.run_until(SOON);
    world.loses_tailnet_reports = true;
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
}

#[test]
fn a_device_that_comes_back_at_the_last_moment_stays() {
    let mut world = abandoned(1, 5);
    world.run_until(SOON);
    let id = node_id(0);
    while world.count(|request| *request == Request::Device(id.clone())) == 0 {
        world.run_for(Duration::from_millis(1));
    }
    let device = world.model.devices.get_mut(&id).unwrap();
    (device.connected, device.last_seen) = (Some(true), None);
    world.run_for(DAY);
    assert_eq!(world.deletions(), 0);
    world.assert_converged();
}

#[test]
fn a_device_is_deleted_once_it_has_been_away_long_enough_and_not_a_moment_earlier() {
    let mut world = abandoned(0, 5);
    world.run_until(SOON);
    leave(&mut world, 7, 29 * DAY);
    let due = world.is_in(DAY);
    world.run_for(2 * DAY);
    let [(at, id)] = world.model.deleted.as_slice() else {
        panic!("{:?}", world.model.deleted);
    };
    assert_eq!(*id, node_id(7));
    let late = at.duration_since(due);
    assert!((0..180).contains(&late.as_secs()), "{late:?}");
}

#[test]
fn nothing_is_deleted_after_a_list_that_lacks_many_devices() {
    let mut world = abandoned(0, 5);
    world.run_until(Duration::from_mins(4));
    // Lists that lack most devices. The listed ones include one that is inactive.
    let all = world.model.devices.clone();
    leave(&mut world, 7, 60 * DAY);
    world.model.devices.retain(|id, _| *id == node_id(7));
    world.run_for(Duration::from_mins(10));
    assert_eq!(world.deletions(), 0);
    world
        .model
        .devices
        .extend(all.into_iter().filter(|(id, _)| *id != node_id(7)));
    world.run_for(Duration::from_mins(30));
    assert_eq!(world.deletions(), 0);
    world.run_for(HOUR);
    assert_eq!(deleted(&world), [node_id(7)]);
}

#[test]
fn a_device_missing_from_the_last_list_is_not_deleted_by_an_older_list() {
    let mut world = abandoned(1, 5);
    world.model.left_out = Some(node_id(0));
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
    assert!(world.model.devices.contains_key(&node_id(0)));
}

#[test]
fn a_deletion_whose_response_was_lost_is_reported_once_and_counts() {
    for effect in [true, false] {
        let mut world = abandoned(2, 1);
        world.lose_first(World::deletions, effect);
        world.run_for(HOUR);
        assert_eq!(deleted(&world), [node_id(0)], "{effect}");
        assert_eq!(world.reported_changes(), 1);
        assert_eq!(world.stages(), [(Stage::Waiting, 1), (Stage::Done, 1)]);
        world.assert_converged();
    }
}

#[test]
fn a_crash_at_any_moment_deletes_no_more_than_allowed() {
    for pause in (0..6_000).step_by(100) {
        let mut world = abandoned(4, 1);
        world.faults.delay = Duration::from_millis(800);
        world.run_for(Duration::from_secs(50) + Duration::from_millis(5 * pause));
        world.kill();
        world.run_for(HOUR);
        assert_eq!(deleted(&world).len(), 1, "killed after {pause}");
        world.assert_converged();
    }
}

#[test]
fn two_policies_that_delete_one_device_delete_it_once_and_both_count_it() {
    let mut world = abandoned(1, 5);
    let mut other = fleet(deleting_inactive(5));
    other.key = policy_key(1);
    world.apply(other);
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 1);
    for number in 0..2 {
        let record = &world.policies[&policy_key(number)].record;
        assert!(record.actions.deletions[&node_id(0)].done, "{number}");
    }
    // A policy for this single device no longer finds it.
    world.apply(policy(0, DesiredSettings::default()));
    world.run_for(HOUR);
    world.assert_converged();
}

#[test]
fn a_deletion_counts_against_the_limit_of_changed_devices() {
    let mut world = abandoned(8, 8);
    world.settings.limit = ChangeLimit::Devices(5);
    world.step(Input::Settings(world.settings.clone()));
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
    let plan = world.held(&policy_key(0));
    assert_eq!((plan.devices, plan.limit), (8, Some(5)));
    // Nothing has begun, so nothing counts for the day.
    assert!(world.policies[&policy_key(0)].record.actions.is_empty());
}

#[test]
fn deletions_pending_approval_are_as_many_as_a_day_allows() {
    let mut world = abandoned(3, 2);
    let key = policy_key(0);
    world.apply(Policy {
        mode: Mode::Approve,
        ..fleet(deleting_inactive(2))
    });
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
    assert_eq!(world.held(&key).devices, 2);
    let hash = world.hash(&key);
    world.approve(&key, &format!("plan:{hash}"));
    world.run_for(HOUR);
    assert_eq!(deleted(&world).len(), 2);
    // The next day has its own approval.
    world.run_for(DAY);
    assert_eq!(deleted(&world).len(), 2);
    assert_eq!(world.held(&key).devices, 1);
}

#[test]
fn a_policy_for_one_device_deletes_nothing() {
    let mut world = world(1);
    leave(&mut world, 0, 60 * DAY);
    let single = policy(0, deleting_inactive(5));
    assert!(matches!(single.target, Target::Device(_)));
    world.apply(single);
    world.start();
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
}

#[test]
fn a_protected_device_is_not_deleted_and_uses_no_turn() {
    let mut world = abandoned(4, 2);
    let protected = json!([{"trustClaims": true, "hostnames": ["host-0", "host-1"]}]);
    world.guard(&json!({"allowedPolicies": [{}], "protectedDevices": protected}));
    world.run_for(HOUR);
    let gone: BTreeSet<NodeId> = deleted(&world).into_iter().collect();
    assert_eq!(gone, [node_id(2), node_id(3)].into());
    let State::Selector(reported) = &world.last_reports[&policy_key(0)].state else {
        panic!("{:#?}", world.last_reports);
    };
    let holds: Vec<_> = reported.differences.iter().map(|it| &it.hold).collect();
    assert!(
        matches!(holds[..], [Some(Hold::Protected), Some(Hold::Protected)]),
        "{holds:?}"
    );
}

#[test]
fn a_rule_for_other_fields_allows_no_deletion() {
    let mut world = abandoned(4, 2);
    world.guard(&json!({"allowedPolicies": [{"fields": ["keyExpiry"]}]}));
    world.run_for(HOUR);
    assert_eq!(deleted(&world), []);
}

#[test]
fn deletions_of_the_previous_leader_count_against_the_plans_of_this_process() {
    let mut world = abandoned(8, 2);
    world.end_term();
    world.run_for(Duration::from_mins(5));
    // Meanwhile the other process deletes two devices and records that.
    let kept = world.policies.get_mut(&policy_key(0)).unwrap();
    let records = Arc::make_mut(&mut kept.record.actions);
    let now = world.start + jiff::SignedDuration::try_from(world.clock).unwrap();
    for number in 0..2 {
        records.begin_deletion(&node_id(number), String::new(), now);
    }
    world.show_policy(&policy_key(0));
    for number in 0..2 {
        world.model.remove(&node_id(number));
    }
    world.start_term();
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
    assert_eq!(world.stages(), [(Stage::Waiting, 6), (Stage::Done, 2)]);
    world.run_for(DAY);
    assert_eq!(deleted(&world).len(), 2);
}

#[test]
fn a_list_from_before_a_deletion_does_not_bring_the_device_back() {
    let mut world = abandoned(1, 5);
    let look = |request: &Request| matches!(request, Request::Device(_));
    while world.count(look) == 0 {
        world.run_for(Duration::from_millis(1));
    }
    // The API answers the list before the deletion, but the list arrives long after it.
    world.faults.list_delay = Duration::from_secs(20);
    world.step(Input::Poll);
    let mut lists = world.engine.observed().lists();
    for _ in 0..600 {
        world.run_for(Duration::from_millis(100));
        if world.engine.observed().lists() > lists && world.deletions() > 0 {
            lists = world.engine.observed().lists();
            assert_eq!(world.engine.observed().index().get(&node_id(0)), None);
        }
    }
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 1);
    assert_eq!(world.count(|r| matches!(r, Request::Device(_))), 1);
    world.assert_converged();
}

#[test]
fn a_deleted_device_needs_no_clearing() {
    let mut world = abandoned(1, 5);
    let mut desired = deleting_inactive(5);
    desired.exit_node = Some(true);
    world.apply(Policy {
        deletion: Deletion::Clear,
        ..fleet(desired)
    });
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 1);
    assert!(
        world.policies[&policy_key(0)]
            .record
            .managed
            .released
            .is_empty()
    );
    let reads_of_device = |request: &Request| *request == Request::Device(node_id(0));
    assert_eq!(world.count(reads_of_device), 1);
    world.assert_converged();
}
