//! The report of a tailnet.

use super::{policy_report::Reports, reports::tailnet_approval_errors};
use crate::{
    plan::ApprovedOn,
    tailnet::{DETAILS, TailnetReport, change_budget::LimitedPolicy},
};

impl Reports<'_> {
    /// The report of the tailnet.
    pub(super) fn tailnet_report(&self) -> TailnetReport {
        let failure = self
            .gate
            .disconnected()
            .or(self.observed.polling().failure());
        TailnetReport {
            failure: failure.cloned(),
            domain: self.observed.index().domain(),
            devices: (self.observed.lists() > 0).then(|| self.observed.index().own_count()),
            unmanaged: self.unmanaged(),
            unreadable: self.observed.unreadable(),
            suspended: self.policies.guardrails().suspended(),
            policies: self.policies.len(),
            flapping: self.matching.flapping().count(),
            missing_scopes: self.gate.missing_scopes().clone(),
            attributes_interval: self
                .observed
                .longest_read_interval(self.settings.attributes_interval),
            limited: self.limited_policies(),
            limited_total: self.change_budget.held().len(),
            recent: self.change_budget.recent().cloned(),
            changed: self.change_budget.changed(),
            change_limit: (self.observed.lists() > 0)
                .then(|| self.limit().most_changes())
                .flatten(),
            polled_at: self.observed.polling().polled_at(),
            reserved: self.change_budget.reservations().devices(),
            deletions: self.change_budget.deletions().recent(),
            revision: self.change_budget.reservations().revision(),
            clock_skew: self.observed.clock_skew(),
            approval_errors: tailnet_approval_errors(
                self.observed,
                self.policies,
                self.change_budget,
            ),
        }
    }

    /// How many devices no policy targets. Before a second list the policies for names have none.
    fn unmanaged(&self) -> Option<usize> {
        let is_known = self.gate.can_compare_lists(self.observed) && !self.matching.is_evaluating();
        let all = self.observed.index().own_count();
        is_known.then(|| all.saturating_sub(self.devices.managed()))
    }

    /// Some of the policies that the limit holds.
    fn limited_policies(&self) -> Vec<LimitedPolicy> {
        let limited = self.change_budget.held().iter().take(DETAILS).map(|key| {
            let held = self.policies.get(key);
            let plan = held.and_then(|held| held.approval().frozen_plan());
            let plan = plan.filter(|plan| plan.on == ApprovedOn::Tailnet);
            LimitedPolicy {
                policy: key.clone(),
                devices: plan.map_or_else(
                    || self.change_budget.wanted_by(key).len(),
                    |plan| plan.changes().devices(),
                ),
                hash: plan.map(|plan| plan.hash.clone()),
            }
        });
        limited.collect()
    }
}
