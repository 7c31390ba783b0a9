//! The types of the conditions in a status.

/// Whether everything that is desired is applied.
pub const READY: &str = "Ready";
/// The controller works or will retry. Absent otherwise; never together with [`STALLED`].
pub const RECONCILING: &str = "Reconciling";
/// Only an edit helps. Absent otherwise; never together with [`RECONCILING`].
pub const STALLED: &str = "Stalled";
/// Whether the last poll found no difference; unknown until the attributes have been read.
pub const IN_SYNC: &str = "InSync";
/// Whether the policy is valid and allowed; of an invite: whether it has been accepted.
pub const ACCEPTED: &str = "Accepted";
