//! The change limit: which policies it holds now.
use std::{collections::BTreeSet, time::Duration};

use super::{
    DETAILS, Engine, Now, RecentChanges, RecentDeletions, ReservedDevices, deletions::DeletionLog,
    reserve::Reservations, window::Window,
};
use crate::{
    model::{NodeId, share_of_one_namespace},
    plan::{Approvals, ApprovedOn, PlanHash, Policy, PolicyKey, WantedChanges},
};

/// How often one step applies the limit at most.
const ROUNDS: u32 = 3;

/// What the tailnet's resource records besides its settings: the approvals in its annotation, and the changes
/// of earlier processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailnetDeclared {
    /// The approvals in its annotation.
    pub approvals: Approvals,
    /// The devices that were changed within the last hour.
    pub recent: Vec<RecentChanges>,
    /// The devices that may have been changed since.
    pub reserved: ReservedDevices,
    /// The devices that were deleted within the last day.
    pub deletions: Vec<RecentDeletions>,
}

/// A policy that the change limit holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedPolicy {
    /// The policy.
    pub policy: PolicyKey,
    /// How many devices it would change.
    pub devices: usize,
    /// The hash that an approval names, once its changes are frozen.
    pub hash: Option<PlanHash>,
}

/// The change limit of a tailnet, and what counts against it.
#[derive(Debug, Default)]
pub(super) struct ChangeBudget {
    pub window: Window,
    /// The changes that count against the limit.
    pub wants: WantedChanges,
    /// All needed changes, including those that count for nothing.
    all: WantedChanges,
    /// The policies that need to change more devices than the limit allows within an hour. Such a change is
    /// no small correction, so none of its devices is free.
    large: BTreeSet<PolicyKey>,
    /// The policies that the limit holds.
    pub held: BTreeSet<PolicyKey>,
    /// Those of them that exceed the share of their namespace.
    pub beyond_share: BTreeSet<PolicyKey>,
    pub approvals: Approvals,
    /// The record of previous leaders, until this process takes it over when it starts to lead.
    recorded: Option<TailnetDeclared>,
    taken_over: bool,
    /// The current record of changes; `None` until the previous one is taken over.
    recent: Option<Vec<RecentChanges>>,
    recent_is_dirty: bool,
    pub reservations: Reservations,
    pub deletions: DeletionLog,
}

impl ChangeBudget {
    /// A request that changes a device for a namespace is sent.
    pub fn begin(&mut self, id: &NodeId, namespace: Option<String>) {
        self.window.begin(id, namespace);
        let waiting = self.waiting(id);
        self.wants.set(id, waiting);
    }

    /// The request was answered.
    pub fn end(&mut self, id: &NodeId, changed: bool, now: Now) {
        self.window.end(id, changed, now);
        self.recent_is_dirty |= changed;
    }

    /// Takes a device's plan into account. Changing a device again within the hour is free, except for a
    /// policy that changes many devices and for one that is held already: a plan that is frozen under a hash
    /// waits for its own approval or for the limit, whatever another policy has changed meanwhile.
    pub fn note(&mut self, id: &NodeId, needed_by: &BTreeSet<PolicyKey>) {
        self.all.set(id, needed_by.clone());
        let mut counted = needed_by.clone();
        if self.window.has(id) {
            let waiting = self.waiting(id);
            counted.retain(|key| self.large.contains(key) || waiting.contains(key));
        }
        self.wants.set(id, counted);
    }

    /// Finds the policies that need to change more devices than the limit allows. Returns the devices of
    /// those whose answer has changed.
    fn find_large(&mut self, most: Option<usize>) -> BTreeSet<NodeId> {
        let mut concerned = BTreeSet::new();
        let large = most.map(|most| self.all.larger_than(most));
        let large = large.unwrap_or_default();
        for key in large.symmetric_difference(&self.large) {
            let waits = large.contains(key) || self.held.contains(key);
            for id in self.all.of(key) {
                let mut counted = self.wants.by(id).clone();
                if waits || !self.window.has(id) {
                    counted.insert(key.clone());
                } else {
                    counted.remove(key);
                }
                self.wants.set(id, counted);
                concerned.insert(id.clone());
            }
        }
        self.large = large;
        concerned
    }

    /// The held policies that need to change a device.
    fn waiting(&self, id: &NodeId) -> BTreeSet<PolicyKey> {
        self.wants
            .by(id)
            .intersection(&self.held)
            .cloned()
            .collect()
    }

    /// Whether a policy is held on a device: on every device except where its change is free.
    pub fn holds(&self, id: &NodeId, key: &PolicyKey) -> bool {
        let is_free = self.window.has(id) && !self.wants.by(id).contains(key);
        self.held.contains(key) && !is_free
    }

    /// Takes over the changes of previous leaders, once per term: from then on, this process has the newer
    /// record.
    fn take_over(&mut self, now: Now) {
        if let Some(record) = self.recorded.take().filter(|_| !self.taken_over) {
            self.window.take_over(&record.recent, &record.reserved, now);
            self.deletions.take_over(record.deletions);
            self.recent = Some(self.window.recent());
            self.reservations.next_revision();
            self.taken_over = true;
        }
    }

    /// Updates the record of changes. Returns whether it has changed.
    pub fn note_recent(&mut self) -> bool {
        let is_dirty = std::mem::take(&mut self.recent_is_dirty);
        if is_dirty {
            self.recent = Some(self.window.recent());
        }
        is_dirty
    }
}

impl Engine {
    pub(super) fn take_tailnet(&mut self, declared: TailnetDeclared, now: Now) {
        let budget = &mut self.change_budget;
        if budget.approvals != declared.approvals {
            budget.approvals.clone_from(&declared.approvals);
            self.dirty.approve_all(budget.held.iter().cloned());
        }
        budget.recorded = Some(declared);
        if self.gate.leads() {
            budget.take_over(now);
        }
    }

    /// A new leader counts the changes of the previous one.
    pub(super) fn start_counting(&mut self, now: Now) {
        self.change_budget.taken_over = false;
        self.change_budget.reservations.clear();
        if self.gate.leads() {
            self.change_budget.take_over(now);
        }
    }

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

    pub(super) fn recent_changes(&self) -> Option<Vec<RecentChanges>> {
        self.change_budget.recent.clone()
    }

    /// Some of the policies that the limit holds.
    pub(super) fn limited_policies(&self) -> Vec<LimitedPolicy> {
        let limited = self.change_budget.held.iter().take(DETAILS).map(|key| {
            let held = self.policies.get(key);
            let plan = held.and_then(|held| held.frozen_plan.as_ref());
            let plan = plan.filter(|plan| plan.on == ApprovedOn::Tailnet);
            LimitedPolicy {
                policy: key.clone(),
                devices: plan.map_or_else(
                    || self.change_budget.wants.of(key).len(),
                    |plan| plan.changes().devices(),
                ),
                hash: plan.map(|plan| plan.hash.clone()),
            }
        });
        limited.collect()
    }
}
