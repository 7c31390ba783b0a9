//! Statuses that somebody else has edited. They are corrected after the next poll and not before, so that two
//! writers who disagree cost one write per poll.

use std::collections::BTreeSet;

use super::Engine;
use crate::plan::PolicyKey;

/// The statuses that must be written again.
#[derive(Debug, Default)]
pub(super) struct EditedStatuses {
    policies: BTreeSet<PolicyKey>,
    tailnet: bool,
}

impl EditedStatuses {
    /// Notes that somebody edited the status of this policy, or of the tailnet (`None`).
    pub fn note(&mut self, policy: Option<PolicyKey>) {
        match policy {
            Some(key) => {
                self.policies.insert(key);
            }
            None => self.tailnet = true,
        }
    }

    /// Whether the report of this policy must be written even if it has not changed. Forgets the edit.
    pub fn take(&mut self, key: &PolicyKey) -> bool {
        self.policies.remove(key)
    }
}

impl Engine {
    /// After each poll, marks the statuses that were edited since the one before.
    pub(super) fn correct_statuses(&mut self) {
        if self.reported_at == self.polling.seen {
            return;
        }
        let policies = &self.policies;
        let edited = &mut self.edited.policies;
        edited.retain(|key| policies.contains_key(key));
        self.dirty.report_all(edited.iter().cloned());
        if std::mem::take(&mut self.edited.tailnet) {
            self.last_tailnet = None;
        }
    }
}
