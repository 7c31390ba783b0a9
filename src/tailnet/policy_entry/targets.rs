//! The devices that a policy targets: the last result, and the one that is being worked out.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    model::NodeId,
    plan::{AllowedRules, Binding, DeviceIndex, Policy, Refusal, Selector},
    tailnet::evaluation::{Comparison, Evaluation},
};

/// The devices of a policy.
#[derive(Debug, Default)]
pub(in crate::tailnet) struct Targets {
    /// As of the last reconcile. Each of them lists the policy.
    binding: Option<Binding>,
    /// Devices on which the expression of its selector fails; it does not target them.
    selector_errors: BTreeSet<NodeId>,
    /// The progress of its selector, if it has one.
    evaluation: Option<Box<Evaluation>>,
    /// The policy before the last edit, until the devices that it targets now are known.
    before_edit: Option<Arc<Policy>>,
    /// Another process may have acted for it already, and this one does not know yet which devices it
    /// targets.
    awaited: bool,
    /// Under `Clear`, they are more than its status can record: nothing is sent for it.
    too_many: bool,
}

/// How the devices of a selector change when one of them is matched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tailnet) struct Rematch {
    /// It has joined or left.
    pub has_moved: bool,
    /// Whether the expression fails on it has changed.
    pub has_other_error: bool,
}

impl Targets {
    /// Whether the expression of the selector fails on a device.
    pub fn has_error(&self, id: &NodeId) -> bool {
        self.selector_errors.contains(id)
    }

    /// The devices that it targets, and why it targets no other, as of the last reconcile.
    pub const fn binding(&self) -> Option<&Binding> {
        self.binding.as_ref()
    }

    /// Replaces the devices that it targets. Returns the ones before.
    pub fn bind(&mut self, binding: Option<Binding>) -> Option<Binding> {
        std::mem::replace(&mut self.binding, binding)
    }

