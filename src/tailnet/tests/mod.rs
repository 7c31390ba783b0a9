//! Tests of the whole engine, in a simulated world.
//!
//! | folder | what is in it |
//! |---|---|
//! | `simulation` | the world: a tailnet's API, the objects in Kubernetes, a clock, and what must always hold |
//! | `histories` | random runs, each decided by its seed |
//! | `cases` | one short run for each rule |

mod cases;
mod histories;
pub(super) mod simulation;

use crate::plan::PolicyKey;

/// A policy of the namespace `network`.
pub(super) fn key(name: &str) -> PolicyKey {
    PolicyKey::new("network", name)
}
