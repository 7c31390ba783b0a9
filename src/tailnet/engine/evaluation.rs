//! Matches selectors with devices in shares: see [`crate::tailnet::evaluation`].

use std::{sync::Arc, time::Duration};

use super::{
    claims::redeclare,
    targeting::{Targeting, end_waiting_for},
};
use crate::{
    model::NodeId,
    plan::{Binding, Mode, Policy, PolicyKey, Refusal},
    tailnet::{
        device_state::DeviceState, devices::Devices, dirty::Dirty, evaluation::Evaluation,
        matching::Matching, observed::Observed, policy_entry::PolicyEntry, policy_set::PolicySet,
    },
};

/// The evaluation steps that a namespace has before the next one gets its turn.
const TURN: usize = 20_000;

impl Targeting<'_> {
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

    /// Notes whether a policy, which claims settings that count in the whole tailnet, may have a device that
    /// the last list lacks: it is undecided whether its bound device is gone, or the first list of a term has
    /// none for it.
    pub(super) fn note_undecided(&mut self, key: &PolicyKey) {
        let is_first = !self.gate.can_compare_lists(self.observed);
        let undecided = self.policies.get(key).filter(|entry| {
            let policy = entry.policy().as_deref().ok();
            let policy = policy.filter(|policy| policy.mode != Mode::Observe);
            let claims = policy.is_some_and(|policy| policy.desired.has_tailnet_wide());
            let has_device = entry.nodes().next().is_some();
            let binding = entry.targets().binding();
            // The device that has replaced a missing one is bound only once that is proven to be gone.
            let is_open = is_first || matches!(binding, None | Some(Binding::Missing(_)));
            claims && !entry.is_deleting() && !has_device && is_open
        });
        let is_undecided = undecided.is_some();
        let waits_for_list = undecided.is_some_and(|entry| entry.targets().binding().is_none());
        if waits_for_list || is_undecided && is_first {
            self.observed.compare_soon();
        }
        if self.matching.note_undecided(key, is_undecided) {
            step_all(self.devices, self.dirty);
        }
    }

    /// Begins to match all devices with a new selector.
    fn begin_evaluation(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        // A policy that is being deleted must adopt no further device.
        let leaves = entry.is_deleting();
        let selector = entry.intended().as_deref().ok().and_then(|policy| {
            let selector = policy.selector().cloned()?;
            Some((selector, policy.allowance.clone()))
        });
        let Some((selector, allowance)) = selector.filter(|_| !leaves) else {
            // The policy targets a single device, or no device any longer.
            if let Some(next) = entry.targets_mut().end_evaluation() {
                self.put_in_force(key, next);
            }
            self.matching.end(key);
            return;
        };
        let Some(is_edited) =
            entry
                .targets_mut()
                .begin_evaluation(selector, allowance, self.observed.index())
        else {
            return;
        };
        self.matching.begin(key);
        // Editing a selector again and again must not make others wait.
        if is_edited {
            end_waiting_for(
                self.policies,
                self.devices,
                self.dirty,
                std::slice::from_ref(key),
            );
        }
    }

    /// Devices with a changed fact are matched again with each selector.
    fn note_changed_facts(&mut self) {
        let changed = self.dirty.take_matches();
        if changed.is_empty() {
            return;
        }
        // Until they are matched, it is undecided which policies target them, so they send nothing.
        self.dirty.step_all(changed.iter().cloned());
        for (key, entry) in self.policies.iter_mut() {
            if let Some(evaluation) = entry.targets_mut().evaluation_mut() {
                evaluation.rematch(&changed);
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
            let Some(evaluation) =
                evaluation.and_then(|entry| entry.targets_mut().evaluation_mut())
            else {
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
        let policies = &*self.policies;
        self.matching.next_turn(|key| {
            let entry = policies.get(key);
            let evaluation = entry.and_then(|entry| entry.targets().evaluation());
            evaluation.is_none_or(Evaluation::has_devices_left)
        })
    }

    /// Applies the results of a policy once no device is left.
    fn take_evaluation(&mut self, key: &PolicyKey, now: Duration) {
        let Some(entry) = self.policies.get_mut(key) else {
            self.matching.end(key);
            return;
        };
        let Some(evaluation) = entry.targets_mut().evaluation_mut() else {
            self.matching.end(key);
            return;
        };
        if evaluation.has_devices_left() {
            if evaluation.is_first() {
                self.set_aside(key);
            }
            return;
        }
        self.matching.end(key);
        if evaluation.is_first() {
            if let Some(next) = entry.targets_mut().finish_evaluation() {
                self.put_in_force(key, next);
            }
            self.dirty.rebind(key);
            return;
        }
        for (id, comparison) in evaluation.take_found() {
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
        let Some((edited, before)) = entry.set_aside() else {
            return;
        };
        let declared = edited.ok();
        redeclare(
            self.tailnet_wide,
            self.policies,
            self.dirty,
            declared.as_deref(),
            Some(&before),
        );
        concern_devices(self.policies, self.dirty, key);
    }

    /// Puts an edited policy in force.
    fn put_in_force(&mut self, key: &PolicyKey, policy: Result<Arc<Policy>, Refusal>) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let after = policy.as_ref().ok().cloned();
        let before = entry.put_in_force(policy);
        redeclare(
            self.tailnet_wide,
            self.policies,
            self.dirty,
            before.as_deref().ok(),
            after.as_deref(),
        );
        concern_devices(self.policies, self.dirty, key);
        self.dirty.report(key);
    }
}

/// Whether a policy that targets a device may no longer match it: the evaluation has not finished.
pub(super) fn is_undecided(matching: &Matching, policies: &PolicySet, id: &NodeId) -> bool {
    let targets = |entry: &&PolicyEntry| entry.targets().contains(id);
    let of = matching.evaluating().filter_map(|key| policies.get(key));
    let mut of = of
        .filter(targets)
        .filter_map(|entry| entry.targets().evaluation());
    of.any(|it| it.is_pending(id))
}

/// Whether a policy may turn out to target a device and take precedence there.
pub(super) fn awaits_policies(
    matching: &Matching,
    policies: &PolicySet,
    observed: &Observed,
    id: &NodeId,
) -> bool {
    let awaited = matching.evaluating();
    let mut awaited = awaited
        .filter_map(|key| policies.get(key))
        .filter(|entry| entry.targets().is_awaited());
    awaited.any(|entry| {
        let policy = entry.intended().as_deref();
        let device = observed.index().get(id);
        policy.is_ok_and(|policy| {
            policy.mode != Mode::Observe && device.is_some_and(|it| policy.allowance.is_about(it))
        })
    })
}

/// Whether a setting of a device may belong to a policy whose device the last list lacks: a type of
/// attributes, an address or a name counts in the whole tailnet.
pub(super) fn awaits_next_list(matching: &Matching, node: &DeviceState) -> bool {
    let mut differences = node.plan().differences.iter();
    matching.has_undecided()
        && differences.any(|difference| difference.change.field().is_tailnet_wide())
}

/// Another list decides what the last one left undecided. What remains is noted again.
pub(super) fn end_undecided(matching: &mut Matching, devices: &Devices, dirty: &mut Dirty) {
    if matching.end_undecided() {
        step_all(devices, dirty);
    }
}

/// The devices that waited for the policies without a decision go on.
fn step_all(devices: &Devices, dirty: &mut Dirty) {
    dirty.step_all(devices.ids().cloned());
}

/// Forgets a deleted policy.
pub(super) fn end_evaluation(
    matching: &mut Matching,
    policies: &mut PolicySet,
    devices: &Devices,
    dirty: &mut Dirty,
    key: &PolicyKey,
) {
    end_waiting_for(policies, devices, dirty, std::slice::from_ref(key));
    matching.end(key);
    if matching.note_undecided(key, false) {
        step_all(devices, dirty);
    }
    matching.note_successor(key, None);
}

fn concern_devices(policies: &PolicySet, dirty: &mut Dirty, key: &PolicyKey) {
    if let Some(entry) = policies.get(key) {
        dirty.plan_all(entry.managed().into_iter().cloned());
    }
}
