//! Statuses that somebody else has written to: corrected with the next list, and no sooner, so that two who
//! disagree about a status cost one write for each poll.

use std::collections::BTreeSet;

use super::Engine;
use crate::plan::PolicyKey;

/// The statuses that are to be written anew.
#[derive(Debug, Default)]
pub(super) struct EditedStatuses {
    policies: BTreeSet<PolicyKey>,
    tailnet: bool,
}

impl EditedStatuses {
    /// Somebody wrote to the status of this policy, or of the tailnet.
    pub fn note(&mut self, policy: Option<PolicyKey>) {
        match policy {
            Some(key) => {
                self.policies.insert(key);
            }
            None => self.tailnet = true,
        }
    }

    /// Whether the report of this policy is to be written even if it is the last one.
    pub fn settle(&mut self, key: &PolicyKey) -> bool {
        self.policies.remove(key)
    }
}

impl Engine {
    /// With each list, what was edited since the one before is told again.
    pub(super) fn correct_statuses(&mut self) {
        if self.told_at == self.polling.seen {
            return;
        }
        let policies = &self.policies;
        let edited = &mut self.edited.policies;
        edited.retain(|key| policies.contains_key(key));
        self.tell.extend(edited.iter().cloned());
        if std::mem::take(&mut self.edited.tailnet) {
            self.last_tailnet = None;
        }
    }
}
