//! Second phase: from policies to the devices that they target.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::Engine;
use crate::{
    model::NodeId,
    plan::{Binding, PolicyKey, Target, bind_policy, may_change, successor},
    tailnet::{
        Notification, Now, device_lookup::is_lacking, evaluation::Comparison, flapping::Membership,
        policy_entry::PolicyEntry,
    },
};

impl Engine {
    /// Finds the devices that policies target now.
    pub(super) fn find_targets(&mut self, now: Now) {
        self.release_absent();
        self.end_flapping(now.monotonic);
        self.evaluate(now.monotonic);
        self.rebind_known(now);
        // After the bindings, as a successor takes the place of a bound device.
        if self.matching.take_list(self.observed.lists()) {
            self.find_successors();
        }
    }

    /// Finds the devices that have probably replaced bound ones, after each list.
    fn find_successors(&mut self) {
        let index = self.observed.index();
        let found = self.policies.iter().filter_map(|(key, entry)| {
            let policy = entry.policy().as_ref().ok()?;
            let Target::Device(target) = &policy.target else {
                return None;
            };
            let bound = entry.nodes().next().and_then(|id| index.get(id));
            let next = bound.and_then(|bound| successor(target, bound, &policy.allowance, index));
            let next = next.map(|device| device.node_id.clone());
            (next.as_ref() != self.matching.successor(key)).then(|| (key.clone(), next))
        });
        let found: Vec<_> = found.collect();
        for (key, next) in found {
            self.matching.note_successor(&key, next);
            self.dirty.report(&key);
            // It may be approved already.
            self.dirty.rebind(&key);
        }
    }

    /// Finds the devices of a policy again.
    pub(super) fn rebind(&mut self, key: &PolicyKey, now: Timestamp) {
        self.retain(key);
        if let Some(entry) = self.policies.get_mut(key) {
            entry.meet_devices(self.observed.index(), self.observed.lists());
            entry.disown_expired(now);
            if entry.record_expiries() {
                self.dirty.report(key);
            }
        }
        let Some(entry) = self.policies.get(key) else {
            return;
        };
        let evaluated = entry.targets().evaluated();
        let binding = self.find_devices(entry, evaluated.as_ref().map(|(matching, _)| matching));
        if binding.is_none() && entry.policy().is_ok() && !entry.is_deleting() {
            self.observed.compare_soon();
        }
        let selector_errors = evaluated.map(|(_, unknown)| unknown).unwrap_or_default();
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        entry.targets_mut().take_evaluated();
        if entry.targets_mut().set_selector_errors(selector_errors) {
            self.dirty.report(key);
        }
        self.record_binding(key, binding.as_ref());
        self.replace_binding(key, binding.as_ref());
    }

    /// Records which devices a policy targets now, and which it releases, before the engine forgets anything
    /// about the released ones.
    fn record_binding(&mut self, key: &PolicyKey, binding: Option<&Binding>) {
        self.suspect_sign_ins(key, binding);
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let (index, absence) = (self.observed.index(), self.observed.absence());
        let lacking = |id: &NodeId| index.get(id).is_none_or(|device| device.external);
        let waits = |id: &NodeId| self.observed.sign_ins().is_unconfirmed(id);
        entry.release_unmatched_devices(binding, |id| {
            waits(id) || lacking(id) && !absence.is_gone(id)
        });
        entry.release_unmatched(binding, index, waits, self.observed.lists());
        let bound = entry.record_of(binding, index);
        let rivals = entry.rivals_of(binding);
        if entry.record_binding(bound, rivals) {
            // The plan depends on the recorded owner of the device.
            self.dirty.plan_all(entry.nodes().cloned());
            self.dirty.report(key);
        }
        if entry.release_fields(binding) {
            self.dirty.report(key);
        }
        let too_many = entry.hold(binding, index);
        let selects = !entry.is_deleting() && entry.selector().is_some();
        self.policies.note_selector(key, selects);
        self.refuse_many(key, too_many);
        self.track_released(key);
    }

