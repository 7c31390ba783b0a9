//! Applies the change limit: which policies it holds now.

use super::Engine;
use crate::{
    model::{NodeId, share_of_one_namespace},
    plan::Policy,
    tailnet::{Now, mutants::mutant, policy_entry::PolicyEntry},
};

/// How often one step applies the limit at most.
const ROUNDS: u32 = 3;

impl Engine {
    /// Devices whose last change is an hour old count again.
    pub(super) fn expire_changes(&mut self, now: Now) {
        let over = self.change_budget.expire(now.monotonic);
        let known = over.into_iter().filter(|id| self.devices.contains(id));
        self.dirty.plan_all(known);
    }

    /// Decides which policies are held, so that no more devices are changed than the limit allows.
    ///
    /// A held policy has no part in shared lists. That changes the plans of devices, and so which policies
    /// need a change at all. Hence a few rounds.
    pub(super) fn apply_limit(&mut self, now: Now) {
        for _ in 0..ROUNDS {
            if !self.apply_limit_once(now) {
                return;
            }
        }
    }

    /// Returns whether other policies are held than before.
    fn apply_limit_once(&mut self, now: Now) -> bool {
        let (most, share) = (self.most_changes(), self.namespace_share());
        let concerned = self.change_budget.find_large(most);
        self.dirty.plan_all(concerned);
        let policies = &self.policies;
        let change = self.change_budget.hold(most, share, |key| {
            let policy = policies.get(key)?.policy().as_ref();
            policy.ok().map(Policy::rank)
        });
        self.dirty.report_all(change.beyond_share);
        if change.held.is_empty() && !self.dirty.has_plans() {
            return false;
        }
        for key in &change.held {
            let wanted = self.change_budget.wanted_by(key);
            self.dirty.plan_all(wanted.cloned());
            // Also devices without differences: a policy that is no longer held manages their fields.
            let held = self.policies.get(key);
            let unmanaged = held.map(PolicyEntry::partly_managed).into_iter();
            self.dirty.manage_fields_all(unmanaged.flatten());
            self.dirty.report(key);
        }
        self.plan_dirty(now);
        true
    }

    /// How many devices the policies of one namespace may change within an hour, if policies of another
    /// namespace exist. Policies that are not allowed do not count.
    pub(super) fn namespace_share(&self) -> Option<usize> {
        let accepted = self
            .policies
            .iter()
            .filter(|(_, held)| held.policy().is_ok());
        let mut namespaces = accepted.map(|(key, _)| &key.namespace);
        // Policies are sorted by namespace.
        let (first, last) = (namespaces.next()?, namespaces.next_back()?);
        (first != last).then(|| self.most_changes().map(share_of_one_namespace))?
    }

    /// How many devices may be changed within an hour.
    pub(super) fn most_changes(&self) -> Option<usize> {
        self.settings
            .limit
            .devices(self.observed.index().own_count())
    }

    /// Whether the limit needs to know which devices are changed.
    pub(super) fn counts_changes(&self) -> bool {
        self.gate.approved_plan().is_none() && self.most_changes().is_some()
    }

    /// Whether a device may be changed: the change is counted durably, or need not be.
    pub(super) fn may_change(&self, id: &NodeId) -> bool {
        let is_counted = self.change_budget.reservations().is_recorded(id);
        is_counted || !self.counts_changes() || mutant!(NothingIsReserved)
    }
}
