//! The time of an input.

use std::time::Duration;

use jiff::Timestamp;

/// The time of an input, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the engine started; never jumps. For intervals.
    pub monotonic: Duration,
    /// The wall clock. For expiries, which are points in time.
    pub wall: Timestamp,
}
