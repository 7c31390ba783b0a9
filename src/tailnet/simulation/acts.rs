//! What is done once: keys that are expired and devices that are deleted, through crashes, lost answers
//! and restored backups. What must hold at each call is checked in `checks.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    World,
    chaos::policy_key,
    counted::{SOON, policy, world},
    fleets::{fleet, servers, tag},
    model::{device, node_id},
};
use crate::{
    model::{ChangeLimit, NodeId},
    plan::{
        ActRecords, Call, Field, Hold, Memory, Missed, Mode, Policy, Reap, Stage, Target, Wishes,
    },
    tailnet::{ActReport, Announcement, Input, Request, State, simulation::model::Faults},
};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

impl World {
    fn is_in(&self, time: Duration) -> Timestamp {
        self.wall() + SignedDuration::try_from(time).unwrap()
    }

    fn calls(&self, wanted: fn(&Call) -> bool) -> usize {
        self.writes()
            .into_iter()
            .filter(|call| wanted(call))
            .count()
    }

    fn expiries(&self) -> usize {
        self.calls(|call| matches!(call, Call::ExpireKey(_)))
    }

    fn deletions(&self) -> usize {
        self.calls(|call| matches!(call, Call::Delete(_)))
    }

    /// Its user signs in on a device again.
    fn sign_in(&mut self, number: usize) {
        let expires = self.is_in(180 * DAY);
        let device = self.model.devices.get_mut(&node_id(number)).unwrap();
        device.expires = Some(expires);
    }

    fn acts(&self) -> &ActReport {
        &self.last_reports[&policy_key(0)].acts
    }

    fn stages(&self) -> Vec<(Stage, usize)> {
        let totals = self.acts().totals.iter();
        totals.map(|(stage, count)| (*stage, *count)).collect()
    }

    fn told_of(&self, wanted: fn(&Announcement) -> bool) -> usize {
        let announcements = self.seen.announcements.iter();
        announcements.filter(|(_, told)| wanted(told)).count()
    }

    fn changes_told(&self) -> usize {
        self.told_of(|told| matches!(told, Announcement::Changed(_)))
    }

    fn missed_told(&self) -> usize {
        self.told_of(|told| matches!(told, Announcement::Missed(_)))
    }
}

fn expiring(at: Timestamp) -> Wishes {
    Wishes {
        expire_key_at: Some(at),
        ..Wishes::default()
    }
}

/// One device, a policy that expires its key in two hours, and a list every hour.
fn scheduled() -> World {
    let mut world = world(1);
    world.settings.poll_interval = HOUR;
    world.sign_in(0);
    world.apply(policy(0, expiring(world.is_in(2 * HOUR))));
    world.start();
    world.run_until(SOON);
    assert_eq!(world.stages(), [(Stage::Scheduled, 1)]);
    world.forget_seen();
    world
}

/// So long after the time.
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
    // The device was looked at right before.
    let look = Request::Device(node_id(0));
    let requests = &world.seen.requests;
    let call = requests.iter().position(|r| matches!(r, Request::Write(_)));
    assert_eq!(requests[call.unwrap() - 1], look);
    assert_eq!(world.stages(), [(Stage::Done, 1)]);
    assert_eq!(world.changes_told(), 1);
    world.assert_converged();
}

#[test]
fn a_key_is_never_expired_again_for_the_same_time_and_is_for_a_later_one() {
    let mut world = scheduled();
    world.run_until(after_it(SOON));
    world.sign_in(0);
    world.run_for(3 * HOUR);
    world.kill();
    world.run_for(DAY);
    assert_eq!(world.expiries(), 1);
    // Out of the manifest and back in.
    let again = world.policies[&policy_key(0)].policy.clone();
    world.apply(policy(0, Wishes::default()));
    world.run_for(SOON);
    world.apply(again);
    world.run_for(HOUR);
    assert_eq!(world.expiries(), 1);
    world.forget_seen();
    world.apply(policy(0, expiring(world.is_in(HOUR))));
    world.run_for(2 * HOUR);
    assert_eq!(world.expiries(), 1);
    assert_eq!(world.model.expired.len(), 2);
}