    /// Adopts the devices that a policy targets from now on, and releases those that it no longer does.
    fn replace_binding(&mut self, key: &PolicyKey, binding: Option<&Binding>) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        if entry.targets().binding() == binding {
            return;
        }
        let before = entry.targets_mut().bind(binding.cloned());
        self.dirty.report(key);
        for id in before.iter().flat_map(Binding::nodes) {
            if !binding.is_some_and(|it| it.holds(id)) {
                self.release_binding(id, key);
            }
        }
        for id in binding.into_iter().flat_map(Binding::nodes) {
            if before.as_ref().is_some_and(|it| it.holds(id)) {
                self.dirty.plan(id);
            } else {
                self.adopt_device(id, key);
            }
        }
    }

    /// The devices that a policy targets now; `None` while that cannot be decided.
    fn find_devices(
        &self,
        entry: &PolicyEntry,
        matching: Option<&BTreeSet<NodeId>>,
    ) -> Option<Binding> {
        let policy = entry.policy().as_ref().ok()?;
        if entry.is_deleting() {
            return None;
        }
        if policy.selector().is_some() {
            return matching.cloned().map(Binding::Selector);
        }
        // No other device takes the place of the bound one before that is proven gone.
        let bound = entry.bound_node();
        let lost = bound
            .filter(|id| is_lacking(self.observed.index(), id))
            .filter(|id| !self.observed.absence().is_gone(id));
        if let Some(id) = lost {
            let is_reported = self
                .observed
                .absence()
                .is_reported(id, self.observed.lists());
            return is_reported.then(|| Binding::Missing(id.clone()));
        }
        let binding = bind_policy(
            policy,
            entry.needed_record(),
            entry.approval().given(),
            self.observed.index(),
        );
        let claimed = matches!(
            &policy.target,
            Target::Device(target) if may_change(&target.identity)
        );
        // Another device may have the name too, and be missing from the first list.
        let found = match &binding {
            Binding::Device(id) | Binding::Unmet { node: id, .. } => Some(id),
            _ => None,
        };
        let new =
            found.filter(|id| bound != Some(*id) && !entry.approval().given().nodes.contains(*id));
        let rivals = self.lacking_rivals(entry);
        let is_doubtful = match &binding {
            // A list can lack all devices of the name.
            Binding::NotFound => !rivals.is_empty(),
            _ => claimed && new.is_some(),
        };
        if is_doubtful && !self.can_compare_lists() {
            return None;
        }
        let listed = match &binding {
            Binding::Ambiguous(nodes) => nodes.as_slice(),
            _ => new.map(std::slice::from_ref).unwrap_or_default(),
        };
        let is_one_of_several = listed.len() > 1 || new.is_some() || is_doubtful;
        if rivals.is_empty() || !is_one_of_several {
            return Some(binding);
        }
        let all: BTreeSet<&NodeId> = rivals.into_iter().chain(listed).collect();
        let all: Vec<NodeId> = all.into_iter().cloned().collect();
        Some(match <[NodeId; 1]>::try_from(all) {
            Ok([one]) => Binding::Missing(one),
            Err(several) => Binding::Ambiguous(several),
        })
    }

    /// The devices that had the name of a policy when another process, or this one, saw several. No number of
    /// lists proves anything about those that they lack: until these are proven to be gone, the one that is
    /// listed is one of several.
    fn lacking_rivals<'e>(&self, entry: &'e PolicyEntry) -> Vec<&'e NodeId> {
        let lacking = entry.rivals().filter(|id| {
            is_lacking(self.observed.index(), id) && !self.observed.absence().is_gone(id)
        });
        lacking.collect()
    }

    /// Adopts a device that a policy targets now.
    fn adopt_device(&mut self, id: &NodeId, key: &PolicyKey) {
        let node = self.devices.get_or_add(id);
        node.adopt(key);
        if let Some(entry) = self.policies.get_mut(key) {
            entry.reclaim(id);
        }
        self.dirty.plan(id);
    }

    /// Releases a device that a policy no longer targets.
    pub(super) fn release_binding(&mut self, id: &NodeId, key: &PolicyKey) {
        if let Some(entry) = self.policies.get_mut(key) {
            entry.approval_mut().drop_device(id);
            let next = entry.end_turn(id);
            self.dirty.plan_all(next);
        }
        if let Some(node) = self.devices.get_mut(id) {
            node.release(key);
            self.dirty.plan(id);
        }
    }

    /// Finds the devices of the dirty policies whose selector has been evaluated.
    fn rebind_known(&mut self, now: Now) {
        let mut known = Vec::new();
        for key in self.dirty.take_bindings() {
            if self
                .policies
                .get(&key)
                .is_some_and(|entry| entry.targets().is_first_evaluated())
            {
                // Nothing is decided from a part of the devices (docs/decisions/0012).
                self.dirty.rebind_later(&key);
            } else {
                self.rebind(&key, now.wall);
                self.note_undecided(&key);
                known.push(key);
            }
        }
        self.end_waiting_for(&known);
    }

    /// Adds a device to the devices of a selector that it matches, or removes it.
    pub(super) fn rematch(&mut self, id: &NodeId, key: &PolicyKey, comparison: Comparison) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        // In a new term, a device may leave with the first list: its record must be restored before.
        entry.meet_devices(self.observed.index(), self.observed.lists());
        let Some(moved) = entry.targets_mut().rematch(id, comparison) else {
            return;
        };
        let (matches, is_unknown) = (
            comparison == Comparison::Matches,
            comparison == Comparison::Unknown,
        );
        let has_changed = moved.has_moved;
        let left = !matches && !is_unknown && entry.needed_record().managed.nodes.contains(id);
        if has_changed || moved.has_other_error {
            self.dirty.report(key);
        }
        let is_lost = !matches && !is_unknown && (has_changed || left);
        let waits = is_lost && self.awaits_confirmation(id, key, has_changed);
        if has_changed && matches {
            self.adopt_device(id, key);
        }
        if matches {
            // Also if only now it can be read that the device matches.
            self.hold_one(id, key);
        } else if has_changed {
            self.release_binding(id, key);
            self.recount(key);
        }
        if left && !waits {
            self.release_device(id, key);
        }
        if let Some(entry) = self.policies.get_mut(key) {
            let is_kept = matches || is_unknown || waits;
            entry.see_device(
                id,
                self.observed.index().get(id),
                is_kept,
                self.observed.lists(),
            );
        }
    }

    /// Devices with the same result for a while are matched again.
    fn end_flapping(&mut self, now: Duration) {
        let due = self.matching.flapping_mut().due(now);
        self.dirty.rematch_all(due);
    }

    /// The result of a selector that takes effect: the previous one while the device keeps moving.
    pub(super) fn damp(
        &mut self,
        id: &NodeId,
        key: &PolicyKey,
        comparison: Comparison,
        now: Duration,
    ) -> Comparison {
        let entry = self.policies.get(key);
        let Some(members) = entry.and_then(|entry| entry.targets().selected()) else {
            return comparison;
        };
        let is_member = members.contains(id);
        let Some(device) = self.observed.index().get(id) else {
            if self.matching.flapping_mut().forget_device(key, id) {
                self.dirty.report(key);
            }
            return comparison;
        };
        let label = device.label().to_string();
        let membership = self
            .matching
            .flapping_mut()
            .observe(key, device, comparison, is_member, now);
        if matches!(membership, Membership::Freed | Membership::Frozen) {
            self.dirty.report(key);
        }
        if membership == Membership::Frozen {
            let node = id.clone();
            self.notify(key, Notification::Flapping { node, label });
        }
        match membership {
            Membership::Free | Membership::Freed => comparison,
            _ if is_member => Comparison::Matches,
            _ => Comparison::DoesNotMatch,
        }
    }

    /// Continues with the devices that waited for these policies.
    pub(super) fn end_waiting_for(&mut self, keys: &[PolicyKey]) {
        let mut waited = false;
        for key in keys {
            let entry = self.policies.get_mut(key);
            waited |= entry.is_some_and(|entry| entry.targets_mut().end_waiting());
        }
        if waited {
            self.dirty.step_all(self.devices.ids().cloned());
        }
    }
}
