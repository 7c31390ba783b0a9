//! The `Ready` condition of an object before it is written, and whether the controller continues.

use crate::{
    api::Reason,
    tailnet::{Failure, Retry},
};

/// Whether the controller continues without an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::controller) enum Progress {
    /// Nothing is left to do.
    Done,
    /// The controller works, or will retry.
    Reconciling,
    /// Only an edit helps.
    Stalled,
}

/// The `Ready` condition of an object, and its progress.
#[derive(Debug, Clone)]
pub(in crate::controller) struct ReadyState {
    status: &'static str,
    reason: Reason,
    message: String,
    /// The other causes, the most severe first.
    others: Vec<String>,
    progress: Progress,
}

/// The number of other causes that a message names.
const MAX_OTHERS: usize = 4;

impl ReadyState {
    pub fn done(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status: "True",
            reason,
            message: message.into(),
            others: Vec::new(),
            progress: Progress::Done,
        }
    }

    pub fn working(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            // Not False: an alert on a failure must not fire while the controller works.
            status: "Unknown",
            reason,
            message: message.into(),
            others: Vec::new(),
            progress: Progress::Reconciling,
        }
    }

    /// Before the first list of devices.
    pub fn starting() -> Self {
        let message = "The controller is reading the first list of devices.";
        Self::working(Reason::NotStarted, message)
    }

    pub fn retrying(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status: "False",
            reason,
            message: message.into(),
            others: Vec::new(),
            progress: Progress::Reconciling,
        }
    }

    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            status: "False",
            reason,
            message: message.into(),
            others: Vec::new(),
            progress: Progress::Stalled,
        }
    }

    /// The status of the `Ready` condition.
    pub fn status(&self) -> &'static str {
        self.status
    }

    pub fn reason(&self) -> Reason {
        self.reason
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// The message with all causes.
    pub fn into_message(self) -> String {
        self.complete().message
    }

    /// The same state, with another cause beside the one that decides it.
    pub fn beside(mut self, other: Self) -> Self {
        self.others.push(other.message);
        self.others.extend(other.others);
        self
    }

    /// The same state, without other causes.
    pub fn alone(self) -> Self {
        Self {
            others: Vec::new(),
            ..self
        }
    }

    /// The same state, with all causes in its message.
    pub fn complete(mut self) -> Self {
        let left_out = self.others.len().saturating_sub(MAX_OTHERS);
        for other in self.others.drain(..).take(MAX_OTHERS) {
            self.message += " ";
            self.message += &other;
        }
        if left_out > 0 {
            let left_out = format!(" status.pending lists {left_out} more.");
            self.message += &left_out;
        }
        self
    }

    /// Causes that only an edit removes come before those that the controller retries, and these before those
    /// that are no failure.
    pub fn severity(&self) -> u8 {
        match (self.progress, self.status) {
            (Progress::Stalled, _) => 0,
            (_, "False") => 1,
            (_, "Unknown") => 2,
            _ => 3,
        }
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The same state, described otherwise.
    pub fn with_message(self, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..self
        }
    }

    /// The same state, with more text.
    pub fn and(mut self, text: &str) -> Self {
        self.message += text;
        self
    }
}

/// The state that a failure causes.
pub(in crate::controller) fn failed(failure: &Failure) -> ReadyState {
    match failure.retry {
        Retry::Never => ReadyState::stalled(failure.reason, &failure.message),
        Retry::Later | Retry::After(_) => ReadyState::retrying(failure.reason, &failure.message),
    }
}
