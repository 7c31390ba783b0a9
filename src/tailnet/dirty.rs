//! What must be computed again.
//!
//! The phases mark it from what the parts of the engine return, and each phase takes what it computes. A mark
//! that a phase leaves behind is due in the next step, and that step is due at once
//! ([`Dirty::is_due`]). A mark that waits for something outside of the engine (a record, an answer, a share of
//! the evaluation) is made for the next step instead, whenever that comes.

use std::collections::BTreeSet;

use crate::{model::NodeId, plan::PolicyKey};

/// The marks: see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    bindings: Marks<PolicyKey>,
    matches: Marks<NodeId>,
    plans: Marks<NodeId>,
    steps: Marks<NodeId>,
    managed_fields: Marks<NodeId>,
    approvals: Marks<PolicyKey>,
    reports: Marks<PolicyKey>,
}

/// The phases that may run now. The marks of the others wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phases {
    /// Policies are bound and devices planned.
    pub decide: bool,
    /// Approvals are used.
    pub approve: bool,
    /// The next steps of devices are decided.
    pub send: bool,
}

/// The marks of one kind.
#[derive(Debug)]
struct Marks<T> {
    now: BTreeSet<T>,
    /// Marks for the next step.
    later: BTreeSet<T>,
}

impl<T> Default for Marks<T> {
    fn default() -> Self {
        Self {
            now: BTreeSet::new(),
            later: BTreeSet::new(),
        }
    }
}

impl<T: Ord + Clone> Marks<T> {
    fn add(&mut self, it: &T) {
        // Most marks are made again and again in one step, and each clone of a key allocates.
        if !self.now.contains(it) {
            self.now.insert(it.clone());
        }
    }

    fn add_later(&mut self, it: &T) {
        self.later.insert(it.clone());
    }

    fn take(&mut self) -> BTreeSet<T> {
        std::mem::take(&mut self.now)
    }

    fn forget(&mut self, it: &T) {
        self.now.remove(it);
        self.later.remove(it);
    }

    fn has(&self, it: &T) -> bool {
        self.now.contains(it) || self.later.contains(it)
    }

    fn is_empty(&self) -> bool {
        self.now.is_empty() && self.later.is_empty()
    }

    fn begin_step(&mut self) {
        self.now.append(&mut self.later);
    }
}

impl Dirty {
    /// Begins a step: what was marked for it counts now.
    pub fn begin_step(&mut self) {
        // Only marks of these kinds are ever made for a later step.
        self.bindings.begin_step();
        self.steps.begin_step();
        self.reports.begin_step();
    }

    /// Whether anything is marked whose phase may run. Reports do not count: the last phase takes them all.
    pub fn is_due(&self, may_run: Phases) -> bool {
        let decisions = [
            self.bindings.now.is_empty(),
            self.matches.now.is_empty(),
            self.plans.now.is_empty(),
            self.managed_fields.now.is_empty(),
        ];
        // Marks for later count nowhere here: they wait for something outside, and would wake the engine in
        // a loop.
        may_run.decide
            && (decisions.contains(&false)
                || (may_run.approve && !self.approvals.now.is_empty())
                || (may_run.send && !self.steps.now.is_empty()))
    }

    /// The devices of a policy must be found again.
    pub fn rebind(&mut self, key: &PolicyKey) {
        self.bindings.add(key);
    }

    /// [`Self::rebind`] for several policies.
    pub fn rebind_all(&mut self, keys: impl IntoIterator<Item = PolicyKey>) {
        self.bindings.now.extend(keys);
    }

    /// The devices of a policy must be found again, but cannot be found in this step.
    pub fn rebind_later(&mut self, key: &PolicyKey) {
        self.bindings.add_later(key);
    }

    /// The policies to bind in this step; they stay marked.
    pub fn bindings(&self) -> Vec<PolicyKey> {
        self.bindings.now.iter().cloned().collect()
    }

    pub fn take_bindings(&mut self) -> BTreeSet<PolicyKey> {
        self.bindings.take()
    }

    /// Selectors must be matched with a device again.
    pub fn rematch(&mut self, id: &NodeId) {
        self.matches.add(id);
    }

    /// [`Self::rematch`] for several devices.
    pub fn rematch_all(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        self.matches.now.extend(ids);
    }

    pub fn take_matches(&mut self) -> BTreeSet<NodeId> {
        self.matches.take()
    }

    /// A device must be planned again.
    pub fn plan(&mut self, id: &NodeId) {
        self.plans.add(id);
    }

    /// [`Self::plan`] for several devices.
    pub fn plan_all(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        self.plans.now.extend(ids);
    }

    /// Whether a device must be planned.
    pub fn has_plans(&self) -> bool {
        !self.plans.is_empty()
    }

    pub fn take_plans(&mut self) -> BTreeSet<NodeId> {
        self.plans.take()
    }

    /// The next step of a device must be decided again.
    pub fn step(&mut self, id: &NodeId) {
        self.steps.add(id);
    }

    /// [`Self::step`] for several devices.
    pub fn step_all(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        self.steps.now.extend(ids);
    }

