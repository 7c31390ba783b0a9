//! Matches selectors with devices in shares, so that no step takes long and no namespace waits for the
//! selectors of another one.
//!
//! A step does a share of the work and leaves the rest to the next steps, which follow at once. Namespaces
//! take turns. While a policy has devices left to match, nothing is decided from a part. A new policy targets
//! no device. An edited policy keeps its devices and its precedence, and sends nothing. A device whose facts
//! have changed waits if such a policy targets it. At the start of a process or term, another process may
//! have acted for the policies already: until their devices are known, every device that they may target
//! waits. Results are kept: only a device with a changed fact, and an edited selector, are matched again.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Engine, policy_entry::PolicyEntry};
use crate::{
    model::NodeId,
    plan::{AllowedRules, Binding, DeviceIndex, Mode, Policy, PolicyKey, Refusal, Selector},
};

/// The evaluation steps that a namespace has before the next one gets its turn.
const TURN: usize = 40_000;
/// The cost of a device besides its evaluation steps.
const DEVICE: usize = 20;

/// Whether a selector matches a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Matches,
    DoesNotMatch,
    /// The expression fails on this device.
    Unknown,
}

/// The progress of matching a policy's selector with the devices.
#[derive(Debug)]
pub(super) struct Evaluation {
    selector: Selector,
    /// The devices that the policy may target.
    allowance: AllowedRules,
    /// No result takes effect before all devices have been matched.
    is_first: bool,
    left: BTreeSet<NodeId>,
    /// Results that have not taken effect yet. The first evaluation leaves out devices that do not match.
    found: BTreeMap<NodeId, Comparison>,
    /// The edited policy, which takes effect once the evaluation is complete; until then the policy sends
    /// nothing.
    next: Option<Result<Policy, Refusal>>,
}

impl Evaluation {
    /// Evaluates all devices.
    fn new(selector: Selector, allowance: AllowedRules, fleet: &DeviceIndex) -> Self {
        let all = fleet.devices().map(|device| device.node_id.clone());
        Self {
            selector,
            allowance,
            is_first: true,
            left: all.collect(),
            found: BTreeMap::new(),
            next: None,
        }
    }

    /// Matches devices until these steps are used up. Returns the steps that are left.
    fn advance(&mut self, fleet: &DeviceIndex, mut steps: usize) -> usize {
        while steps > 0
            && let Some(id) = self.left.pop_first()
        {
            steps = steps.saturating_sub(DEVICE);
            let device = fleet.get(&id).filter(|it| self.allowance.is_about(it));
            let comparison = match device.map(|device| self.selector.evaluate(device)) {
                None => Comparison::DoesNotMatch,
                Some((result, taken)) => {
                    steps = steps.saturating_sub(taken);
                    match result {
                        Ok(true) => Comparison::Matches,
                        Ok(false) => Comparison::DoesNotMatch,
                        Err(_) => Comparison::Unknown,
                    }
                }
            };
            if self.is_first && comparison == Comparison::DoesNotMatch {
                self.found.remove(&id);
            } else {
                self.found.insert(id, comparison);
            }
        }
        steps
    }

    fn with(&self, comparison: Comparison) -> BTreeSet<NodeId> {
        let found = self.found.iter().filter(|(_, it)| **it == comparison);
        found.map(|(id, _)| id.clone()).collect()
    }
}

impl PolicyEntry {
    /// Whether its devices are unknown yet: its selector is new or edited.
    pub fn is_first_evaluated(&self) -> bool {
        let evaluation = self.evaluation.as_ref();
        evaluation.is_some_and(|it| it.is_first && !it.left.is_empty())
    }

    /// Whether an edit waits until its devices are known.
    pub fn is_set_aside(&self) -> bool {
        let evaluation = self.evaluation.as_ref();
        evaluation.is_some_and(|it| it.next.is_some())
    }

    /// The policy that is in force, or will be once its devices are known.
    pub fn intended(&self) -> &Result<Policy, Refusal> {
        let next = self.evaluation.as_ref().and_then(|it| it.next.as_ref());
        next.unwrap_or(&self.policy)
    }

