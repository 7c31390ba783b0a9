//! How quickly another replica takes over.

use std::{num::NonZeroU16, time::Duration};

/// How long a lease holds, in whole seconds; the other times follow in client-go's proportions.
#[derive(Debug, Clone, Copy)]
pub struct Timings(NonZeroU16);

impl Timings {
    /// Of a lease that holds for `seconds`.
    #[must_use]
    pub const fn of_lease(seconds: NonZeroU16) -> Self {
        Self(seconds)
    }

    /// As a Lease has it.
    pub(super) fn seconds(self) -> i32 {
        self.0.get().into()
    }

    /// Others wait this long without a sign of the leader before one takes over: 15 s by default.
    #[must_use]
    pub fn lease(self) -> Duration {
        Duration::from_secs(self.0.get().into())
    }

    /// A leader that could not renew for this long no longer writes: 10 s by default.
    #[must_use]
    pub fn renew_deadline(self) -> Duration {
        self.lease() * 2 / 3
    }

    /// The time between two reads of the lease: 2 s by default.
    #[must_use]
    pub fn retry(self) -> Duration {
        self.lease() * 2 / 15
    }
}

impl Default for Timings {
    fn default() -> Self {
        // A constant: were it zero, this would not compile.
        Self(const { NonZeroU16::new(15).unwrap() })
    }
}
