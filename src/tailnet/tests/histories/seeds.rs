//! Runs a history for many seeds: `TSDP_SEEDS` sets how many, `TSDP_SEED` the first one.

use std::{panic::catch_unwind, time::Instant};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a history once for each of `seeds` seeds, or as many as `TSDP_SEEDS` says. The history returns its
/// number of steps.
pub fn each(seeds: u64, run_history: fn(u64) -> u64) {
    let begin = Instant::now();
    let steps: u64 = results(seeds, run_history).into_iter().sum();
    println!("{steps} steps in {:?}", begin.elapsed());
}

/// Like `each`, for a history with another result.
pub fn results<T>(seeds: u64, run_history: fn(u64) -> T) -> Vec<T> {
    let first = number("TSDP_SEED").unwrap_or(0);
    let seeds = number("TSDP_SEEDS").unwrap_or(seeds);
    let lived = |seed| {
        let lived = catch_unwind(|| run_history(seed));
        lived.unwrap_or_else(|_| {
            panic!("seed {seed} failed: run it alone with TSDP_SEED={seed} TSDP_SEEDS=1")
        })
    };
    (first..first + seeds).map(lived).collect()
}
