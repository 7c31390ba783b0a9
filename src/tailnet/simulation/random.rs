//! Convergence from whatever happened, for many seeds.

use std::time::Duration;

use super::World;
use crate::tailnet::Request;

/// `TSDP_SEEDS=100000 cargo test --release --lib simulation::random` runs longer.
const SEEDS: u64 = 200;

/// Disturbs the world for a while, lets it settle, and watches it idle.
fn live_through(seed: u64) -> u64 {
    let mut world = World::new(seed);
    if seed.is_multiple_of(3) {
        world.record_digests();
    }
    world.populate();
    world.start();
    for _ in 0..world.rng.usize(5..60) {
        let pause = Duration::from_millis(world.rng.u64(..30_000));
        world.run_for(pause);
        world.disturb();
    }
    world.calm_down();
    // What was contested is tried once an hour, and told for one more.
    world.run_for(Duration::from_hours(3));
    world.assert_converged();
    world.forget_seen();
    world.run_for(Duration::from_hours(2));
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    assert!(world.seen.announcements.is_empty());
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
fn after_faults_stop_every_wish_is_reached_and_then_nothing_more_is_sent() {
    let seeds = std::env::var("TSDP_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let first = std::env::var("TSDP_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let first = first.unwrap_or(0);
    let begin = std::time::Instant::now();
    let mut steps = 0;
    for seed in first..first + seeds.unwrap_or(SEEDS) {
        let lived = std::panic::catch_unwind(|| live_through(seed));
        let Ok(taken) = lived else {
            panic!("seed {seed} failed: run it alone with TSDP_SEED={seed} TSDP_SEEDS=1");
        };
        steps += taken;
    }
    println!("{steps} steps in {:?}", begin.elapsed());
}
