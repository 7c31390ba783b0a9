//! The deletion of a policy under `Clear`: how long it may take, and what it leaves behind.

use std::time::Duration;

use crate::tailnet::{
    abandoned::Abandoned,
    deadline::{Deadline, Progress, Waits},
};

/// The cleanup after a policy that is being deleted.
#[derive(Debug, Default)]
pub(in crate::tailnet) struct Cleanup {
    /// Settings that are not cleared in this time are abandoned. `None`: it is not being deleted.
    deadline: Option<Box<Deadline>>,
    /// The settings that it leaves behind, once the engine has given up.
    abandoned: Option<Box<Abandoned>>,
}

impl Cleanup {
    /// The policy is being deleted, and may take this time without progress; or it is not.
    pub fn begin(&mut self, patience: Option<Duration>) {
        self.deadline = patience.map(|patience| Box::new(Deadline::new(patience)));
    }

    /// The time starts again, in a new term. Returns whether the policy is being deleted.
    pub fn restart(&mut self) -> bool {
        self.abandoned = None;
        let deadline = self.deadline.as_deref_mut();
        deadline.map(Deadline::restart).is_some()
    }

    /// Whether the policy is being deleted.
    pub const fn has_begun(&self) -> bool {
        self.deadline.is_some()
    }

    /// The deadline of its deletion.
    pub fn deadline(&self) -> Option<&Deadline> {
        self.deadline.as_deref()
    }

    /// Counts the time up to now. `waits`: what the cleanup waited for.
    pub fn count(&mut self, waits: Waits, now: Duration) {
        if let Some(deadline) = &mut self.deadline {
            deadline.count(waits, now);
        }
    }

    /// Notes progress of the cleanup.
    pub fn note_progress(&mut self, step: Progress, now: Duration) {
        if let Some(deadline) = &mut self.deadline {
            deadline.progress(step, now);
        }
    }

    /// The settings that it leaves behind, once the engine has given up.
    pub fn abandoned(&self) -> Option<&Abandoned> {
        self.abandoned.as_deref()
    }

    /// The cleanup is finished, or given up.
    pub fn end(&mut self, abandoned: Option<Abandoned>) {
        self.abandoned = abandoned.map(Box::new);
    }
}
