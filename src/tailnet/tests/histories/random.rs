//! Convergence after random histories, for many seeds.

use std::time::Duration;

use super::{History, World};
use crate::tailnet::Request;

pub const HISTORY: History = History {
    name: "random",
    run: |seed| run_history(seed, World::disturb),
    share: Duration::from_secs(22),
};

/// Disturbs the world for a while, lets it settle, then watches it idle.
pub fn run_history(seed: u64, disturb: fn(&mut World)) -> u64 {
    let mut world = World::new(seed);
    if world.rng.one_in(3) {
        world.record_digests();
    }
    if world.rng.one_in(2) {
        let time = Duration::from_millis(world.rng.u64(..3_000));
        world.evaluation_share = Some((1, time));
        world.engine.set_evaluation_share(1);
    }
    world.populate();
    world.start();
    world.live(disturb);
    // A contested field is tried once an hour and counted for another hour.
    world.run_for(Duration::from_hours(3));
    world.assert_converged();
    world.clear_seen();
    world.run_for(Duration::from_hours(2));
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    assert!(world.seen.notifications.is_empty());
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    assert_eq!(
        world.count(|request| matches!(request, Request::Device(_))),
        0
    );
    let lists = world.count(|request| *request == Request::Devices);
    assert!((100..=150).contains(&lists), "{lists} lists in two hours");
    // Two kinds of reads for each device, every ten minutes.
    let reads = world.seen.requests.len() - lists;
    assert!(reads <= 12 * 2 * world.model.devices.len(), "{reads} reads");
    world.steps
}

#[test]
fn after_faults_stop_the_desired_state_is_reached_and_nothing_more_is_sent() {
    HISTORY.run_share();
}
