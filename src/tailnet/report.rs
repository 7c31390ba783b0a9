use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{
    Abandoned, ActionReport, ClearReport, DeviceReport, Failure, HeldPlan, LimitedPolicy,
    RecentChanges, RecentDeletions, ReservedDevices, SelectorReport,
};
use crate::{
    model::UnreadableDevices,
    plan::{Binding, Difference, Forbidden, Mode, OwnedRecord, PolicyRecord},
    tailscale::Ability,
};

/// The state of a policy; its status is derived from it.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct PolicyReport {
    /// The uid of the object: not a later object of the same name.
    pub uid: String,
    /// The generation of the spec.
    pub generation: i64,
    /// The record that must survive a restart.
    pub record: Arc<PolicyRecord>,
    /// The keys that it owns, as its status records them.
    pub owned: Arc<OwnedRecord>,
    /// The number of devices for which the record of keys has no capacity.
    pub unrecorded: usize,
    /// When this process last made a change for it.
    pub changed_at: Option<Timestamp>,
    /// The mode: what the controller does about a difference.
    pub mode: Mode,
    /// The plan that is pending approval.
    pub held: Option<HeldPlan>,
    /// The errors of the approval annotation.
    pub approval_errors: Vec<String>,
    /// The progress of clearing released devices.
    pub clearing: Option<ClearReport>,
    /// The progress of its one-shot actions.
    pub actions: ActionReport,
    /// The devices to which the tailnet's rules limit its namespace, if they do: other devices are not
    /// reported.
    pub within: Option<String>,
    /// The state.
    pub state: State,
}

/// The state of a policy.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum State {
    /// Its spec is invalid; all errors.
    Invalid(Vec<String>),
    /// The tailnet does not allow it.
    NotAllowed(Box<Forbidden>),
    /// The first list has not arrived yet.
    Starting,
    /// The API does not answer, or there is no connection.
    Unavailable(Failure),
    /// It targets no device now.
    Unbound {
        /// The identity in the spec.
        named: String,
        /// The result of the lookup.
        binding: Binding,
        /// The differences of a bound device on which someone else has signed in.
        differences: Vec<Difference>,
    },
    /// It manages a device.
    Bound(Box<DeviceReport>),
    /// It selects devices.
    Selector(Box<SelectorReport>),
    /// It targets more devices than can be recorded for clearing.
    TooMany(usize),
    /// It is being deleted. Once its record has no managed devices, the finalizer can be removed. The
    /// settings that it leaves behind, if any.
    Deleting(Option<Box<Abandoned>>),
}

/// The state of a tailnet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TailnetReport {
    /// Why the API does not answer or there is no connection, if so.
    pub failure: Option<Failure>,
    /// The domain of its devices' names, once the list has been read: it tells which tailnet this is.
    pub domain: Option<String>,
    /// The number of its own devices, once the list has been read.
    pub devices: Option<usize>,
    /// How many of them no policy targets. `None` as long as it is unknown which devices the policies target.
    pub unmanaged: Option<usize>,
    /// The devices that could not be read completely.
    pub unreadable: UnreadableDevices,
    /// Nothing is sent for any policy.
    pub suspended: bool,
    /// The policies that name it.
    pub policies: usize,
    /// The number of devices that keep joining and leaving policies, each counted once for each policy.
    pub flapping: usize,
    /// The scopes that the credential is known to lack.
    pub missing_scopes: BTreeSet<Ability>,
    /// How often attributes are read, as the request budget allows.
    pub attributes_interval: Duration,
    /// Some of the policies that the change limit holds.
    pub limited: Vec<LimitedPolicy>,
    /// How many it holds.
    pub limited_total: usize,
    /// The recent changes, once they are known.
    pub recent: Option<Vec<RecentChanges>>,
    /// How many devices were changed within the last hour, once that is known.
    pub changed: Option<usize>,
    /// How many may be changed within an hour. `None`: as many as there are, or the list has not been read.
    pub change_limit: Option<usize>,
    /// When the last complete list arrived, if one has since the connection was made.
    pub polled_at: Option<Timestamp>,
    /// The devices that may be changed next: another process counts them as changed.
    pub reserved: ReservedDevices,
    /// The deletions of the last day.
    pub deletions: Vec<RecentDeletions>,
    /// The revision of the record; requests wait until it is durable.
    pub revision: u64,
    /// How far the local clock is ahead of the API's, if that is too far.
    pub clock_skew: Option<SignedDuration>,
    /// The errors of the approval annotation.
    pub approval_errors: Vec<String>,
}

/// How often the time of the last poll moves while nothing else changes: each move is a write that wakes
/// everyone who watches the object.
const POLL_TIME_MOVES: SignedDuration = SignedDuration::from_mins(10);

/// Whether the reported time of a poll still stands for a later poll.
#[must_use]
pub fn shows_poll(reported: Option<Timestamp>, polled_at: Option<Timestamp>) -> bool {
    match (reported, polled_at) {
        // Also if the clock was set back: the time would otherwise lie in the future until it catches up.
        (Some(before), Some(now)) => now.duration_since(before).abs() < POLL_TIME_MOVES,
        (None, Some(_)) => false,
        // The last time stays until there is another one.
        (_, None) => true,
    }
}