#[test]
fn an_edit_that_is_taken_back_within_the_hour_does_not_expire_the_key_again() {
    let mut world = scheduled();
    world.run_until(after_it(SOON));
    world.sign_in(0);
    let first = world.policies[&policy_key(0)].policy.clone();
    world.apply(policy(0, expiring(world.is_in(DAY))));
    world.run_for(SOON);
    world.apply(first);
    world.run_for(HOUR);
    assert_eq!(world.expiries(), 1);
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
fn an_expiry_whose_answer_was_lost_is_looked_at_and_told_once() {
    for effect in [true, false] {
        let mut world = scheduled();
        while world.expiries() == 0 {
            world.run_for(Duration::from_millis(1));
        }
        if effect {
            world.faults.answer_lost = 1.0;
        } else {
            world.faults.lost = 1.0;
        }
        world.run_for(world.faults.delay);
        world.faults = Faults {
            delay: world.faults.delay,
            ..Faults::default()
        };
        world.run_for(Duration::from_mins(5));
        assert_eq!(world.model.expired.len(), 1);
        assert_eq!(world.expiries(), if effect { 1 } else { 2 });
        assert_eq!(world.changes_told(), 1);
        world.assert_converged();
    }
}

#[test]
fn a_backup_that_is_restored_expires_nothing_again() {
    let mut world = scheduled();
    let before = world.policies[&policy_key(0)].memory.clone();
    while world.expiries() == 0 {
        world.run_for(Duration::from_millis(1));
    }
    let started = world.policies[&policy_key(0)].memory.clone();
    assert_eq!(started.acts.expiries.len(), 1);
    world.run_for(Duration::from_hours(2));
    world.sign_in(0);
    for kept in [Memory::default(), before, started] {
        world.forget_seen();
        world.policies.get_mut(&policy_key(0)).unwrap().memory = kept;
        world.kill();
        world.run_for(3 * HOUR);
        assert_eq!(world.model.expired.len(), 1);
        assert_eq!(world.expiries(), 0);
    }
    // The object itself is restored: it is younger than its time.
    let restored = world.policies[&policy_key(0)].policy.clone();
    world.remove(&policy_key(0));
    world.kill();
    world.forget_seen();
    world.apply(restored);
    world.run_for(3 * HOUR);
    assert_eq!(world.expiries(), 0);
    let missed = Stage::Missed(Missed::BeforeCreation);
    assert_eq!(world.stages(), [(missed, 1)]);
    assert_eq!(world.missed_told(), 1);
}

#[test]
fn a_time_that_passed_while_nobody_could_look_is_missed_and_told_once() {
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
    assert_eq!(world.missed_told(), 1);
}

#[test]
fn what_began_in_time_is_carried_through_an_outage() {
    let mut world = scheduled();
    world.run_until(2 * HOUR - Duration::from_mins(1));
    world.faults.list_down = true;
    world.step(Input::Poll);
    world.run_until(after_it(3 * HOUR));
    assert_eq!(world.expiries(), 0);
    world.faults.list_down = false;
    world.run_for(HOUR);
    assert_eq!(world.model.expired.len(), 1);
}

#[test]
fn an_expiry_waits_for_its_approval_however_long_and_is_sent_once() {
    let mut world = scheduled();
    let key = policy_key(0);
    let asking = Policy {
        mode: Mode::Approve,
        ..world.policies[&key].policy.clone()
    };
    world.apply(asking);
    world.run_until(after_it(5 * HOUR));
    assert_eq!(world.expiries(), 0);
    let hash = world.hash(&key);
    world.approve(&key, &format!("plan:{hash}"));
    world.run_for(SOON);
    assert_eq!(world.expiries(), 1);
    world.sign_in(0);
    world.run_for(DAY);
    assert_eq!(world.expiries(), 1);
    assert_eq!(world.policies[&key].memory.approvals_used, 1);
    world.assert_converged();
}

#[test]
fn a_policy_that_observes_or_is_suspended_expires_nothing_and_says_what_it_would() {
    for (mode, hold) in [
        (Mode::Observe, Hold::Observed),
        (Mode::Suspended, Hold::Suspended),
    ] {
        let mut world = scheduled();
        let quiet = Policy {
            mode,
            ..world.policies[&policy_key(0)].policy.clone()
        };
        world.apply(quiet.clone());
        world.run_until(after_it(SOON));
        let State::Bound(told) = &world.last_reports[&policy_key(0)].state else {
            panic!();
        };
        assert_eq!(told.differences[0].hold, Some(hold));
        assert_eq!(told.differences[0].change.field(), Field::ExpireKeyAt);
        assert!(world.policies[&policy_key(0)].memory.acts.is_empty());
        world.run_for(2 * HOUR);
        // It was not begun in time, and so is not made up for.
        world.apply(Policy {
            mode: Mode::Enforce,
            ..quiet
        });
        world.run_for(2 * HOUR);
        assert_eq!(world.expiries(), 0);
        assert_eq!(world.missed_told(), 1);
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
    let State::Bound(told) = &world.last_reports[&policy_key(0)].state else {
        panic!();
    };
    assert_eq!(told.differences[0].hold, Some(Hold::KeyNeverExpires));
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
        world.sign_in(number);
    };
    join(&mut world, 50);
    world.run_for(Duration::from_mins(30));
    assert_eq!(world.model.expired.len(), 31);
    world.run_for(HOUR);
    join(&mut world, 51);
    join(&mut world, 52);
    world.run_for(HOUR);
    assert_eq!(world.model.expired.len(), 31);
    let missed = Stage::Missed(Missed::TooLate);
    assert_eq!(world.stages(), [(missed, 2), (Stage::Done, 31)]);
    assert_eq!(world.missed_told(), 1);
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
    // Begun in time, it is done once the limit allows it.
    world.run_for(3 * HOUR);
    world.settings.limit = ChangeLimit::NONE;
    world.step(Input::Settings(world.settings.clone()));
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.model.expired.len(), 100);
    world.assert_converged();
}

