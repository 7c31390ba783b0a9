//! Expiry of keys: one test for each guard.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    super::{
        World,
        builders::{SOON, fleet, policy, policy_key, servers, tag, world},
        model::{device, node_id},
    },
    DAY, HOUR, expiring,
};
use crate::{
    model::ChangeLimit,
    plan::{
        ActionRecords, DesiredSettings, Field, Hold, Missed, Mode, Policy, PolicyRecord, Stage,
        Suspender,
    },
    tailnet::{Input, Request, State},
};

/// One device, a policy that expires its key in two hours, and a list every hour.
fn scheduled() -> World {
    let mut world = world(1);
    world.settings.poll_interval = HOUR;
    world.sign_in(0);
    world.apply(policy(0, expiring(world.is_in(2 * HOUR))));
    world.start();
    world.run_until(SOON);
    assert_eq!(world.stages(), [(Stage::Scheduled, 1)]);
    world.clear_seen();
    world
}

/// A point in time that is `pause` after the expiry.
fn after_it(pause: Duration) -> Duration {
    2 * HOUR + pause
}

#[test]
fn a_key_is_expired_at_its_time_and_not_only_at_the_next_list() {
    let mut world = scheduled();
    let at = world.start + SignedDuration::from_hours(2);
    world.run_until(after_it(SOON));
    let [(expired, id)] = world.model.expired.as_slice() else {
        panic!("{:?}", world.model.expired);
    };
    assert_eq!(*id, node_id(0));
    let late = expired.duration_since(at);
    assert!(late < SignedDuration::from_secs(5), "{late:?} late");
    // The device was read right before.
    let look = Request::Device(node_id(0));
    let requests = &world.seen.requests;
    let call = requests.iter().position(|r| matches!(r, Request::Write(_)));
    assert_eq!(requests[call.unwrap() - 1], look);
    assert_eq!(world.stages(), [(Stage::Done, 1)]);
    assert_eq!(world.reported_changes(), 1);
    world.assert_converged();
}

#[test]
fn a_key_is_expired_once_for_each_time() {
    let mut world = scheduled();
    world.run_until(after_it(SOON));
    world.sign_in(0);
    world.run_for(3 * HOUR);
    world.kill();
    world.run_for(DAY);
    assert_eq!(world.expiries(), 1);
    // The time is removed from the manifest and restored.
    let again = world.policies[&policy_key(0)].policy.clone();
    world.apply(policy(0, DesiredSettings::default()));
    world.run_for(SOON);
    world.apply(again);
    world.run_for(HOUR);
    assert_eq!(world.expiries(), 1);
    world.clear_seen();
    world.apply(policy(0, expiring(world.is_in(HOUR))));
    world.run_for(2 * HOUR);
    assert_eq!(world.expiries(), 1);
    assert_eq!(world.model.expired.len(), 2);
}

#[test]
fn an_edit_reverted_within_the_hour_does_not_expire_the_key_again() {
    let mut world = scheduled();
    world.run_until(after_it(SOON));
    world.sign_in(0);
    world.step(Input::Poll);
    let first = world.policies[&policy_key(0)].policy.clone();
    world.apply(policy(0, expiring(world.is_in(DAY))));
    world.run_for(SOON);
    world.apply(first);
    world.run_for(HOUR);
    assert_eq!(world.expiries(), 1);
}

#[test]
fn the_record_of_a_time_that_is_no_longer_declared_goes_an_hour_later() {
    let mut world = scheduled();
    world.run_until(after_it(SOON));
    world.apply(policy(0, DesiredSettings::default()));
    let kept = |world: &World| {
        let record = &world.last_reports[&policy_key(0)].record.actions;
        (record.expiries.len(), record.dropped_until.is_some())
    };
    world.run_for(SOON);
    assert_eq!(kept(&world), (1, false));
    world.run_for(HOUR);
    assert_eq!(kept(&world), (0, true));
}

#[test]
fn a_status_with_the_last_time_that_there_is_does_no_harm() {
    let mut world = world(1);
    world.apply(policy(0, expiring(world.is_in(2 * HOUR))));
    let mut actions = ActionRecords::default();
    actions.finish_expiry(Timestamp::MAX, &node_id(0));
    let record = PolicyRecord {
        actions: actions.into(),
        ..PolicyRecord::default()
    };
    world.policies.get_mut(&policy_key(0)).unwrap().record = record;
    world.sign_in(0);
    world.start();
    world.run_for(3 * HOUR);
    assert_eq!(world.model.expired.len(), 1);
    assert_eq!(world.stages(), [(Stage::Done, 1)]);
    world.assert_converged();
}

