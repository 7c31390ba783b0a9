//! Which replica may write, and when its term starts.

mod candidate;
pub(in crate::controller) mod handover;
mod lease;

pub use lease::{Election, Leadership, Timings};
