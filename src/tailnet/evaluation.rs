//! Selectors are compared with devices in shares, so that no step takes long and no namespace waits for
//! another one's selectors.
//!
//! A step takes a share of the work and leaves the rest to the next ones, which come at once. Namespaces take
//! turns. While a policy has devices left to compare, nothing is decided from a part: a new policy targets no
//! device, an edited one keeps the devices and the precedence that it had and sends nothing, and a device
//! whose facts have changed waits, if such a policy targets it. A policy that was there before the process
//! started, or came to lead, is new to the process alone: what it takes precedence over stays as it is
//! meanwhile, so that the devices that it may be about wait. What was compared is kept: only a device of which
//! a fact has changed, and a selector that was edited, are compared again.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Engine, policy_entry::PolicyEntry};
use crate::{
    model::NodeId,
    plan::{AllowedRules, Binding, DeviceIndex, Mode, Policy, PolicyKey, Refusal, Selector},
};

/// The steps of evaluation in one step of the engine: a few milliseconds.
pub(super) const SHARE: usize = 400_000;
/// Those that a namespace has before it is the turn of the next one.
const TURN: usize = 40_000;
/// What a device costs besides the steps of its evaluation.
const DEVICE: usize = 20;

/// What a selector says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Matches,
    DoesNotMatch,
    /// The expression cannot tell.
    Unknown,
}

/// How far a policy is with comparing devices with its selector.
#[derive(Debug)]
pub(super) struct Evaluation {
    selector: Selector,
    /// Among which devices.
    allowance: AllowedRules,
    /// Nothing of it counts before all devices have been compared.
    is_first: bool,
    left: BTreeSet<NodeId>,
    /// What was found and does not count yet. In the first evaluation those that do not match are left out.
    found: BTreeMap<NodeId, Comparison>,
    /// What counts once the evaluation is complete; until then the policy sends nothing.
    next: Option<Result<Policy, Refusal>>,
}

impl Evaluation {
    /// Of all devices.
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

    /// Compares devices until these steps are used up; gives what is left of them.
    fn advance(&mut self, fleet: &DeviceIndex, mut steps: usize) -> usize {
        while steps > 0
            && let Some(id) = self.left.pop_first()
        {
            steps = steps.saturating_sub(DEVICE);
            let device = fleet.get(&id).filter(|it| self.allowance.is_about(it));
            let verdict = match device.map(|device| self.selector.evaluate(device)) {
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
            if self.is_first && verdict == Comparison::DoesNotMatch {
                self.found.remove(&id);
            } else {
                self.found.insert(id, verdict);
            }
        }
        steps
    }

    fn with(&self, wanted: Comparison) -> BTreeSet<NodeId> {
        let found = self.found.iter().filter(|(_, it)| **it == wanted);
        found.map(|(id, _)| id.clone()).collect()
    }
}

impl PolicyEntry {
    /// Whether nobody knows yet which devices it targets: its selector is new or edited.
    pub fn is_first_evaluated(&self) -> bool {
        let evaluation = self.evaluation.as_ref();
        evaluation.is_some_and(|it| it.is_first && !it.left.is_empty())
    }

    /// Whether an edit of it counts only once its devices are known.
    pub fn is_set_aside(&self) -> bool {
        let evaluation = self.evaluation.as_ref();
        evaluation.is_some_and(|it| it.next.is_some())
    }

    /// What counts of it, or will once its devices are known.
    pub fn intended(&self) -> &Result<Policy, Refusal> {
        let next = self.evaluation.as_ref().and_then(|it| it.next.as_ref());
        next.unwrap_or(&self.policy)
    }

    /// The devices that its selector matches, and those of which it cannot tell, where it is known anew.
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

    /// Its spec was edited, or what the tailnet permits: what counted before.
    pub fn note_edit(&mut self, before: Option<&Policy>) {
        if let Some(evaluation) = &mut self.evaluation {
            evaluation.next = None;
        }
        self.before_edit = before.filter(|_| self.binding.is_some()).cloned();
    }

