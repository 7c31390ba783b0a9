//! Random histories: runs in which a seed decides what people, devices, the network, and the API do.
//!
//! | file | |
//! |---|---|
//! | `run` | runs them, in CI and by hand |
//! | `shrink` | makes a failing one short, and tells it as a story |
//! | `mutants` | shows that they find deliberate faults |
//! | all others | a history each |

mod actions;
mod clears;
mod guarded;
mod leaders;
mod mutants;
mod odd_devices;
mod owned_keys;
mod random;
mod releases;
mod run;
mod short_lists;
mod shrink;

use self::run::History;
use super::simulation::{
    Broken, CLEAR_TIMEOUT, Kept, World, builders, choices, lost, model, recorded, settings, story,
};

const ALL: [History; 10] = [
    random::HISTORY,
    odd_devices::HISTORY,
    guarded::HISTORY,
    leaders::HISTORY,
    actions::HISTORY,
    short_lists::HISTORY,
    releases::HISTORY,
    owned_keys::HISTORY,
    clears::HISTORY,
    clears::FROM_THE_START,
];

/// See CONTRIBUTING.md: `TSDP_MINUTES=60 cargo test --release --lib -- --ignored histories`.
#[test]
#[ignore = "runs as long as it is told to"]
fn all_histories_hold() {
    run::run_all(&ALL);
}
