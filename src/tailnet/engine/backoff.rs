//! How long a request that failed waits.

use std::time::Duration;

use crate::tailnet::{Failure, Now, Settings, failure::Backoff, gate::Gate};

/// The backoff of a request that failed, after the one before.
pub(super) fn next_backoff(
    settings: &Settings,
    gate: &Gate,
    rng: &mut fastrand::Rng,
    failure: Failure,
    before: Option<&Backoff>,
    now: Now,
) -> Backoff {
    // What only an edit can fix is tried rarely, as the edit may be made elsewhere, such as in tagOwners.
    let rare = (settings.poll_interval * 10).max(Duration::from_secs(10));
    let backoff = Backoff::new(failure, before, now.monotonic, rare, rng);
    match &gate.approved_plan() {
        Some(_) => backoff.or_give_up(),
        None => backoff,
    }
}
