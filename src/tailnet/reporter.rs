//! Where the reports of an engine go.

use std::{future::Future, time::Duration};

use super::{Notification, PolicyReport, TailnetReport, Term};
use crate::plan::PolicyKey;

/// Records reports: in the status of objects, or on a terminal.
pub trait Reporter: Send + Sync + 'static {
    /// Whether this process leads in this term at this moment. Once it does not, it never will again: the
    /// lead is regained in a new term. The engine learns of the end of a term by a message. A process that
    /// was stopped for a while must not write before that message arrives.
    fn may_write(&self, _term: Term) -> bool {
        true
    }
    /// Records the report of a policy.
    fn policy(
        &self,
        term: Term,
        key: &PolicyKey,
        report: &PolicyReport,
    ) -> impl Future<Output = Recorded> + Send;
    /// Records the report of the tailnet; `false` if that failed and must be tried again.
    fn tailnet(&self, term: Term, report: &TailnetReport) -> impl Future<Output = bool> + Send;
    /// Notifies people. A failure is not repeated: the status says the same.
    fn notify(
        &self,
        term: Term,
        key: &PolicyKey,
        notification: &Notification,
    ) -> impl Future<Output = ()> + Send;
    /// A step of the engine took this long.
    fn stepped(&self, _took: Duration) {}
    /// What waits or is under way after a step.
    fn waits(&self, _backlog: Backlog) {}
}

/// What waits or is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Devices to change or to read.
    pub devices: usize,
    /// Requests in flight.
    pub requests: usize,
    /// Policies whose selector has devices left to match.
    pub selectors: usize,
    /// Reports to write.
    pub statuses: usize,
}

/// The outcome of recording the report of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is recorded, and would survive a crash.
    Yes,
    /// The policy is gone, or belongs to another tailnet now: there is nothing to record it on.
    Gone,
    /// It must be tried again.
    No,
}
