//! Applies the change limit: which policies it holds now.

use std::{collections::BTreeSet, time::Duration};

use super::Engine;
use crate::{
    model::{NodeId, share_of_one_namespace},
    plan::{Policy, PolicyKey},
    tailnet::{Now, mutants::mutant},
};

/// How often one step applies the limit at most.
const ROUNDS: u32 = 3;

impl Engine {
    /// Devices whose last change is an hour old count again.
    pub(super) fn expire_changes(&mut self, now: Now) {
        let over = self.change_budget.window.expire(now.monotonic);
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
        let most = self.most_changes();
        let concerned = self.change_budget.find_large(most);
        self.dirty.plan_all(concerned);
        let (held, beyond_share) = most.map(|most| self.beyond_limit(most)).unwrap_or_default();
        let budget = &mut self.change_budget;
        let before = std::mem::replace(&mut budget.beyond_share, beyond_share);
        let changed = before.symmetric_difference(&budget.beyond_share);
        self.dirty.report_all(changed.cloned());
        if held == budget.held && !self.dirty.has_plans() {
            return false;
        }
        let budget = &self.change_budget;
        for key in held.symmetric_difference(&budget.held) {
            self.dirty.plan_all(budget.wants.of(key).cloned());
            // Also devices without differences: a policy that is no longer held manages their routes.
            let held = self.policies.get(key);
            let partly = held.map(|held| held.needed_record.managed.partly.iter());
            self.dirty
                .manage_routes_all(partly.into_iter().flatten().map(|(id, _)| id.clone()));
            self.dirty.report(key);
        }
        self.change_budget.held = held;
        self.plan_dirty(now);
        true
    }

    /// The policies that are held so that no more than `most` devices are changed, and those of them that
    /// exceed the share of their namespace.
    fn beyond_limit(&self, most: usize) -> (BTreeSet<PolicyKey>, BTreeSet<PolicyKey>) {
        let (wants, window) = (&self.change_budget.wants, &self.change_budget.window);
        let rank = |key: &PolicyKey| {
            let held = self.policies.get(key)?;
            held.policy.as_ref().ok().map(Policy::rank)
        };
        // Nothing counts against the limit, so it holds nobody.
        if wants.is_empty() {
            return Default::default();
        }
        let beyond_share = self.namespace_share().map(|share| {
            let used = window.by_namespace();
            let used = |namespace: &str| used.get(namespace).copied().unwrap_or_default();
            wants.beyond_shares(|namespace| share.saturating_sub(used(namespace)), rank)
        });
        let beyond_share = beyond_share.unwrap_or_default();
        let room = most.saturating_sub(window.count());
        let mut held = wants.policies_over_limit(room, &beyond_share, rank);
        // A policy beyond its share is held even while the tailnet's limit has room.
        held.extend(beyond_share.iter().cloned());
        (held, beyond_share)
    }

    /// How many devices the policies of one namespace may change within an hour, if policies of another
    /// namespace exist. Policies that are not allowed do not count.
    pub(super) fn namespace_share(&self) -> Option<usize> {
        let accepted = self.policies.iter().filter(|(_, held)| held.policy.is_ok());
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

    /// When the limit may stop holding a policy.
    pub(super) fn limit_ends(&self) -> Option<Duration> {
        let holds = !self.change_budget.held.is_empty();
        holds
            .then(|| self.change_budget.window.next_end())
            .flatten()
    }

    /// Whether the limit needs to know which devices are changed.
    pub(super) fn counts_changes(&self) -> bool {
        self.gate.approved_plan().is_none() && self.most_changes().is_some()
    }

    /// Whether a device may be changed: the change is counted durably, or need not be.
    pub(super) fn may_change(&self, id: &NodeId) -> bool {
        let is_counted = self.change_budget.reservations.is_recorded(id);
        is_counted || !self.counts_changes() || mutant!(NothingIsReserved)
    }
}
