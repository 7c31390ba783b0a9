//! Second phase: from policies to the devices that they target.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{
    notify::notify,
    ownership::release_absent,
    release::{hold_one, recount, refuse_many, release_device, retain, track_released},
    sign_ins::{awaits_confirmation, suspect_sign_ins},
};
use crate::{
    model::NodeId,
    plan::{Binding, PolicyKey, TailnetWide, Target, bind_policy, may_change, successor},
    tailnet::{
        Notification, Now, devices::Devices, dirty::Dirty, evaluation::Comparison,
        flapping::Membership, gate::Gate, matching::Matching, observed::Observed, outbox::Outbox,
        policy_entry::PolicyEntry, policy_set::PolicySet, records::Records,
    },
};

/// What this phase reads and changes.
pub(super) struct Targeting<'e> {
    pub gate: &'e Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e mut PolicySet,
    pub matching: &'e mut Matching,
    pub tailnet_wide: &'e mut TailnetWide,
    pub devices: &'e mut Devices,
    pub records: &'e mut Records,
    pub dirty: &'e mut Dirty,
    pub outbox: &'e mut Outbox,
}

impl Targeting<'_> {
    /// Finds the devices that policies target now.
    pub(super) fn find_targets(&mut self, now: Now) {
        // First, as a device that is gone keeps no place in a record.
        release_absent(self.policies, self.observed, self.records, self.dirty);
        // Before the evaluation, which matches these devices again.
        end_flapping(self.matching, self.dirty, now.monotonic);
        self.evaluate(now.monotonic);
        // The devices of a selector are the results of its evaluation.
        self.rebind_known(now);
        // After the bindings, as a successor takes the place of a bound device.
        if self.matching.take_list(self.observed.lists()) {
            self.find_successors();
        }
    }

    /// Finds the devices that have probably replaced bound ones, after each list.
    fn find_successors(&mut self) {
        let index = self.observed.index();
        let found: Vec<_> = self
            .policies
            .iter()
            .filter_map(|(key, entry)| {
                let policy = entry.policy().as_deref().ok()?;
                let Target::Device(target) = &policy.target else {
                    return None;
                };
                let bound = entry.nodes().next().and_then(|id| index.get(id));
                let next = bound
                    .and_then(|bound| successor(target, bound, &policy.allowance, index))
                    .map(|device| device.node_id.clone());
                (next.as_ref() != self.matching.successor(key)).then(|| (key.clone(), next))
            })
            .collect();
        for (key, next) in found {
            self.matching.note_successor(&key, next);
            self.dirty.report(&key);
            // It may be approved already.
            self.dirty.rebind(&key);
        }
    }

    /// Finds the devices of a policy again.
    pub(super) fn rebind(&mut self, key: &PolicyKey, now: Timestamp) {
        retain(self.policies, self.devices, self.dirty, key);
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
        let binding = find_devices(
            self.gate,
            self.observed,
            entry,
            evaluated.as_ref().map(|(matching, _)| matching),
        );
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
        suspect_sign_ins(
            self.observed,
            self.policies,
            self.gate,
            self.outbox,
            key,
            binding,
        );
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        let (index, absence) = (self.observed.index(), self.observed.absence());
        let waits = |id: &NodeId| self.observed.sign_ins().is_unconfirmed(id);
        entry.release_unmatched_devices(binding, |id| {
            // A device that only the last list lacks has not left: see `absence`.
            let is_lacking = index.get(id).is_none_or(|device| device.external);
            waits(id) || is_lacking && !absence.is_gone(id)
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
        refuse_many(self.policies, self.dirty, key, too_many);
        track_released(self.policies, self.devices, self.dirty, key);
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
        let has_device = entry.nodes().next().is_some();
        let waits = binding.is_some_and(|it| !matches!(it, Binding::Selector(_))) && !has_device;
        self.policies.note_waiting(key, waits);
        self.dirty.report(key);
        for id in before.iter().flat_map(Binding::nodes) {
            if !binding.is_some_and(|it| it.holds(id)) {
                release_binding(self.policies, self.devices, self.dirty, id, key);
            }
        }
        for id in binding.into_iter().flat_map(Binding::nodes) {
            // It was bound before, but the reason may be another one: the plan depends on that.
            if before.as_ref().is_some_and(|it| it.holds(id)) {
                self.dirty.plan(id);
            } else {
                adopt_device(self.policies, self.devices, self.dirty, id, key);
            }
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
        end_waiting_for(self.policies, self.devices, self.dirty, &known);
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
        let waits = is_lost
            && awaits_confirmation(
                self.observed,
                self.policies,
                self.gate,
                self.outbox,
                id,
                key,
                has_changed,
            );
        if has_changed && matches {
            adopt_device(self.policies, self.devices, self.dirty, id, key);
        }
        if matches {
            // Also if only now it can be read that the device matches.
            hold_one(self.policies, self.observed, self.dirty, id, key);
        } else if has_changed {
            release_binding(self.policies, self.devices, self.dirty, id, key);
            recount(self.policies, self.dirty, key);
        }
        if left && !waits {
            release_device(self.policies, self.devices, self.dirty, id, key);
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
        let policy = entry.and_then(|entry| entry.policy().as_deref().ok());
        let is_undecided = policy.is_some_and(|it| !it.undecided_by(device).is_empty());
        let membership = self.matching.flapping_mut().observe(
            (key, device),
            comparison,
            is_undecided,
            is_member,
            now,
        );
        if matches!(membership, Membership::Freed | Membership::Frozen) {
            self.dirty.report(key);
        }
        if membership == Membership::Frozen {
            let node = id.clone();
            notify(
                self.gate,
                self.outbox,
                key,
                Notification::Flapping { node, label },
            );
        }
        match membership {
            Membership::Free | Membership::Freed => comparison,
            _ if is_member => Comparison::Matches,
            _ => Comparison::DoesNotMatch,
        }
    }
}

/// The devices that a policy targets now; `None` while that cannot be decided.
fn find_devices(
    gate: &Gate,
    observed: &Observed,
    entry: &PolicyEntry,
    matching: Option<&BTreeSet<NodeId>>,
) -> Option<Binding> {
    let policy = entry.policy().as_deref().ok()?;
    if entry.is_deleting() {
        return None;
    }
    if policy.selector().is_some() {
        return matching.cloned().map(Binding::Selector);
    }
    // No other device takes the place of the bound one before that is proven gone.
    if let Some(id) = entry.bound_node().filter(|id| observed.has_lost(id)) {
        let is_reported = observed.absence().is_reported(id, observed.lists());
        return is_reported.then(|| Binding::Missing(id.clone()));
    }
    let approved = entry.approval().given();
    let binding = bind_policy(policy, entry.needed_record(), approved, observed.index());
    among_rivals(gate, observed, entry, &policy.target, binding)
}

/// What a policy is bound to, if lists may lack other devices that have the name too; `None` while that cannot be
/// decided.
fn among_rivals(
    gate: &Gate,
    observed: &Observed,
    entry: &PolicyEntry,
    target: &Target,
    binding: Binding,
) -> Option<Binding> {
    let claimed = matches!(target, Target::Device(target) if may_change(&target.identity));
    // Another device may have the name too, and be missing from the first list.
    let found = match &binding {
        Binding::Device(id) | Binding::Unmet { node: id, .. } => Some(id),
        _ => None,
    };
    // What someone has approved is no longer a guess.
    let new = found.filter(|id| {
        entry.bound_node() != Some(*id) && !entry.approval().given().nodes.contains(*id)
    });
    let rivals = lacking_rivals(observed, entry);
    let is_doubtful = match &binding {
        // A list can lack all devices of the name.
        Binding::NotFound => !rivals.is_empty(),
        _ => claimed && new.is_some(),
    };
    if is_doubtful && !gate.can_compare_lists(observed) {
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
    // The listed device may be one of the recorded ones.
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
fn lacking_rivals<'e>(observed: &Observed, entry: &'e PolicyEntry) -> Vec<&'e NodeId> {
    entry.rivals().filter(|id| observed.has_lost(id)).collect()
}

/// Adopts a device that a policy targets now.
fn adopt_device(
    policies: &mut PolicySet,
    devices: &mut Devices,
    dirty: &mut Dirty,
    id: &NodeId,
    key: &PolicyKey,
) {
    let joins = policies.get(key).is_some_and(|entry| !entry.is_urgent());
    devices.adopt(id, key, joins);
    if let Some(entry) = policies.get_mut(key) {
        entry.reclaim(id);
    }
    dirty.plan(id);
}

/// Releases a device that a policy no longer targets.
pub(super) fn release_binding(
    policies: &mut PolicySet,
    devices: &mut Devices,
    dirty: &mut Dirty,
    id: &NodeId,
    key: &PolicyKey,
) {
    if let Some(entry) = policies.get_mut(key) {
        entry.approval_mut().drop_device(id);
        let next = entry.end_turn(id);
        dirty.plan_all(next);
    }
    if devices.release(id, key) {
        dirty.plan(id);
    }
}

/// Devices with the same result for a while are matched again.
fn end_flapping(matching: &mut Matching, dirty: &mut Dirty, now: Duration) {
    let due = matching.flapping_mut().due(now);
    dirty.rematch_all(due);
}

/// Continues with the devices that waited for these policies.
pub(super) fn end_waiting_for(
    policies: &mut PolicySet,
    devices: &Devices,
    dirty: &mut Dirty,
    keys: &[PolicyKey],
) {
    let mut waited = false;
    for key in keys {
        let entry = policies.get_mut(key);
        waited |= entry.is_some_and(|entry| entry.targets_mut().end_waiting());
    }
    if waited {
        dirty.step_all(devices.ids().cloned());
    }
}
