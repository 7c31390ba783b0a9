use jiff::SignedDuration;

/// Which inactive devices a policy deletes, and how many in a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteInactive {
    /// How long the device must not have been seen.
    pub inactive_for: SignedDuration,
    /// The most devices to delete within any 24 hours.
    pub max_per_day: u32,
}
