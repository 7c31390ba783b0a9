//! Closes a step: decides what depends on everything that was begun in it, before anything is reported.
//!
//! Devices are reserved for the next changes, deletions that cannot proceed end, records of owned keys are
//! made, and held changes are frozen. None of this waits for the list of devices: the deletion of a policy
//! ends without one too.

use super::{
    activity::{is_working, must_record},
    limit::ChangeLimit,
    notify::notify,
};
use crate::{
    plan::{ApprovedOn, Changes, FrozenPlan, Mode, PolicyKey, Tally},
    tailnet::{
        Notification, Now, Settings, change_budget::ChangeBudget, devices::Devices, dirty::Dirty,
        gate::Gate, lanes::Queues, mutants::mutant, observed::Observed, outbox::Outbox,
        policy_set::PolicySet, records::Records, status_book::StatusBook,
    },
};

/// What this phase reads and changes.
pub(super) struct Closing<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e mut PolicySet,
    pub devices: &'e mut Devices,
    pub queues: &'e Queues,
    pub change_budget: &'e mut ChangeBudget,
    pub records: &'e mut Records,
    pub dirty: &'e mut Dirty,
    pub statuses: &'e mut StatusBook,
    pub outbox: &'e mut Outbox,
}

/// What one object can approve.
#[derive(Default)]
struct Held {
    changes: Changes,
    tally: Tally,
}

impl Closing<'_> {
    /// Closes the step. Returns the policies whose report is due.
    pub(super) fn close(&mut self, now: Now) -> Vec<PolicyKey> {
        if self.gate.leads() {
            self.reserve();
            let is_quiet = self.is_quiet();
            self.change_budget.count_changed(is_quiet, now.monotonic);
        }
        // Before the reports are taken: the end of a deletion is reported in the same step.
        self.finish_deletions(now);
        self.count_waiting_records(now);
        if !self.gate.leads() {
            // Only the leader writes statuses; without this, the reports would pile up until a term begins.
            self.dirty.take_reports();
            return Vec::new();
        }
        let policies = &*self.policies;
        let edited = self
            .statuses
            .corrections(self.observed.lists(), |key| policies.contains(key));
        self.dirty.report_all(edited);
        let mut due = Vec::new();
        for key in self.dirty.take_reports() {
            // One report after many changes costs one write of the status instead of many.
            if self.selector_can_wait(&key) || self.clearing_can_wait(&key) {
                self.dirty.report_later(&key);
                continue;
            }
            // The record goes into the same report, so it is made before the report is.
            self.record_keys(&key);
            self.freeze(&key, now);
            due.push(key);
        }
        due
    }

    /// Freezes the held changes of a policy, once everything else is sent and all devices are read.
    fn freeze(&mut self, key: &PolicyKey, now: Now) {
        let is_limited = self.change_budget.held().contains(key);
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        if !is_limited {
            entry.approval_mut().unfreeze_limited();
        }
        let Some(plan) = self.held_of(key, is_limited, now) else {
            return;
        };
        // The first list may lack some of the devices, so the plan may be incomplete.
        if !self.gate.can_compare_lists(self.observed) {
            self.observed.compare_soon();
            return;
        }
        let held_plan = self.limit().held_plan(key, &plan);
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let is_new = entry.freeze(plan);
        self.dirty.approve(key);
        if is_new {
            notify(self.gate, self.outbox, key, Notification::Held(held_plan));
        }
    }

    /// The held changes of a policy that are not frozen yet; `None` while they may still change.
    fn held_of(&self, key: &PolicyKey, is_limited: bool, now: Now) -> Option<FrozenPlan> {
        let entry = self.policies.get(key)?;
        let policy = entry.policy().as_deref().ok()?;
        if entry.approval().frozen_plan().is_some() || !(policy.mode == Mode::Approve || is_limited)
        {
            return None;
        }
        // An approval on one object must not release what the other object holds.
        let (mut on_policy, mut on_tailnet) = (Held::default(), Held::default());
        for id in entry.managed() {
            // A request in progress may still change what is held, and with it the hash.
            if is_working(self.devices, self.queues, self.dirty, id) {
                return None;
            }
            let Some(node) = self.devices.get(id) else {
                continue;
            };
            let device = self.observed.index().get(id);
            let shown = node.plan().shown.iter();
            for difference in shown.filter(|difference| difference.concerns(key)) {
                let held = match difference.hold.as_ref().and_then(ApprovedOn::releases) {
                    Some(ApprovedOn::Policy) => &mut on_policy,
                    Some(ApprovedOn::Tailnet) => &mut on_tailnet,
                    None => continue,
                };
                let change = &difference.change;
                let seen = node.plan().owners.view(key, change);
                held.tally.add(change, &seen, (id, device), now.wall);
                held.changes.insert(id.clone(), change.clone());
            }
        }
        let used = entry.needed_record().approvals_used * u32::from(!mutant!(ApprovalWorksTwice));
        let freeze = |on, held: Held| {
            let plan = FrozenPlan::freeze(policy, used, on, held.changes)?;
            Some(plan.with_summary(held.tally.summary()))
        };
        freeze(ApprovedOn::Tailnet, on_tailnet).or_else(|| freeze(ApprovedOn::Policy, on_policy))
    }

    /// Makes the record of the keys that a policy owns, for its report.
    fn record_keys(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let left_out = entry.record(self.observed.index(), self.records.capacity());
        self.dirty.step_all(left_out);
    }

    /// Decides whether the devices that wait for a record are recorded now: they are many, they have waited
    /// long enough, or nothing is in flight that could bring more.
    fn count_waiting_records(&mut self, now: Now) {
        let is_quiet = self.is_quiet();
        self.records.decide(is_quiet, now.monotonic);
    }

    /// Whether nothing is in flight, and nothing waits to be sent.
    fn is_quiet(&self) -> bool {
        self.outbox.is_idle() && self.queues.next_ready().is_none()
    }

    /// Whether the report of a policy with a selector can wait: more happens at once, and no record depends
    /// on it.
    fn selector_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(binding) = self
            .policies
            .get(key)
            .and_then(|entry| entry.targets().binding())
        else {
            return false;
        };
        let mut at_work = self.queues.at_work().chain(self.dirty.awaiting_step());
        self.policies.has_selector(key)
            && self.statuses.covers(self.observed.lists())
            && !self.gate.is_stopping()
            && self.gate.outage(self.observed).is_none()
            && !must_record(self.policies, self.records, key)
            && at_work.any(|id| {
                binding.holds(id) && is_working(self.devices, self.queues, self.dirty, id)
            })
    }

    /// Whether the report of a policy that is clearing devices can wait, as no record depends on it. Like for
    /// selectors, a report is made once for each list, and when the devices are idle.
    fn clearing_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(entry) = self.policies.get(key) else {
            return false;
        };
        let managed = &entry.needed_record().managed;
        if managed.released.is_empty() || !entry.clears() {
            return false;
        }
        let mut at_work = self.queues.at_work().chain(self.dirty.awaiting_step());
        self.statuses.covers(self.observed.lists())
            && !self.gate.is_stopping()
            && self.gate.outage(self.observed).is_none()
            && !must_record(self.policies, self.records, key)
            && at_work.any(|id| {
                let node = self.devices.get(id);
                node.is_some_and(|node| node.clearing().contains(key))
            })
    }

    pub(super) const fn limit(&self) -> ChangeLimit<'_> {
        ChangeLimit {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            change_budget: self.change_budget,
        }
    }
}
