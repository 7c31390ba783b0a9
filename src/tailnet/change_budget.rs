//! The limit of changed devices: which policies it holds now.
use std::{collections::BTreeSet, time::Duration};

use super::{
    DETAILS, Engine, Now, RecentChanges, RecentDeletions, ReservedDevices, deletions::DeletionLog,
    reserve::Reservations, window::Window,
};
use crate::{
    model::{NodeId, share_of_one_namespace},
    plan::{Approvals, ApprovedOn, PlanHash, Policy, PolicyKey, WantedChanges},
};

/// How often the limit is decided anew within one step.
const ROUNDS: u32 = 3;

/// What is kept of a tailnet besides its settings: its annotation, and what former processes did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TailnetDeclared {
    /// What its annotation approves.
    pub approvals: Approvals,
    /// The devices that were changed a short while ago.
    pub recent: Vec<RecentChanges>,
    /// Those that may have been changed since.
    pub reserved: ReservedDevices,
    /// The devices that were deleted within a day.
    pub deletions: Vec<RecentDeletions>,
}

/// A policy that the limit holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitedPolicy {
    /// Which one.
    pub policy: PolicyKey,
    /// How many devices it would change.
    pub devices: usize,
    /// What an approval names, once its changes are frozen.
    pub hash: Option<PlanHash>,
}

/// The limit of a tailnet, and what counts against it.
#[derive(Debug, Default)]
pub(super) struct ChangeBudget {
    pub window: Window,
    /// What counts against it.
    pub wants: WantedChanges,
    /// What policies want to change, whether it counts or is free.
    all: WantedChanges,
    /// The policies that want to change more devices than may be changed within an hour: nothing of
    /// that is a small correction, so that nothing of it is free.
    large: BTreeSet<PolicyKey>,
    /// The policies that it holds.
    pub held: BTreeSet<PolicyKey>,
    /// Those of them that are beyond the share of their namespace.
    pub beyond_share: BTreeSet<PolicyKey>,
    pub approvals: Approvals,
    /// What was kept by others, until it is taken over with the lead.
    recorded: Option<TailnetDeclared>,
    taken_over: bool,
    /// What is to be kept now; `None` until that is known.
    recent: Option<Vec<RecentChanges>>,
    recent_is_old: bool,
    pub reservations: Reservations,
    pub deletions: DeletionLog,
}

impl ChangeBudget {
    /// A call that changes a device for a namespace is sent.
    pub fn begin(&mut self, id: &NodeId, namespace: Option<String>) {
        self.window.begin(id, namespace);
        let waiting = self.waiting(id);
        self.wants.set(id, waiting);
    }

    /// Such a call was answered.
    pub fn end(&mut self, id: &NodeId, changed: bool, now: Now) {
        self.window.end(id, changed, now);
        self.recent_is_old |= changed;
    }

    /// Takes a device's plan into account. A device that was changed within the hour is changed again
    /// for free, but not for many at once, and not for what is held already: what is frozen under a
    /// hash waits for its own approval, or for room, whatever another policy has changed meanwhile.
    pub fn note(&mut self, id: &NodeId, wanted_by: &BTreeSet<PolicyKey>) {
        self.all.set(id, wanted_by.clone());
        let mut counted = wanted_by.clone();
        if self.window.has(id) {
            let waiting = self.waiting(id);
            counted.retain(|key| self.large.contains(key) || waiting.contains(key));
        }
        self.wants.set(id, counted);
    }

    /// Finds the policies again that want to change more devices than this, or any number. Gives the
    /// devices of those that were not so before, or no longer are.
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

    /// The policies that are held and that want to change a device.
    fn waiting(&self, id: &NodeId) -> BTreeSet<PolicyKey> {
        self.wants
            .by(id)
            .intersection(&self.held)
            .cloned()
            .collect()
    }

    /// Whether a policy is held on a device: everywhere but where its change is free.
    pub fn holds(&self, id: &NodeId, key: &PolicyKey) -> bool {
        let is_free = self.window.has(id) && !self.wants.by(id).contains(key);
        self.held.contains(key) && !is_free
    }

    /// Takes over what former leaders have changed, once: from then on what this process keeps is
    /// the newer.
    fn take_over(&mut self, now: Now) {
        if let Some(kept) = self.recorded.take().filter(|_| !self.taken_over) {
            self.window.take_over(&kept.recent, &kept.reserved, now);
            self.deletions.take_over(kept.deletions);
            self.recent = Some(self.window.recent());
            self.reservations.next_revision();
            self.taken_over = true;
        }
    }