fn reaping(max_per_day: u32) -> Wishes {
    Wishes {
        reap: Some(Reap {
            inactive_for: SignedDuration::from_hours(720),
            max_per_day,
        }),
        ..Wishes::default()
    }
}

fn leave(world: &mut World, number: usize, for_so_long: Duration) {
    let last_seen = world.wall() - SignedDuration::try_from(for_so_long).unwrap();
    let device = world.model.devices.get_mut(&node_id(number)).unwrap();
    device.connected = Some(false);
    device.last_seen = Some(last_seen);
}

/// Forty servers of which so many have been away for 60 days, and a policy that deletes some a day.
fn abandoned(away: usize, max_per_day: u32) -> World {
    let mut world = servers(40);
    for device in world.model.devices.values_mut() {
        device.connected = Some(true);
    }
    for number in 0..away {
        leave(&mut world, number, 60 * DAY);
    }
    world.apply(fleet(reaping(max_per_day)));
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
    assert_eq!(world.changes_told(), 3);
    assert_eq!(world.stages(), [(Stage::Done, 3)]);
    world.assert_converged();
    // Each was looked at right before.
    assert_eq!(world.count(|r| matches!(r, Request::Device(_))), 3);
    world.forget_seen();
    world.run_for(3 * DAY);
    assert!(world.writes().is_empty());
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
}