    /// What was found counts from now on.
    pub fn take_evaluated(&mut self) {
        if let Some(evaluation) = &mut self.evaluation {
            evaluation.is_first = false;
            evaluation.found.clear();
        }
    }
}

impl Engine {
    /// Compares devices with selectors, in a share, and takes over what is complete by then.
    pub(super) fn evaluate(&mut self, now: Duration) {
        for key in self.dirty_targets.clone() {
            self.begin_evaluation(&key);
        }
        self.note_changed_facts();
        self.share_evaluation();
        for key in self.evaluating.clone() {
            self.take_evaluation(&key, now);
        }
    }

    /// Whether there is more to compare than one share allowed.
    pub(super) fn is_evaluating(&self) -> bool {
        !self.evaluating.is_empty()
    }

    /// When the next share is due, if there is one: at once.
    pub(super) fn evaluates_at(&self) -> Option<Duration> {
        (self.knows_all() && self.is_evaluating()).then_some(Duration::ZERO)
    }

    /// Whether there is a list of devices, and all policies have been handed over.
    pub(super) fn knows_all(&self) -> bool {
        self.polling.seen > 0 && self.policies_listed
    }

    /// Whether a policy that targets a device may not target it any longer: that is being found out.
    pub(super) fn is_undecided(&self, id: &NodeId) -> bool {
        let targets = |held: &&PolicyEntry| held.binding.as_ref().is_some_and(|it| it.holds(id));
        let of = self
            .evaluating
            .iter()
            .filter_map(|key| self.policies.get(key));
        let mut of = of
            .filter(targets)
            .filter_map(|held| held.evaluation.as_ref());
        of.any(|it| !it.is_first && (it.left.contains(id) || it.found.contains_key(id)))
    }

    /// The first list of a term has come: what other processes have done for the policies that are there
    /// now must not be undone before it is known which devices they target.
    pub(super) fn await_policies(&mut self) {
        for held in self.policies.values_mut() {
            held.awaited = held.binding.is_none();
        }
    }

    /// Whether a policy may target a device and take precedence there: that is being found out.
    pub(super) fn awaits_policies(&self, id: &NodeId) -> bool {
        let awaited = self.evaluating.iter();
        let awaited = awaited.filter_map(|key| self.policies.get(key));
        let mut awaited = awaited.filter(|held| held.awaited);
        awaited.any(|held| {
            let policy = held.intended().as_ref();
            let device = self.index.get(id);
            policy.is_ok_and(|policy| {
                policy.mode != Mode::Observe
                    && device.is_some_and(|it| policy.allowance.is_about(it))
            })
        })
    }

    /// A policy is gone.
    pub(super) fn end_evaluation(&mut self, key: &PolicyKey) {
        self.end_waiting_for(std::slice::from_ref(key));
        self.evaluating.remove(key);
    }

    /// The devices that waited for these policies go on.
    pub(super) fn end_waiting_for(&mut self, keys: &[PolicyKey]) {
        let mut waited = false;
        for key in keys {
            let held = self.policies.get_mut(key);
            waited |= held.is_some_and(|held| std::mem::take(&mut held.awaited));
        }
        if waited {
            self.dirty_steps.extend(self.devices.keys().cloned());
        }
    }

    /// Begins to compare all devices with a selector that was not compared yet.
    fn begin_evaluation(&mut self, key: &PolicyKey) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        let leaves = held.deleting.is_some();
        let selects = |policy: &Policy| {
            let selector = policy.selector().cloned()?;
            Some((selector, policy.allowance.clone()))
        };
        let selector = held.intended().as_ref().ok().and_then(selects);
        let Some((selector, allowance)) = selector.filter(|_| !leaves) else {
            // A single device, or none any longer.
            if let Some(Some(next)) = held.evaluation.take().map(|it| it.next) {
                self.put_in_force(key, next);
            }
            self.evaluating.remove(key);
            return;
        };
        let is_known = |it: &Evaluation| it.selector == selector && it.allowance == allowance;
        let is_bound = matches!(held.binding, Some(Binding::Selector(_)));
        let evaluation = held.evaluation.as_ref();
        if let Some(evaluation) = evaluation.filter(|it| is_known(it) && (it.is_first || is_bound))
        {
            if !evaluation.is_first {
                held.before_edit = None;
            }
            return;
        }
        // Whoever keeps editing a selector must not keep others waiting.
        let is_edited = held.evaluation.is_some();
        held.evaluation = Some(Evaluation::new(selector, allowance, &self.index));
        self.evaluating.insert(key.clone());
        if is_edited {
            self.end_waiting_for(std::slice::from_ref(key));
        }
    }