    /// Brings up to date what is to be kept. Says whether that is something new.
    pub fn note_recent(&mut self) -> bool {
        let is_old = std::mem::take(&mut self.recent_is_old);
        if is_old {
            self.recent = Some(self.window.recent());
        }
        is_old
    }
}

impl Engine {
    pub(super) fn take_tailnet(&mut self, declared: TailnetDeclared, now: Now) {
        let limiter = &mut self.change_budget;
        if limiter.approvals != declared.approvals {
            limiter.approvals.clone_from(&declared.approvals);
            self.dirty_approvals.extend(limiter.held.iter().cloned());
        }
        limiter.recorded = Some(declared);
        if self.term.is_some() {
            limiter.take_over(now);
        }
    }

    /// Whoever takes the lead counts what the former leader has changed.
    pub(super) fn lead_limiter(&mut self, now: Now) {
        self.change_budget.taken_over = false;
        self.change_budget.reservations.clear();
        if self.leads() {
            self.change_budget.take_over(now);
        }
    }

    /// Devices whose last change is an hour old count anew.
    pub(super) fn expire_changes(&mut self, now: Now) {
        let over = self.change_budget.window.expire(now.monotonic);
        let known = over.into_iter().filter(|id| self.devices.contains_key(id));
        self.dirty_plans.extend(known);
    }

    /// Decides which policies are held, so that no more devices are changed than the limit allows.
    ///
    /// Who is held decides what a shared list becomes, and so may decide what a guard holds and what
    /// is still wished: hence a few rounds.
    pub(super) fn keep_the_limit(&mut self, now: Now) {
        for _ in 0..ROUNDS {
            if !self.decide_the_limit(now) {
                return;
            }
        }
    }

    /// Says whether other policies are held than before.
    fn decide_the_limit(&mut self, now: Now) -> bool {
        let most = self.most_changes();
        let concerned = self.change_budget.find_large(most);
        self.dirty_plans.extend(concerned);
        let (held, beyond_share) = most.map(|most| self.beyond_limit(most)).unwrap_or_default();
        let limiter = &mut self.change_budget;
        let before = std::mem::replace(&mut limiter.beyond_share, beyond_share);
        let told = before.symmetric_difference(&limiter.beyond_share);
        self.dirty_statuses.extend(told.cloned());
        if held == limiter.held && self.dirty_plans.is_empty() {
            return false;
        }
        let limiter = &self.change_budget;
        for key in held.symmetric_difference(&limiter.held) {
            self.dirty_plans.extend(limiter.wants.of(key).cloned());
            // Also those that do not differ: what is no longer held manages their routes.
            let held = self.policies.get(key);
            let partly = held.map(|held| held.needed_record.managed.partly.iter());
            self.dirty_managed_routes
                .extend(partly.into_iter().flatten().map(|(id, _)| id.clone()));
            self.dirty_statuses.insert(key.clone());
        }
        self.change_budget.held = held;
        self.replan_stale(now);
        true
    }

    /// The policies that are held, so that no more than `most` devices are changed, and those of them that
    /// are held as their namespace leaves a part of that to others.
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

    /// How many devices the policies of one namespace may change within an hour, where the tailnet has
    /// policies of another one. What is refused reserves nothing.
    pub(super) fn namespace_share(&self) -> Option<usize> {
        let accepted = self.policies.iter().filter(|(_, held)| held.policy.is_ok());
        let mut namespaces = accepted.map(|(key, _)| &key.namespace);
        // They are in the order of their namespaces.
        let (first, last) = (namespaces.next()?, namespaces.next_back()?);
        (first != last).then(|| self.most_changes().map(share_of_one_namespace))?
    }

    /// How many devices may be changed within an hour.
    pub(super) fn most_changes(&self) -> Option<usize> {
        self.settings.limit.devices(self.index.own_count())
    }

    /// When a policy that the limit holds may be let go on.
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
            let batch = held.and_then(|held| held.frozen_plan.as_ref());
            let batch = batch.filter(|batch| batch.on == ApprovedOn::Tailnet);
            LimitedPolicy {
                policy: key.clone(),
                devices: batch.map_or_else(
                    || self.change_budget.wants.of(key).len(),
                    |batch| batch.changes().devices(),
                ),
                hash: batch.map(|batch| batch.hash.clone()),
            }
        });
        limited.collect()
    }
}
