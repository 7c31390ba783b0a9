//! Conditions as kstatus, Flux and Argo CD read them: `Reconciling` and `Stalled` are present only
//! while they are true, and never both.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    ready_state::{Progress, ReadyState},
    text::bounded,
};
use crate::{
    api::{
        Reason,
        conditions::{ACCEPTED, IN_SYNC, READY, RECONCILING, STALLED},
    },
    model::printable,
};

/// Bytes, as many as an Event may have: the schema of conditions allows 32,768, far more than people read.
const MAX_MESSAGE: usize = 1000;

/// Whether a policy's devices are in sync, as far as is known.
pub(super) enum SyncState {
    Yes,
    /// The differences.
    No(String),
    NotYet,
    /// The result of the last poll stays.
    AsBefore,
}

impl SyncState {
    /// Nothing differs, but the policy does not have its way.
    pub(super) fn overridden() -> Self {
        Self::No("Another policy overrides a field that this policy declares.".to_owned())
    }
}

/// Builds the new list of conditions: the transition time changes only when the status of a
/// condition does.
pub(in crate::controller) struct Conditions<'a> {
    old: &'a [Condition],
    generation: i64,
    now: Timestamp,
    new: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    pub fn new(old: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self {
            old,
            generation,
            now,
            new: Vec::new(),
        }
    }

    pub fn set_ready(&mut self, ready: &ReadyState) {
        self.set(READY, ready.status(), ready.reason(), ready.message());
        match ready.progress() {
            Progress::Done => {}
            Progress::Reconciling => {
                self.set(RECONCILING, "True", ready.reason(), ready.message());
            }
            Progress::Stalled => self.set(STALLED, "True", ready.reason(), ready.message()),
        }
    }

    /// While a policy is suspended its last `Ready` condition stays until the spec is edited. A
    /// policy without a known state gets the reason `Suspended`.
    pub fn set_suspended(&mut self, ready: &ReadyState) {
        let last = self.old.iter().find(|condition| condition.type_ == READY);
        let Some(last) = last.filter(|last| last.status != "Unknown") else {
            self.set_ready(ready);
            return;
        };
        self.put(READY, &last.status, &last.reason, &last.message);
        // Nothing works on a suspended policy: without this, kstatus would wait for it.
        if last.status != "True" {
            self.set(STALLED, "True", ready.reason(), ready.message());
        }
    }

    pub fn accepted(&mut self) {
        self.set(ACCEPTED, "True", Reason::Accepted, "The policy is valid.");
    }

    pub fn refused(&mut self, ready: &ReadyState) {
        self.set(ACCEPTED, "False", ready.reason(), ready.message());
    }

    pub(super) fn set_in_sync(&mut self, state: &SyncState, ready: &ReadyState) {
        match state {
            SyncState::Yes => self.in_sync(),
            SyncState::No(differences) => self.out_of_sync(differences),
            SyncState::NotYet => self.sync_unknown(ready),
            SyncState::AsBefore => self.keep_in_sync(ready),
        }
    }

    fn in_sync(&mut self) {
        self.set(
            IN_SYNC,
            "True",
            Reason::InSync,
            "The last poll found no difference.",
        );
    }

    fn out_of_sync(&mut self, differences: &str) {
        self.set(IN_SYNC, "False", Reason::OutOfSync, differences);
    }

    fn sync_unknown(&mut self, ready: &ReadyState) {
        self.set(
            IN_SYNC,
            "Unknown",
            ready.reason(),
            "Not all settings have been read yet.",
        );
    }

    /// While the tailnet cannot be read, the result of the last poll stays.
    fn keep_in_sync(&mut self, ready: &ReadyState) {
        let last = self.old.iter().find(|condition| condition.type_ == IN_SYNC);
        match last.filter(|last| last.status != "Unknown") {
            Some(last) => self.new.push(last.clone()),
            None => self.sync_unknown(ready),
        }
    }

    pub fn finish(self) -> Vec<Condition> {
        self.new
    }

    pub fn set(&mut self, type_: &str, status: &str, reason: Reason, message: &str) {
        self.put(type_, status, reason.as_str(), message);
    }

    fn put(&mut self, type_: &str, status: &str, reason: &str, message: &str) {
        let old = self.old.iter().find(|condition| condition.type_ == type_);
        let since = old
            .filter(|old| old.status == status)
            .map(|old| old.last_transition_time.clone());
        // Whole seconds, as a metav1.Time has.
        let now = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        self.new.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            // Names of devices and messages of the API are in it.
            message: bounded(printable(message), MAX_MESSAGE),
            observed_generation: Some(self.generation),
            last_transition_time: since.unwrap_or(Time(now)),
        });
    }
}
