//! Policies under `Clear` whose process is killed or loses the lead, at any moment.

use std::time::Duration;

use super::{
    super::cases::clears::{fleet, is_clear, left_behind, servers, settled, single, still_exists},
    History,
    builders::policy_key,
    choices::Choices,
    model::{Faults, node_id},
};
use crate::plan::Call;

pub const HISTORY: History = History {
    name: "clears",
    run: kill_while_clearing,
    share: Duration::from_secs(4),
};

pub const FROM_THE_START: History = History {
    name: "clears_from_the_start",
    run: kill_at_the_start,
    share: Duration::from_secs(4),
};

/// Despite interruptions and handovers, a deleted policy goes and its devices are clear.
fn kill_while_clearing(seed: u64) -> u64 {
    let mut world = settled(
        3,
        if seed.is_multiple_of(2) {
            fleet()
        } else {
            single(0, 0)
        },
    );
    world.rng = Choices::of_seed(seed);
    world.faults = Faults {
        lost: 0.1,
        answer_lost: 0.1,
        server_error: 0.1,
        delay: Duration::from_millis(400),
        ..Faults::default()
    };
    world.delete(&policy_key(0));
    for _ in 0..world.rng.u8(1..6) {
        if !world.rng.begin_step() {
            continue;
        }
        let pause = Duration::from_millis(world.rng.u64(..1500));
        world.run_for(pause);
        if world.rng.bool() {
            world.kill();
        } else {
            world.lose_the_lead();
        }
    }
    world.faults = Faults::default();
    world.run_for(Duration::from_mins(5));
    assert!(!still_exists(&world));
    assert_eq!(left_behind(&world), None);
    let held = if seed.is_multiple_of(2) { 3 } else { 1 };
    for number in 0..held {
        assert!(is_clear(&world, &node_id(number)));
    }
    world.steps
}

#[test]
fn a_process_that_is_killed_at_any_moment_leaves_nothing_behind() {
    HISTORY.run_share();
}

/// Kills the process before, during, and after the first requests.
fn kill_at_the_start(seed: u64) -> u64 {
    let mut world = servers(3);
    world.rng = Choices::of_seed(seed);
    world.apply(fleet());
    world.start();
    let pause = Duration::from_millis(world.rng.u64(..3000));
    world.run_for(pause);
    // A request in flight may arrive after the read of the new process. That case is not tested here.
    world.kill();
    world.run_for(Duration::from_secs(2));
    for call in world.writes() {
        for id in call.nodes() {
            let kept = &world.policies[&policy_key(0)].record.managed;
            let owns = kept.nodes.contains(id) || matches!(call, Call::SetTags(..));
            assert!(owns, "{call:?} before it was kept");
        }
    }
    world.run_for(Duration::from_mins(5));
    world.delete(&policy_key(0));
    world.run_for(Duration::from_mins(2));
    assert!(!still_exists(&world));
    for number in 0..3 {
        assert!(is_clear(&world, &node_id(number)));
    }
    world.steps
}

#[test]
fn a_process_killed_at_its_start_owns_what_it_wrote() {
    FROM_THE_START.run_share();
}