#[test]
fn a_crash_at_any_moment_leaves_one_expiry() {
    for pause in (0..4_000).step_by(40) {
        let mut world = scheduled();
        world.faults.delay = Duration::from_millis(800);
        world.run_until(after_it(Duration::from_millis(pause)));
        world.kill();
        world.run_for(Duration::from_mins(5));
        world.sign_in(0);
        world.run_for(3 * HOUR);
        assert_eq!(world.model.expired.len(), 1, "killed after {pause} ms");
        assert_eq!(
            world.stages(),
            [(Stage::Done, 1)],
            "killed after {pause} ms"
        );
        world.assert_converged();
    }
}

#[test]
fn an_expiry_whose_response_was_lost_is_verified_and_reported_once() {
    for effect in [true, false] {
        let mut world = scheduled();
        world.lose_first(World::expiries, effect);
        world.run_for(Duration::from_mins(5));
        assert_eq!(world.model.expired.len(), 1);
        assert_eq!(world.expiries(), if effect { 1 } else { 2 });
        assert_eq!(world.reported_changes(), 1);
        world.assert_converged();
    }
}

#[test]
fn a_restored_backup_expires_no_key_again() {
    let mut world = scheduled();
    let before = world.policies[&policy_key(0)].record.clone();
    while world.expiries() == 0 {
        world.run_for(Duration::from_millis(1));
    }
    let started = world.policies[&policy_key(0)].record.clone();
    assert_eq!(started.actions.expiries.len(), 1);
    world.run_for(Duration::from_hours(2));
    world.sign_in(0);
    for kept in [PolicyRecord::default(), before, started] {
        world.clear_seen();
        world.policies.get_mut(&policy_key(0)).unwrap().record = kept;
        world.kill();
        world.run_for(3 * HOUR);
        assert_eq!(world.model.expired.len(), 1);
        assert_eq!(world.expiries(), 0);
    }
    // The object itself is restored: it is younger than its time.
    let restored = world.policies[&policy_key(0)].policy.clone();
    world.remove(&policy_key(0));
    world.kill();
    world.clear_seen();
    world.apply(restored);
    world.run_for(3 * HOUR);
    assert_eq!(world.expiries(), 0);
    let missed = Stage::Missed(Missed::BeforeCreation);
    assert_eq!(world.stages(), [(missed, 1)]);
    assert_eq!(world.missed_reported(), 1);
}

#[test]
fn a_time_that_passes_during_an_outage_is_reported_as_missed_once() {
    let mut world = scheduled();
    world.life += 1;
    world.wake = None;
    world.run_until(after_it(HOUR + SOON));
    world.kill();
    world.run_for(DAY);
    world.kill();
    world.run_for(DAY);
    assert_eq!(world.expiries(), 0);
    assert_eq!(world.stages(), [(Stage::Missed(Missed::TooLate), 1)]);
    assert_eq!(world.missed_reported(), 1);
}

#[test]
fn an_expiry_that_began_in_time_survives_an_outage() {
    let mut world = scheduled();
    world.run_until(Duration::from_mins(119));
    world.faults.list_down = true;
    world.step(Input::Poll);
    world.run_until(after_it(3 * HOUR));
    assert_eq!(world.expiries(), 0);
    world.faults.list_down = false;
    world.run_for(HOUR);
    assert_eq!(world.model.expired.len(), 1);
}

#[test]
fn an_expiry_stays_pending_until_its_approval_and_is_sent_once() {
    let mut world = scheduled();
    let key = policy_key(0);
    let with_approval = Policy {
        mode: Mode::Approve,
        ..world.policies[&key].policy.clone()
    };
    world.apply(with_approval);
    world.run_until(after_it(5 * HOUR));
    assert_eq!(world.expiries(), 0);
    let hash = world.hash(&key);
    world.approve(&key, &format!("plan:{hash}"));
    world.run_for(SOON);
    assert_eq!(world.expiries(), 1);
    world.sign_in(0);
    world.run_for(DAY);
    assert_eq!(world.expiries(), 1);
    assert_eq!(world.policies[&key].record.approvals_used, 1);
    world.assert_converged();
}

#[test]
fn a_policy_that_observes_or_is_suspended_expires_nothing_and_reports_what_it_would_expire() {
    for (mode, hold) in [
        (Mode::Observe, Hold::Observed),
        (
            Mode::Suspended(Suspender::Policy),
            Hold::Suspended(Suspender::Policy),
        ),
    ] {
        let mut world = scheduled();
        let quiet = Policy {
            mode,
            ..world.policies[&policy_key(0)].policy.clone()
        };
        world.apply(quiet.clone());
        world.run_until(after_it(SOON));
        let State::Bound(reported) = &world.last_reports[&policy_key(0)].state else {
            panic!();
        };
        assert_eq!(reported.differences[0].hold, Some(hold));
        assert_eq!(reported.differences[0].change.field(), Field::ExpireKeyAt);
        assert!(world.policies[&policy_key(0)].record.actions.is_empty());
        world.run_for(2 * HOUR);
        // It did not begin in time, so it is missed for good.
        world.apply(Policy {
            mode: Mode::Enforce,
            ..quiet
        });
        world.run_for(2 * HOUR);
        assert_eq!(world.expiries(), 0);
        assert_eq!(world.missed_reported(), 1);
    }
}

