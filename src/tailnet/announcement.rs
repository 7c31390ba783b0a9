use super::{Failure, HeldPlan, MissedExpiry};
use crate::plan::{Difference, Field, Forbidden};

/// What somebody should be told when it happens, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// A difference was removed.
    Changed(Box<Difference>),
    /// A change was not accepted.
    Failed {
        /// The device.
        device: String,
        /// The setting.
        field: Field,
        /// What came back.
        failure: Failure,
    },
    /// Changes wait for an approval.
    Held(HeldPlan),
    /// They were approved, and are sent.
    Approved(HeldPlan),
    /// Keys are not expired at a time, and never will be for it.
    Missed(MissedExpiry),
    /// The tailnet does not allow the policy.
    Refused(Forbidden),
}