    /// The devices that it targets, as of the last reconcile.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.binding().into_iter().flat_map(Binding::nodes)
    }

    /// Whether it targets a device, as of the last reconcile.
    pub fn contains(&self, id: &NodeId) -> bool {
        self.binding().is_some_and(|binding| binding.holds(id))
    }

    /// The devices that its selector matches; `None` if it has no selector, or these are unknown.
    pub fn selected(&self) -> Option<&BTreeSet<NodeId>> {
        match self.binding() {
            Some(Binding::Selector(nodes)) => Some(nodes),
            _ => None,
        }
    }

    /// Devices on which the expression of its selector fails.
    pub const fn selector_errors(&self) -> &BTreeSet<NodeId> {
        &self.selector_errors
    }

    /// Takes the devices on which the expression fails. Returns whether they differ.
    pub fn set_selector_errors(&mut self, devices: BTreeSet<NodeId>) -> bool {
        let differ = self.selector_errors != devices;
        self.selector_errors = devices;
        differ
    }

    /// Adds a device to those that its selector matches, or removes it; `None` if these are unknown.
    pub fn rematch(&mut self, id: &NodeId, comparison: Comparison) -> Option<Rematch> {
        let Some(Binding::Selector(nodes)) = &mut self.binding else {
            return None;
        };
        let has_moved = match comparison {
            Comparison::Matches => nodes.insert(id.clone()),
            Comparison::DoesNotMatch | Comparison::Unknown => nodes.remove(id),
        };
        let errors = &mut self.selector_errors;
        let has_other_error = match comparison {
            Comparison::Unknown => errors.insert(id.clone()),
            Comparison::Matches | Comparison::DoesNotMatch => errors.remove(id),
        };
        Some(Rematch {
            has_moved,
            has_other_error,
        })
    }

    /// Whether it targets more devices than its status can record.
    pub const fn has_too_many(&self) -> bool {
        self.too_many
    }

    /// Notes whether it targets too many devices. Returns whether that is new.
    pub fn set_too_many(&mut self, too_many: bool) -> bool {
        let is_new = self.too_many != too_many;
        self.too_many = too_many;
        is_new
    }

    /// Whether devices wait until it is known if this policy takes precedence there.
    pub const fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// In a new term, devices wait for a policy whose devices are unknown.
    pub fn await_devices(&mut self) {
        self.awaited = self.binding.is_none();
    }

    /// No device waits for it any longer. Returns whether any did.
    pub fn end_waiting(&mut self) -> bool {
        std::mem::take(&mut self.awaited)
    }

    /// The progress of its selector.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_deref()
    }

    /// The progress of its selector, to go on with it.
    pub fn evaluation_mut(&mut self) -> Option<&mut Evaluation> {
        self.evaluation.as_deref_mut()
    }

    /// Begins to match all devices, unless this selector is being matched, or was, and its devices are known.
    /// Returns `None` then, otherwise whether another selector was being matched.
    pub fn begin_evaluation(
        &mut self,
        selector: Selector,
        allowance: AllowedRules,
        index: &DeviceIndex,
    ) -> Option<bool> {
        let is_bound = self.selected().is_some();
        let Targets {
            evaluation,
            before_edit,
            ..
        } = self;
        let known = evaluation
            .as_ref()
            // Later results are only in the binding: without one, they must be found again.
            .filter(|it| it.is_of(&selector, &allowance) && (it.is_first() || is_bound));
        if let Some(known) = known {
            // The edit has left the selector as it was, so its devices are known already.
            if !known.is_first() {
                *before_edit = None;
            }
            return None;
        }
        let replaced = evaluation.replace(Box::new(Evaluation::new(selector, allowance, index)));
        Some(replaced.is_some())
    }

    /// Its selector is no longer matched: it has none. Returns the edit that was set aside.
    pub fn end_evaluation(&mut self) -> Option<Result<Arc<Policy>, Refusal>> {
        self.evaluation.take()?.take_next()
    }

    /// All devices have been matched for the first time. Returns the edit that was set aside.
    pub fn finish_evaluation(&mut self) -> Option<Result<Arc<Policy>, Refusal>> {
        self.before_edit = None;
        self.evaluation.as_mut()?.take_next()
    }

    /// Whether its devices are unknown yet: its selector is new or edited.
    pub fn is_first_evaluated(&self) -> bool {
        self.evaluation()
            .is_some_and(|it| it.is_first() && it.has_devices_left())
    }

    /// The devices that its selector matches, and those on which its expression fails, if these are known.
    pub fn evaluated(&self) -> Option<(BTreeSet<NodeId>, BTreeSet<NodeId>)> {
        let evaluation = self.evaluation()?;
        if evaluation.is_first() {
            let matching = evaluation.with(Comparison::Matches);
            return Some((matching, evaluation.with(Comparison::Unknown)));
        }
        // Later results have taken effect one by one, so the binding has them all.
        let matching = self.selected()?.clone();
        Some((matching, self.selector_errors.clone()))
    }

    /// The results take effect.
    pub fn take_evaluated(&mut self) {
        if let Some(evaluation) = &mut self.evaluation {
            evaluation.take_effect();
        }
    }

    /// Whether an edit waits until its devices are known.
    pub fn is_set_aside(&self) -> bool {
        self.evaluation().is_some_and(|it| it.next().is_some())
    }

    /// The policy is edited. `before`: the one that was in force.
    pub fn note_edit(&mut self, before: Option<&Arc<Policy>>) {
        if let Some(evaluation) = &mut self.evaluation {
            // This edit overtakes one that waits for its devices.
            evaluation.take_next();
        }
        // A policy without devices has no precedence to keep.
        self.before_edit = before.filter(|_| self.binding.is_some()).cloned();
    }

    /// The policy before the last edit, which stays in force until the devices of the edited one are known.
    pub fn take_before_edit(&mut self) -> Option<Arc<Policy>> {
        self.before_edit.take()
    }
}