    /// The next step of a device must be decided again, but nothing changes before something arrives.
    pub fn step_later(&mut self, id: &NodeId) {
        self.steps.add_later(id);
    }

    /// Whether the next step of a device is undecided.
    pub fn awaits_step(&self, id: &NodeId) -> bool {
        self.steps.has(id)
    }

    /// The devices whose next step is undecided.
    pub fn awaiting_step(&self) -> impl Iterator<Item = &NodeId> {
        // Those for later too: something is still to be decided for the device.
        self.steps.now.iter().chain(&self.steps.later)
    }

    pub fn take_steps(&mut self) -> BTreeSet<NodeId> {
        self.steps.take()
    }

    /// A plan may show that a policy manages more routes of a device.
    pub fn manage_fields(&mut self, id: &NodeId) {
        self.managed_fields.add(id);
    }

    /// [`Self::manage_fields`] for several devices.
    pub fn manage_fields_all(&mut self, ids: impl IntoIterator<Item = NodeId>) {
        self.managed_fields.now.extend(ids);
    }

    pub fn take_managed_fields(&mut self) -> BTreeSet<NodeId> {
        self.managed_fields.take()
    }

    /// An approval may match the frozen plan of a policy.
    pub fn approve(&mut self, key: &PolicyKey) {
        self.approvals.add(key);
    }

    /// [`Self::approve`] for several policies.
    pub fn approve_all(&mut self, keys: impl IntoIterator<Item = PolicyKey>) {
        self.approvals.now.extend(keys);
    }

    pub fn take_approvals(&mut self) -> BTreeSet<PolicyKey> {
        self.approvals.take()
    }

    /// The report of a policy may have changed.
    pub fn report(&mut self, key: &PolicyKey) {
        self.reports.add(key);
    }

    /// [`Self::report`] for several policies.
    pub fn report_all(&mut self, keys: impl IntoIterator<Item = PolicyKey>) {
        self.reports.now.extend(keys);
    }

    /// The report of a policy may have changed, and can wait.
    pub fn report_later(&mut self, key: &PolicyKey) {
        self.reports.add_later(key);
    }

    pub fn take_reports(&mut self) -> BTreeSet<PolicyKey> {
        self.reports.take()
    }

    /// A device is no longer one of the engine's.
    pub fn forget_device(&mut self, id: &NodeId) {
        // The other marks find no device when their phase takes them, and end there.
        self.steps.forget(id);
    }

    /// A policy is gone.
    pub fn forget_policy(&mut self, key: &PolicyKey) {
        self.bindings.forget(key);
        self.approvals.forget(key);
        self.reports.forget(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Phases = Phases {
        decide: true,
        approve: true,
        send: true,
    };

    fn device() -> NodeId {
        "n1CNTRL".parse().unwrap()
    }

    fn policy() -> PolicyKey {
        PolicyKey::new("network", "routers")
    }

    #[test]
    fn a_mark_is_taken_once_however_often_it_was_made() {
        let mut dirty = Dirty::default();
        dirty.plan(&device());
        dirty.plan_all([device()]);
        assert!(dirty.has_plans());
        assert_eq!(dirty.take_plans(), [device()].into());
        assert!(!dirty.has_plans() && dirty.take_plans().is_empty());
    }

    #[test]
    fn a_mark_is_due_while_its_phase_may_run() {
        let mut dirty = Dirty::default();
        assert!(!dirty.is_due(ALL));
        dirty.step(&device());
        assert!(dirty.is_due(ALL));
        assert!(!dirty.is_due(Phases { send: false, ..ALL }));
        dirty.take_steps();
        dirty.approve(&policy());
        assert!(dirty.is_due(ALL));
        let (follows, undecided) = (
            Phases {
                approve: false,
                ..ALL
            },
            Phases {
                decide: false,
                ..ALL
            },
        );
        assert!(!dirty.is_due(follows) && !dirty.is_due(undecided));
        dirty.plan(&device());
        assert!(dirty.is_due(follows) && !dirty.is_due(undecided));
    }

    #[test]
    fn a_mark_for_later_counts_from_the_next_step_on_and_makes_none_due() {
        let mut dirty = Dirty::default();
        dirty.step_later(&device());
        dirty.rebind_later(&policy());
        assert!(dirty.awaits_step(&device()) && !dirty.is_due(ALL));
        assert!(dirty.take_steps().is_empty());
        dirty.begin_step();
        assert!(dirty.is_due(ALL));
        assert_eq!(dirty.take_steps(), [device()].into());
        assert_eq!(dirty.take_bindings(), [policy()].into());
        assert!(!dirty.awaits_step(&device()));
    }

    #[test]
    fn reports_make_no_step_due_and_a_deleted_policy_leaves_no_mark() {
        let mut dirty = Dirty::default();
        dirty.report(&policy());
        assert!(!dirty.is_due(ALL));
        dirty.rebind_later(&policy());
        dirty.approve(&policy());
        dirty.report_later(&policy());
        dirty.forget_policy(&policy());
        dirty.begin_step();
        assert!(dirty.take_reports().is_empty() && dirty.take_bindings().is_empty());
        assert!(!dirty.is_due(ALL));
    }
}