    /// Devices of which a fact has changed are compared anew with each selector.
    fn note_changed_facts(&mut self) {
        let moved = std::mem::take(&mut self.dirty_matches);
        if moved.is_empty() {
            return;
        }
        self.dirty_steps.extend(moved.iter().cloned());
        for (key, held) in &mut self.policies {
            if let Some(evaluation) = &mut held.evaluation {
                evaluation.left.extend(moved.iter().cloned());
                self.evaluating.insert(key.clone());
            }
        }
    }

    /// Gives each namespace its turns until the share is used up.
    fn share_evaluation(&mut self) {
        let mut share = self.evaluation_share;
        while share > 0
            && let Some(key) = self.next_to_evaluate()
        {
            self.evaluated_last.clone_from(&key.namespace);
            let evaluation = self.policies.get_mut(&key);
            let Some(evaluation) = evaluation.and_then(|held| held.evaluation.as_mut()) else {
                self.evaluating.remove(&key);
                continue;
            };
            let turn = TURN.min(share);
            let left = evaluation.advance(&self.index, turn);
            // At least something, so that this ends.
            share = share.saturating_sub((turn - left).max(1));
        }
    }

    /// A policy with devices to compare, of the namespace after the one whose turn it was last.
    fn next_to_evaluate(&self) -> Option<PolicyKey> {
        let waits = |key: &&PolicyKey| {
            let evaluation = self
                .policies
                .get(*key)
                .and_then(|it| it.evaluation.as_ref());
            evaluation.is_none_or(|it| !it.left.is_empty())
        };
        let later = |key: &&PolicyKey| key.namespace > self.evaluated_last;
        let mut after = self.evaluating.iter().filter(later).filter(waits);
        let first = || self.evaluating.iter().find(waits);
        after.next().or_else(first).cloned()
    }

    /// Takes over what a policy has compared, once nothing is left.
    fn take_evaluation(&mut self, key: &PolicyKey, now: Duration) {
        let held = self.policies.get_mut(key);
        let Some((before_edit, evaluation)) = held.and_then(|held| {
            let evaluation = held.evaluation.as_mut()?;
            Some((&mut held.before_edit, evaluation))
        }) else {
            self.evaluating.remove(key);
            return;
        };
        if !evaluation.left.is_empty() {
            if evaluation.is_first {
                self.set_aside(key);
            }
            return;
        }
        self.evaluating.remove(key);
        if evaluation.is_first {
            let next = evaluation.next.take();
            *before_edit = None;
            if let Some(next) = next {
                self.put_in_force(key, next);
            }
            self.dirty_targets.insert(key.clone());
            return;
        }
        for (id, verdict) in std::mem::take(&mut evaluation.found) {
            let verdict = self.damp(&id, key, verdict, now);
            self.rematch(&id, key, verdict);
            self.dirty_steps.insert(id);
        }
    }

    /// An edited policy keeps the precedence that it had on its devices, and sends nothing, until those are
    /// known that it targets now.
    fn set_aside(&mut self, key: &PolicyKey) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        let Some(before) = held.before_edit.take() else {
            return;
        };
        let before = before.while_invalid();
        let edited = std::mem::replace(&mut held.policy, Ok(before.clone()));
        let declared = edited.as_ref().ok().cloned();
        if let Some(evaluation) = &mut held.evaluation {
            evaluation.next = Some(edited);
        }
        self.redeclare(declared.as_ref(), Some(&before));
        self.concern_devices(key);
    }

    /// What a policy was edited to counts from now on.
    fn put_in_force(&mut self, key: &PolicyKey, policy: Result<Policy, Refusal>) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        let after = policy.as_ref().ok().cloned();
        let before = std::mem::replace(&mut held.policy, policy);
        self.redeclare(before.as_ref().ok(), after.as_ref());
        self.concern_devices(key);
        self.dirty_statuses.insert(key.clone());
    }

    fn concern_devices(&mut self, key: &PolicyKey) {
        if let Some(held) = self.policies.get(key) {
            self.dirty_plans.extend(held.managed().into_iter().cloned());
        }
    }
}
