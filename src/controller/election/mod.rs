//! Which replica may write, and when its term starts.

mod candidate;
pub(super) mod handover;
mod lease;
mod timings;

pub use lease::{Election, Leadership};
pub use timings::Timings;