#[test]
fn a_key_that_never_expires_is_expired_only_once_it_can() {
    let mut world = scheduled();
    let id = node_id(0);
    let disable = |world: &mut World, disabled| {
        let device = world.model.devices.get_mut(&id).unwrap();
        device.key_expiry_disabled = disabled;
        world.step(Input::Poll);
    };
    disable(&mut world, true);
    world.run_until(after_it(SOON));
    let State::Bound(reported) = &world.last_reports[&policy_key(0)].state else {
        panic!();
    };
    assert_eq!(reported.differences[0].hold, Some(Hold::KeyNeverExpires));
    assert_eq!(world.expiries(), 0);
    disable(&mut world, false);
    world.run_for(SOON);
    assert_eq!(world.expiries(), 1);
}

#[test]
fn a_device_that_joins_a_fleet_within_the_hour_is_expired_and_a_later_one_is_not() {
    let mut world = servers(30);
    world.apply(fleet(expiring(world.is_in(HOUR))));
    world.start();
    world.run_until(HOUR + Duration::from_mins(2));
    assert_eq!(world.model.expired.len(), 30);
    let join = |world: &mut World, number| {
        let mut joins = device(number);
        joins.tags = [tag("tag:s")].into();
        world.model.add(joins);
    };
    join(&mut world, 50);
    // Its user signed in before the time: the device was tagged since.
    let device = world.model.devices.get_mut(&node_id(50)).unwrap();
    device.expires = Some(world.start + SignedDuration::from_hours(100 * 24));
    world.run_for(Duration::from_mins(30));
    assert_eq!(world.model.expired.len(), 31);
    world.run_for(HOUR);
    join(&mut world, 51);
    join(&mut world, 52);
    world.sign_in(52);
    world.run_for(HOUR);
    assert_eq!(world.model.expired.len(), 31);
    let missed = (Stage::Missed(Missed::TooLate), 2);
    assert_eq!(world.stages(), [missed, (Stage::Done, 31)]);
    assert_eq!(world.missed_reported(), 1);
    world.assert_converged();
}

#[test]
fn keys_of_more_devices_than_the_limit_allows_are_held_as_a_whole() {
    let mut world = servers(100);
    world.settings.limit = ChangeLimit::default();
    world.apply(fleet(expiring(world.is_in(HOUR))));
    world.start();
    world.run_until(HOUR + Duration::from_mins(2));
    assert_eq!(world.expiries(), 0);
    assert_eq!(world.held(&policy_key(0)).devices, 100);
    // The expiry began in time, so it is sent once the limit allows it.
    world.run_for(3 * HOUR);
    world.settings.limit = ChangeLimit::NONE;
    world.step(Input::Settings(world.settings.clone()));
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.model.expired.len(), 100);
    world.assert_converged();
}

#[test]
fn actions_of_a_killed_process_are_reported_by_the_next() {
    let mut world = scheduled();
    while world.expiries() == 0 {
        world.run_for(Duration::from_millis(1));
    }
    world.kill();
    world.run_for(Duration::from_mins(5));
    assert_eq!(world.model.expired.len(), 1);
    assert_eq!(world.reported_changes(), 1);
    let changed = world.last_reports[&policy_key(0)].changed_at;
    assert!(changed.is_some());
}
#[test]
fn the_key_of_a_protected_device_is_not_expired() {
    let mut world = scheduled();
    let protected = json!([{"trustClaims": true, "hostnames": ["*"]}]);
    world.guard(&json!({"allowedPolicies": [{}], "protectedDevices": protected}));
    world.run_for(6 * HOUR);
    assert_eq!(world.expiries(), 0);
}

#[test]
fn a_time_removed_while_the_clock_is_ahead_and_restored_expires_nothing_again() {
    for number in [0, 1] {
        let mut world = scheduled();
        let declared = world.policies[&policy_key(0)].policy.clone();
        world.run_until(after_it(SOON));
        assert_eq!(world.expiries(), 1);
        world.sign_in(0);
        world.step(Input::Poll);
        // The clock of the machine is set ahead, and back later.
        let right = world.start;
        world.start += SignedDuration::from_hours(30);
        world.apply(policy(0, DesiredSettings::default()));
        world.run_for(Duration::from_mins(1));
        world.start = right;
        if number == 1 {
            world.kill();
        }
        world.apply(declared);
        world.run_for(Duration::from_mins(30));
        assert_eq!(world.expiries(), 1);
        let missed = Stage::Missed(Missed::DeclaredBefore);
        assert_eq!(world.stages(), [(missed, 1)]);
        // A later time is another action.
        world.apply(policy(0, expiring(world.is_in(HOUR))));
        world.run_for(HOUR + Duration::from_mins(2));
        assert_eq!(world.expiries(), 2);
    }
}
