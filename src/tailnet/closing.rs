//! Closes a step: decides what depends on everything that was begun in it, before anything is reported.
//!
//! Devices are reserved for the next changes, deletions that cannot proceed end, records of owned keys are
//! made, and held changes are frozen. None of this waits for the list of devices: the deletion of a policy
//! ends without one too.

use super::{Engine, Now};
use crate::plan::PolicyKey;

impl Engine {
    /// Closes the step. Returns the policies whose report is due.
    pub(super) fn close(&mut self, now: Now) -> Vec<PolicyKey> {
        if self.gate.leads() {
            self.reserve();
        }
        self.finish_deletions(now);
        self.count_waiting_records(now);
        if !self.gate.leads() {
            self.dirty.take_reports();
            return Vec::new();
        }
        let policies = &self.policies;
        let edited = self
            .statuses
            .corrections(self.observed.lists(), |key| policies.contains(key));
        self.dirty.report_all(edited);
        let mut due = Vec::new();
        for key in self.dirty.take_reports() {
            if self.selector_can_wait(&key) || self.clearing_can_wait(&key) {
                self.dirty.report_later(&key);
                continue;
            }
            self.record_keys(&key);
            self.freeze(&key);
            due.push(key);
        }
        due
    }
}
