//! A reconcile of one invite, and its outcome.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::ResourceExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{TailscaleDeviceInvite, TailscaleDeviceInviteStatus},
    controller::watch::stream::ObjectName,
    tailnet::Term,
};

/// Namespace and name.
pub(super) type Key = ObjectName;

/// A reconcile to run.
#[derive(Debug)]
pub(super) struct Job {
    /// The term of leadership that it belongs to.
    pub term: Term,
    pub object: Arc<TailscaleDeviceInvite>,
    /// The invites that other objects have recorded.
    pub others: BTreeSet<String>,
    /// The number of this attempt, 1 for the first.
    pub attempts: u32,
    /// Cancelled once the object is gone or edited: nothing more is created for the old object.
    pub obsolete: CancellationToken,
}

/// A reconcile that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub object: Arc<TailscaleDeviceInvite>,
    /// The status as it is stored in the cluster now.
    pub status: TailscaleDeviceInviteStatus,
    /// The version of the object that has this status.
    pub version: String,
    /// When to reconcile again; `None`: not before an edit.
    pub pause: Option<Duration>,
    /// Whether the next reconcile is another attempt.
    pub failed: bool,
}

impl Job {
    pub fn key(&self) -> Key {
        let object = &self.object;
        (object.namespace().unwrap_or_default(), object.name_any())
    }
}
