//! One-shot actions under a wrong machine clock, and devices that join around the time of an expiry.

use std::time::Duration;

use jiff::SignedDuration;

use super::{
    super::{
        World,
        builders::{SOON, fleet, policy, servers, world},
        model::{device, node_id},
    },
    DAY, HOUR, deleting_inactive, expiring, leave,
};
use crate::{
    plan::{Hold, Missed, Stage},
    tailnet::State,
};

/// A fleet with a device that was last seen an hour ago.
fn fleet_with_inactive_device(skew: SignedDuration) -> World {
    let mut world = servers(10);
    for device in world.model.devices.values_mut() {
        device.connected = Some(true);
    }
    leave(&mut world, 0, HOUR);
    world.skew = skew;
    world.apply(fleet(deleting_inactive(5)));
    world.start();
    world
}

fn reported_skew(world: &World) -> [Option<SignedDuration>; 2] {
    [
        world.action_report().clock_skew,
        world.tailnet_report.clock_skew,
    ]
}

#[test]
fn a_clock_weeks_ahead_deletes_nothing_and_the_statuses_report_it() {
    let ahead = SignedDuration::from_hours(24 * 60);
    let mut world = fleet_with_inactive_device(ahead);
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
    assert_eq!(reported_skew(&world), [Some(ahead); 2]);
    // A device that is inactive by the API's clock is not deleted either.
    leave(&mut world, 1, 60 * DAY);
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 0);
    let State::Selector(reported) = &world.last_reports[&super::policy_key(0)].state else {
        panic!("{:#?}", world.last_reports);
    };
    let holds: Vec<_> = reported.differences.iter().map(|it| &it.hold).collect();
    assert_eq!(holds, [&Some(Hold::ClockSkew(ahead))]);
    // The skew is reported once: a change of some seconds is no new report.
    world.clear_seen();
    world.run_for(HOUR);
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    world.skew = SignedDuration::ZERO;
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 1);
    assert_eq!(reported_skew(&world), [None; 2]);
    world.assert_converged();
}

#[test]
fn a_clock_that_is_set_between_two_lists_expires_no_key_before_its_time() {
    let mut world = world(1);
    world.settings.poll_interval = HOUR;
    world.sign_in(0);
    world.apply(policy(0, expiring(world.is_in(5 * HOUR))));
    world.start();
    world.run_until(SOON);
    world.skew = SignedDuration::from_hours(5);
    world.run_for(2 * HOUR);
    assert_eq!(world.stages(), [(Stage::Scheduled, 1)]);
    assert_eq!(world.expiries(), 0);
    world.skew = SignedDuration::from_mins(-3);
    world.run_for(4 * HOUR);
    assert_eq!(world.expiries(), 1);
    world.assert_converged();
}

#[test]
fn without_a_time_in_the_responses_the_local_clock_applies() {
    let mut world = fleet_with_inactive_device(SignedDuration::from_hours(24 * 60));
    world.model.hides_the_time = true;
    leave(&mut world, 0, 60 * DAY);
    world.skew = SignedDuration::ZERO;
    world.run_for(HOUR);
    assert_eq!(world.deletions(), 1);
    assert_eq!(reported_skew(&world), [None; 2]);
}

#[test]
fn a_device_that_joins_a_moment_after_the_time_keeps_its_key() {
    let mut world = servers(2);
    (0..2).for_each(|number| world.sign_in(number));
    let at = Duration::from_mins(10);
    world.apply(fleet(expiring(world.is_in(at))));
    world.start();
    world.run_until(at + Duration::from_secs(15));
    let mut joins = device(7);
    joins
        .tags
        .clone_from(&world.model.devices[&node_id(0)].tags);
    joins.created = Some(world.wall());
    world.model.add(joins);
    world.sign_in(7);
    world.run_for(DAY);
    assert_eq!(world.expiries(), 2);
    let missed = Stage::Missed(Missed::JoinedLater);
    assert_eq!(world.stages(), [(missed, 1), (Stage::Done, 2)]);
    world.assert_converged();
}