    /// The devices that its selector matches, and those on which its expression fails, if these are known.
    pub fn evaluated(&self) -> Option<(BTreeSet<NodeId>, BTreeSet<NodeId>)> {
        let evaluation = self.evaluation.as_ref()?;
        let known = evaluation.is_first.then(|| {
            let matching = evaluation.with(Comparison::Matches);
            (matching, evaluation.with(Comparison::Unknown))
        });
        known.or_else(|| match &self.binding {
            Some(Binding::Selector(nodes)) => Some((nodes.clone(), self.selector_errors.clone())),
            _ => None,
        })
    }

    /// Notes an edit of its spec or of the guardrails. `before`: the policy that was in force.
    pub fn note_edit(&mut self, before: Option<&Policy>) {
        if let Some(evaluation) = &mut self.evaluation {
            evaluation.next = None;
        }
        self.before_edit = before.filter(|_| self.binding.is_some()).cloned();
    }

    /// The results take effect.
    pub fn take_evaluated(&mut self) {
        if let Some(evaluation) = &mut self.evaluation {
            evaluation.is_first = false;
            evaluation.found.clear();
        }
    }
}

impl Engine {
    /// Matches selectors with devices, in a share, and applies the results that are complete.
    pub(super) fn evaluate(&mut self, now: Duration) {
        for key in self.dirty.bindings() {
            self.begin_evaluation(&key);
        }
        self.note_changed_facts();
        self.share_evaluation();
        let evaluating: Vec<PolicyKey> = self.matching.evaluating().cloned().collect();
        for key in evaluating {
            self.take_evaluation(&key, now);
        }
    }

    /// When the next share is due, if any: at once.
    pub(super) fn evaluates_at(&self) -> Option<Duration> {
        (self.gate.may_decide(&self.observed) && self.matching.is_evaluating())
            .then_some(Duration::ZERO)
    }

    /// Whether a policy that targets a device may no longer match it: the evaluation has not finished.
    pub(super) fn is_undecided(&self, id: &NodeId) -> bool {
        let targets = |entry: &&PolicyEntry| entry.binding.as_ref().is_some_and(|it| it.holds(id));
        let of = self
            .matching
            .evaluating()
            .filter_map(|key| self.policies.get(key));
        let mut of = of
            .filter(targets)
            .filter_map(|entry| entry.evaluation.as_ref());
        of.any(|it| !it.is_first && (it.left.contains(id) || it.found.contains_key(id)))
    }

    /// The first list of a term has arrived: nothing that other processes did for the existing policies may
    /// be undone before their devices are known.
    pub(super) fn await_policies(&mut self) {
        for entry in self.policies.values_mut() {
            entry.awaited = entry.binding.is_none();
        }
    }

    /// Whether a policy may turn out to target a device and take precedence there.
    pub(super) fn awaits_policies(&self, id: &NodeId) -> bool {
        let awaited = self.matching.evaluating();
        let awaited = awaited.filter_map(|key| self.policies.get(key));
        let mut awaited = awaited.filter(|entry| entry.awaited);
        awaited.any(|entry| {
            let policy = entry.intended().as_ref();
            let device = self.observed.index().get(id);
            policy.is_ok_and(|policy| {
                policy.mode != Mode::Observe
                    && device.is_some_and(|it| policy.allowance.is_about(it))
            })
        })
    }

    /// Forgets a deleted policy.
    pub(super) fn end_evaluation(&mut self, key: &PolicyKey) {
        self.end_waiting_for(std::slice::from_ref(key));
        self.matching.end(key);
    }

    /// Continues with the devices that waited for these policies.
    pub(super) fn end_waiting_for(&mut self, keys: &[PolicyKey]) {
        let mut waited = false;
        for key in keys {
            let entry = self.policies.get_mut(key);
            waited |= entry.is_some_and(|entry| std::mem::take(&mut entry.awaited));
        }
        if waited {
            self.dirty.step_all(self.devices.ids().cloned());
        }
    }

    /// Begins to match all devices with a new selector.
    fn begin_evaluation(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let leaves = entry.deleting.is_some();
        let selects = |policy: &Policy| {
            let selector = policy.selector().cloned()?;
            Some((selector, policy.allowance.clone()))
        };
        let selector = entry.intended().as_ref().ok().and_then(selects);
        let Some((selector, allowance)) = selector.filter(|_| !leaves) else {
            // The policy targets a single device, or no device any longer.
            if let Some(Some(next)) = entry.evaluation.take().map(|it| it.next) {
                self.put_in_force(key, next);
            }
            self.matching.end(key);
            return;
        };
        let is_known = |it: &Evaluation| it.selector == selector && it.allowance == allowance;
        let is_bound = matches!(entry.binding, Some(Binding::Selector(_)));
        let evaluation = entry.evaluation.as_ref();
        if let Some(evaluation) = evaluation.filter(|it| is_known(it) && (it.is_first || is_bound))
        {
            if !evaluation.is_first {
                entry.before_edit = None;
            }
            return;
        }
        // Editing a selector again and again must not make others wait.
        let is_edited = entry.evaluation.is_some();
        entry.evaluation = Some(Evaluation::new(selector, allowance, self.observed.index()));
        self.matching.begin(key);
        if is_edited {
            self.end_waiting_for(std::slice::from_ref(key));
        }
    }

