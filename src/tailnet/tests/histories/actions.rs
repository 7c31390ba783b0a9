//! One-shot actions through crashes, lost responses, and restored backups.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use super::{
    super::cases::actions::{DAY, HOUR, deleting_inactive, leave},
    History, World,
    builders::{fleet, policy_key, tag},
    model::{device, node_id},
};
use crate::{
    plan::{ActionRecords, DesiredSettings, Stage},
    tailnet::Input,
};

/// The number of devices in the random history.
const FLEET: usize = 8;

/// A fleet, with one policy that expires keys and deletes devices.
fn begin(seed: u64) -> (World, DesiredSettings) {
    let mut world = World::new(seed);
    world.settings.poll_interval = Duration::from_mins(5);
    for number in 0..FLEET {
        let mut device = device(number);
        device.tags = [tag("tag:s")].into();
        device.connected = Some(true);
        world.model.add(device);
        world.sign_in(number);
    }
    let first = Duration::from_secs(world.rng.u64(..40_000));
    let most = world.rng.u32(1..3);
    let desired = DesiredSettings {
        expire_key_at: Some(world.is_in(first)),
        ..deleting_inactive(most)
    };
    world.apply(fleet(desired.clone()));
    world.start();
    (world, desired)
}

/// One random edit, drift, or failure.
fn disturb(world: &mut World) {
    match world.rng.u8(..13) {
        0..=2 => {
            // Now and then while a request is in flight.
            world.step(Input::Poll);
            let pause = Duration::from_millis(world.rng.u64(..5_000));
            world.run_for(pause);
            world.kill();
        }
        3 => world.lose_the_lead(),
        4 | 5 => world.new_faults(),
        6 => world.faults.list_down = world.rng.bool(),
        7 => restore_a_backup(world),
        8 => set_the_clock(world),
        9 => join(world),
        _ => {
            let number = world.rng.usize(..FLEET);
            if world.model.devices.contains_key(&node_id(number)) {
                use_device(world, number);
            }
        }
    }
}

/// Sets the machine's clock, more often wrong than right.
fn set_the_clock(world: &mut World) {
    let hours = [-40 * 24, -3, 0, 2, 40 * 24][world.rng.usize(..5)];
    world.skew = SignedDuration::from_hours(hours);
}

/// Lets a deleted device join again under its id.
fn join(world: &mut World) {
    let gone = (0..FLEET).find(|number| !world.model.devices.contains_key(&node_id(*number)));
    let Some(number) = gone else {
        return;
    };
    let mut device = device(number);
    device.tags = [tag("tag:s")].into();
    device.connected = Some(true);
    device.created = Some(world.wall());
    world.model.add(device);
    world.sign_in(number);
}

/// A device goes offline, comes back, or signs in. Not while a request for it may be in flight.
fn use_device(world: &mut World, number: usize) {
    let id = node_id(number);
    match world.rng.u8(..3) {
        0 => {
            let away = Duration::from_hours(world.rng.u64(700..760));
            leave(world, number, away);
        }
        1 => {
            let device = world.model.devices.get_mut(&id).unwrap();
            (device.connected, device.last_seen) = (Some(true), None);
        }
        _ => {
            let expired = world.model.expired.iter().rev().find(|(_, of)| *of == id);
            let past = world.wall() - SignedDuration::from_mins(5);
            if expired.is_some_and(|(at, _)| *at < past) {
                world.sign_in(number);
            }
        }
    }
}

/// Restores an earlier status, more than an hour after the time of the expiry.
fn restore_a_backup(world: &mut World) {
    let now = world.wall();
    let kept = world.policies.get_mut(&policy_key(0)).unwrap();
    let at = kept.policy.desired.expire_key_at.unwrap();
    if now > at + SignedDuration::from_hours(1) {
        let actions = ActionRecords {
            deletions: kept.record.actions.deletions.clone(),
            ..ActionRecords::default()
        };
        kept.record.actions = Arc::new(actions);
        world.kill();
    }
}

pub const HISTORY: History = History {
    name: "actions",
    run: run_history,
    share: Duration::from_secs(18),
};

/// Runs about two days.
fn run_history(seed: u64) -> u64 {
    let (mut world, desired) = begin(seed);
    let mut times = 1;
    for _ in 0..world.rng.usize(20..120) {
        if !world.rng.begin_step() {
            continue;
        }
        let pause = Duration::from_millis(world.rng.u64(..3_000_000));
        world.run_for(pause);
        disturb(&mut world);
        if world.rng.one_in(50) {
            let later = Duration::from_secs(world.rng.u64(1..20_000));
            let mut edited = desired.clone();
            edited.expire_key_at = Some(world.is_in(later));
            world.apply(fleet(edited));
            times += 1;
        }
    }
    world.rng.begin_step();
    world.skew = SignedDuration::ZERO;
    world.calm_down();
    world.run_for(DAY);
    // A deletion of a day ago may have left the window a moment ago, so another one is due at the next
    // list.
    if world.stages().iter().any(|(stage, _)| *stage == Stage::Due) {
        world.run_for(HOUR);
    }
    world.assert_converged();
    let (expired, deleted) = (&world.model.expired, &world.model.deleted);
    for number in 0..FLEET {
        let own = expired.iter().filter(|(_, id)| *id == node_id(number));
        let own = own.count();
        assert!(own <= times, "{number} was expired {own} times for {times}");
    }
    let most = desired.delete_inactive.unwrap().max_per_day as usize;
    for (at, _) in deleted {
        let end = *at + SignedDuration::from_hours(24);
        let day = deleted.iter().filter(|(t, _)| t >= at && *t < end);
        let day = day.count();
        assert!(day <= most, "{day} deletions in a day of {most}");
    }
    world.steps
}

#[test]
fn keys_expire_once_for_each_time_and_daily_deletions_stay_limited() {
    HISTORY.run_share();
}
