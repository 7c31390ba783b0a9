//! Terms of leadership.

use std::fmt;

/// One term of leadership of this process: from winning the lead until it is lost, by the lease or by
/// the clock.
///
/// Every request, status and Event belongs to the term in which it was decided, and is dropped when
/// that term ends: another leader may have changed everything before the next one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u64);

impl Term {
    /// The first term of a process.
    pub const FIRST: Self = Self(1);

    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
