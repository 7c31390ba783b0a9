//! The types of the conditions in a status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::model::Reason;

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

/// Reasons of `Ready=False` that time or another change resolves, without a person.
const IN_PROGRESS: [Reason; 4] = [
    Reason::Clearing,
    Reason::RateLimited,
    Reason::DependencyNotReady,
    Reason::AttributesUnread,
];

/// Whether a person must act on an object with this condition [`READY`].
#[must_use]
pub fn needs_person(ready: &Condition) -> bool {
    let mut in_progress = IN_PROGRESS.iter();
    ready.status == "False" && !in_progress.any(|reason| reason.as_str() == ready.reason)
}
