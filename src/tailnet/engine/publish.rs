//! Last phase: emits what has changed. Decides nothing.

use super::{notify::notify, policy_report::Reports};
use crate::{
    plan::PolicyKey,
    tailnet::{
        Effect, Notification, Settings, change_budget::ChangeBudget, devices::Devices,
        dirty::Dirty, gate::Gate, lanes::Queues, matching::Matching, observed::Observed,
        outbox::Outbox, policy_entry::PolicyEntry, policy_set::PolicySet, records::Records,
        status_book::StatusBook,
    },
};

/// What this phase reads and changes.
pub(super) struct Publishing<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e Observed,
    pub policies: &'e mut PolicySet,
    pub matching: &'e Matching,
    pub devices: &'e Devices,
    pub queues: &'e Queues,
    pub change_budget: &'e ChangeBudget,
    pub records: &'e Records,
    pub dirty: &'e Dirty,
    pub statuses: &'e mut StatusBook,
    pub outbox: &'e mut Outbox,
}

impl Publishing<'_> {
    /// Emits those of the due reports that have changed. While stopping too, as the last requests must be reported.
    pub(super) fn publish(&mut self, due: Vec<PolicyKey>) {
        if !self.gate.leads() {
            return;
        }
        for key in due {
            // Before the report, whose record says that the Event was emitted.
            self.report_missed(&key);
            if let Some(entry) = self.policies.get_mut(&key) {
                entry.share_records();
            }
            let Some(report) = self.reports().report(&key) else {
                continue;
            };
            if let Some(report) = self.statuses.offer(&key, report) {
                self.outbox.report(Effect::Report(key, report));
            }
        }
        // After all reports: the next list begins another round of corrections.
        self.statuses.note_list(self.observed.lists());
        let report = self.reports().tailnet_report();
        if let Some(report) = self.statuses.offer_tailnet(report) {
            self.outbox.report(Effect::Tailnet(report));
        }
    }

    /// Emits the Event about a missed expiry.
    fn report_missed(&mut self, key: &PolicyKey) {
        let entry = self.policies.get_mut(key);
        if let Some(missed) = entry.and_then(PolicyEntry::take_missed) {
            notify(self.gate, self.outbox, key, Notification::Missed(missed));
        }
    }

    const fn reports(&self) -> Reports<'_> {
        Reports {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            matching: self.matching,
            devices: self.devices,
            queues: self.queues,
            change_budget: self.change_budget,
            records: self.records,
            dirty: self.dirty,
        }
    }
}
