use std::{sync::Arc, time::Duration};

use crate::plan::{Approvals, History, Policy, PolicyKey, PolicyRecord, ReconcileRequest};

/// A policy as it was declared: parsed, or refused with all of its errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInput {
    /// Its namespace and name.
    pub key: PolicyKey,
    /// Distinguishes it from a later object of the same name.
    pub uid: String,
    /// Counts the edits of its spec.
    pub generation: i64,
    /// The policy, or its errors, each with the path of the field.
    pub policy: Result<Arc<Policy>, Vec<String>>,
    /// What its status records.
    pub record: PolicyRecord,
    /// The reconcile requests in its annotations.
    pub request: ReconcileRequest,
    /// The approvals in its annotation.
    pub approvals: Approvals,
    /// The other state of the object.
    pub status_state: StatusState,
    /// Set while the object is being deleted: its finalizer stays until its devices are cleared, or until
    /// nothing could be cleared for this long.
    pub deleting: Option<Duration>,
}

/// The state of a policy's object besides its spec and its records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusState {
    /// The part of an invalid spec that can still be read.
    pub readable: Option<Arc<Policy>>,
    /// The object cannot be read as a whole, and has a status: the controller writes nothing to it, because a
    /// write could lose fields that this version does not know.
    pub left_alone: bool,
    /// The finalizer is missing.
    pub lacks_finalizer: bool,
    /// What the status says about the time before this process. `None`: a file, which has no status.
    pub history: Option<History>,
}