    /// Devices with a changed fact are matched again with each selector.
    fn note_changed_facts(&mut self) {
        let changed = self.dirty.take_matches();
        if changed.is_empty() {
            return;
        }
        self.dirty.step_all(changed.iter().cloned());
        for (key, entry) in self.policies.iter_mut() {
            if let Some(evaluation) = &mut entry.evaluation {
                evaluation.left.extend(changed.iter().cloned());
                self.matching.begin(key);
            }
        }
    }

    /// Gives each namespace its turns until the share is used up.
    fn share_evaluation(&mut self) {
        let mut share = self.matching.share();
        while share > 0
            && let Some(key) = self.next_to_evaluate()
        {
            let evaluation = self.policies.get_mut(&key);
            let Some(evaluation) = evaluation.and_then(|entry| entry.evaluation.as_mut()) else {
                self.matching.end(&key);
                continue;
            };
            let turn = TURN.min(share);
            let left = evaluation.advance(self.observed.index(), turn);
            // At least one step, so that the loop ends.
            share = share.saturating_sub((turn - left).max(1));
        }
    }

    /// A policy with devices to match, of the namespace after the one that had the last turn.
    fn next_to_evaluate(&mut self) -> Option<PolicyKey> {
        let policies = &self.policies;
        self.matching.next_turn(|key| {
            let entry = policies.get(key);
            let evaluation = entry.and_then(|entry| entry.evaluation.as_ref());
            evaluation.is_none_or(|it| !it.left.is_empty())
        })
    }

    /// Applies the results of a policy once no device is left.
    fn take_evaluation(&mut self, key: &PolicyKey, now: Duration) {
        let entry = self.policies.get_mut(key);
        let Some((before_edit, evaluation)) = entry.and_then(|entry| {
            let evaluation = entry.evaluation.as_mut()?;
            Some((&mut entry.before_edit, evaluation))
        }) else {
            self.matching.end(key);
            return;
        };
        if !evaluation.left.is_empty() {
            if evaluation.is_first {
                self.set_aside(key);
            }
            return;
        }
        self.matching.end(key);
        if evaluation.is_first {
            let next = evaluation.next.take();
            *before_edit = None;
            if let Some(next) = next {
                self.put_in_force(key, next);
            }
            self.dirty.rebind(key);
            return;
        }
        for (id, comparison) in std::mem::take(&mut evaluation.found) {
            let comparison = self.damp(&id, key, comparison, now);
            self.rematch(&id, key, comparison);
            self.dirty.step(&id);
        }
    }

    /// An edited policy keeps its precedence on its devices, and sends nothing, until the devices that it
    /// targets now are known.
    fn set_aside(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let Some(before) = entry.before_edit.take() else {
            return;
        };
        let before = before.while_invalid();
        let edited = std::mem::replace(&mut entry.policy, Ok(before.clone()));
        let declared = edited.as_ref().ok().cloned();
        if let Some(evaluation) = &mut entry.evaluation {
            evaluation.next = Some(edited);
        }
        self.redeclare(declared.as_ref(), Some(&before));
        self.concern_devices(key);
    }

    /// Puts an edited policy in force.
    fn put_in_force(&mut self, key: &PolicyKey, policy: Result<Policy, Refusal>) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let after = policy.as_ref().ok().cloned();
        let before = std::mem::replace(&mut entry.policy, policy);
        self.redeclare(before.as_ref().ok(), after.as_ref());
        self.concern_devices(key);
        self.dirty.report(key);
    }

    fn concern_devices(&mut self, key: &PolicyKey) {
        if let Some(entry) = self.policies.get(key) {
            self.dirty.plan_all(entry.managed().into_iter().cloned());
        }
    }
}