#[test]
fn no_more_are_deleted_within_a_day_than_allowed_however_often_the_process_dies() {
    let mut world = abandoned(12, 5);
    for _ in 0..4 {
        world.run_for(Duration::from_secs(70));
        world.kill();
    }
    world.run_for(HOUR);
    assert_eq!(deleted(&world).len(), 5);
    assert_eq!(world.stages(), [(Stage::Waiting, 7), (Stage::Done, 5)]);
    assert!(
        matches!(&world.last_reports[&policy_key(0)].state, State::Fleet(told) if told.different == 0)
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
    // Lists without most of the devices, and with one that has been away for long.
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
fn a_device_that_a_list_leaves_out_is_not_deleted_for_what_an_older_one_said() {
    let mut world = abandoned(1, 5);
    world.model.left_out = Some(node_id(0));
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
    assert!(world.model.devices.contains_key(&node_id(0)));
}

#[test]
fn a_deletion_whose_answer_was_lost_is_told_once_and_counts() {
    for effect in [true, false] {
        let mut world = abandoned(2, 1);
        while world.deletions() == 0 {
            world.run_for(Duration::from_millis(1));
        }
        if effect {
            world.faults.answer_lost = 1.0;
        } else {
            world.faults.lost = 1.0;
        }
        world.run_for(world.faults.delay);
        world.faults = Faults {
            delay: world.faults.delay,
            ..Faults::default()
        };
        world.run_for(HOUR);
        assert_eq!(deleted(&world), [node_id(0)], "{effect}");
        assert_eq!(world.changes_told(), 1);
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
    let mut other = fleet(reaping(5));
    other.key = policy_key(1);
    world.apply(other);
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 1);
    for number in 0..2 {
        let memory = &world.policies[&policy_key(number)].memory;
        assert!(memory.acts.deletions[&node_id(0)].done, "{number}");
    }
    // A single policy about it finds it no more.
    world.apply(policy(0, Wishes::default()));
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
    // Nothing has begun, so that nothing counts for the day.
    assert!(world.policies[&policy_key(0)].memory.acts.is_empty());
}

#[test]
fn deletions_wait_for_an_approval_as_many_as_are_allowed_in_a_day() {
    let mut world = abandoned(3, 2);
    let key = policy_key(0);
    world.apply(Policy {
        mode: Mode::Approve,
        ..fleet(reaping(2))
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

/// A day or two in the life of a fleet, with one policy that expires keys and deletes devices.
fn live_through(seed: u64) {
    let mut world = World::new(seed);
    world.settings.poll_interval = Duration::from_mins(5);
    for number in 0..8 {
        let mut device = device(number);
        device.tags = [tag("tag:s")].into();
        device.connected = Some(true);
        world.model.add(device);
        world.sign_in(number);
    }
    let most = world.rng.u32(1..3);
    let first = Duration::from_secs(world.rng.u64(..40_000));
    let wishes = Wishes {
        expire_key_at: Some(world.is_in(first)),
        ..reaping(most)
    };
    world.apply(fleet(wishes.clone()));
    let mut times = 1;
    world.start();
    let mut expired_at: BTreeMap<NodeId, Timestamp> = BTreeMap::new();
    for _ in 0..world.rng.usize(20..120) {
        let pause = Duration::from_millis(world.rng.u64(..3_000_000));
        world.run_for(pause);
        for (at, id) in &world.model.expired {
            expired_at.insert(id.clone(), *at);
        }
        let number = world.rng.usize(..8);
        let there = world.model.devices.contains_key(&node_id(number));
        match world.rng.u8(..12) {
            0..=2 => {
                // In the middle of a call, now and then.
                world.step(Input::Poll);
                let pause = Duration::from_millis(world.rng.u64(..5_000));
                world.run_for(pause);
                world.kill();
            }
            3 => world.lose_the_lead(),
            4 | 5 => world.new_faults(),
            6 => world.faults.list_down = world.rng.bool(),
            7 if there => {
                let away = Duration::from_hours(world.rng.u64(700..760));
                leave(&mut world, number, away);
            }
            8 if there => {
                let device = world.model.devices.get_mut(&node_id(number)).unwrap();
                (device.connected, device.last_seen) = (Some(true), None);
            }
            9 if there => {
                // Nobody signs in again while a call may still be on its way.
                let settled = expired_at.get(&node_id(number));
                let past = world.wall() - SignedDuration::from_mins(5);
                if settled.is_some_and(|at| *at < past) {
                    world.sign_in(number);
                }
            }
            10 => {
                // A status of before is restored, or none, where that is not within the hour.
                let kept = world.policies.get_mut(&policy_key(0)).unwrap();
                let at = kept.policy.wishes.expire_key_at.unwrap();
                if world.start + SignedDuration::try_from(world.clock).unwrap()
                    > at + SignedDuration::from_hours(1)
                {
                    let acts = ActRecords {
                        deletions: kept.memory.acts.deletions.clone(),
                        ..ActRecords::default()
                    };
                    kept.memory.acts = Arc::new(acts);
                    world.kill();
                }
            }
            _ if world.rng.u8(..4) == 0 => {
                let later = Duration::from_secs(world.rng.u64(1..20_000));
                let mut edited = wishes.clone();
                edited.expire_key_at = Some(world.is_in(later));
                world.apply(fleet(edited));
                times += 1;
            }
            _ => {}
        }
    }
    world.calm_down();
    world.run_for(DAY);
    world.assert_converged();
    for number in 0..8 {
        let id = node_id(number);
        let expired = world.model.expired.iter().filter(|(_, of)| *of == id);
        let expired = expired.count();
        assert!(
            expired <= times,
            "{id} was expired {expired} times for {times}"
        );
    }
    for (at, _) in &world.model.deleted {
        let end = *at + SignedDuration::from_hours(24);
        let within = world
            .model
            .deleted
            .iter()
            .filter(|(t, _)| t >= at && *t < end);
        let within = within.count();
        assert!(
            within <= most as usize,
            "{within} deletions in a day of {most}"
        );
    }
}

#[test]
fn whatever_happens_a_key_is_expired_once_for_each_time_and_few_devices_go_in_a_day() {
    let seeds = std::env::var("TSDP_SEEDS");
    let seeds = seeds.ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let first = std::env::var("TSDP_SEED");
    let first = first.ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let lived = std::panic::catch_unwind(|| live_through(seed));
        assert!(
            lived.is_ok(),
            "seed {seed} failed: TSDP_SEED={seed} TSDP_SEEDS=1"
        );
    }
}

#[test]
fn a_policy_about_one_device_deletes_nothing() {
    let mut world = world(1);
    leave(&mut world, 0, 60 * DAY);
    let single = policy(0, reaping(5));
    assert!(matches!(single.target, Target::Device(_)));
    world.apply(single);
    world.start();
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
}
