//! Intake of the list of devices: what has changed, and which devices it lacks.
//!
//! One incomplete list proves nothing: see [`crate::tailnet::absence`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, intake::unexpected};
use crate::{
    model::{Device, NodeId},
    plan::{ConflictKind, DeviceIndex, Difference, Field, Hold, PolicyKey, Target},
    tailnet::{
        Answer, Failure, Now, Ticket, device_lookup::is_lacking, device_state::DeviceState,
        mutants::mutant, polling::Asked, read_shares::ReadShares,
    },
};

/// The number of devices that may leave between two lists without making the later one doubtful.
const FEW: usize = 5;

impl Engine {
    pub(super) fn take_list(&mut self, asked: Asked, result: Result<Answer, Failure>, now: Now) {
        let before = self.observed.polling().outage().cloned();
        match result {
            Ok(Answer::Devices {
                devices,
                skipped,
                lacks,
                ..
            }) => {
                self.observed.set_skipped(skipped);
                self.gate.note_missing_scopes(lacks);
                self.observed.poll_succeeded(
                    now.monotonic,
                    self.settings.poll_interval,
                    &mut self.rng,
                );
                self.take_devices(devices, asked.at);
                self.complete_reconcile_requests(asked.ticket);
            }
            result => {
                let failure = result.err().unwrap_or_else(unexpected);
                self.observed
                    .poll_failed(now.monotonic, failure, &mut self.rng);
            }
        }
        // The second list shows which devices the first one lacked.
        if self.observed.polling().outage() != before.as_ref() || self.observed.lists() <= 2 {
            self.report_all();
        }
    }

    /// Polls at once for a policy, and reads the attributes of its devices. The next poll answers policies
    /// that request too often, and policies that are not allowed.
    pub(super) fn request_reconcile(&mut self, key: &PolicyKey, now: Now) {
        self.policies
            .request_reconcile(key, self.outbox.last_ticket());
        let Some(entry) = self
            .policies
            .get(key)
            .filter(|entry| entry.policy().is_ok())
        else {
            return;
        };
        let needs_reads = |id: &&NodeId| {
            let node = self.devices.get(id);
            node.is_some_and(|node| node.plan().owners.need_attributes())
        };
        let to_read: Vec<NodeId> = entry.nodes().filter(needs_reads).cloned().collect();
        let reads = ReadShares::share_of(to_read.len(), self.settings.requests_per_second);
        let is_due = self.observed.polling().comes_at_once(now.monotonic);
        let given = (self.settings.poll_interval, reads, is_due);
        if !self.policies.grant_reconcile(key, given, now.monotonic) {
            return;
        }
        for id in to_read {
            if let Some(node) = self.devices.get_mut(&id) {
                node.require_attributes();
                self.dirty.step(&id);
            }
        }
        // While the list fails, its own backoff counts.
        if self.observed.polling().failure().is_none() {
            self.observed.poll_now(now.monotonic);
        }
    }

    /// Completes the requests that were made before this list was requested.
    fn complete_reconcile_requests(&mut self, list: Ticket) {
        let granted = self.policies.complete_reconcile_requests(list);
        self.dirty.report_all(granted);
    }

    fn take_devices(&mut self, devices: Vec<Device>, asked_at: u64) {
        // The list may still have devices that were deleted after it was requested.
        self.observed.forget_deleted(asked_at);
        if self.observed.lists() == 1 {
            self.leave_other_tailnet(&devices);
            self.await_policies();
        } else {
            self.end_undecided();
        }
        // What was cleared nowhere before is released now.
        let confirmed = self.observed.take_owners(&devices);
        self.dirty.rematch_all(confirmed);
        let (devices, contradicted) = listed_once(devices);
        let mut fleet = DeviceIndex::default();
        let mut changed: BTreeSet<NodeId> = BTreeSet::new();
        let mut owners_changed = false;
        for device in devices {
            let id = device.node_id.clone();
            let known = self.observed.index().get(&id);
            owners_changed |= known
                .is_none_or(|known| (&known.tags, &known.user) != (&device.tags, &device.user));
            let is_contradicted = contradicted.contains(&id);
            if self.take_listed(device, is_contradicted, asked_at, &mut fleet) {
                changed.insert(id);
            }
        }
        let dropped = self.keep_missing(&mut fleet);
        self.dirty.rematch_all(dropped);
        self.observed.sign_ins_mut().retain(&fleet);
        self.observed.replace(fleet);
        // Not for what machines claim: one that keeps changing its hostname must not cause status writes.
        if owners_changed {
            self.report_empty_selectors();
        }
        self.find_inactive();
        self.reconsider_taken();
        // A policy whose device is unchanged in the list stays bound as it was.
        let lost = self.devices.ids();
        let lost = lost.filter(|id| self.observed.index().get(id).is_none());
        changed.extend(lost.cloned());
        self.mark_bindings(|id| id.is_some_and(|id| changed.contains(id)));
    }

    /// A policy without a device names what the devices have instead.
    fn report_empty_selectors(&mut self) {
        let empty = self
            .policies
            .iter()
            .filter(|(_, entry)| entry.targets().selected().is_some_and(BTreeSet::is_empty));
        let empty: Vec<PolicyKey> = empty.map(|(key, _)| key.clone()).collect();
        self.dirty.report_all(empty);
    }

    /// If the first list after a new connection has none of the known devices, it is of another tailnet: no
    /// proof is needed that those are gone.
    fn leave_other_tailnet(&mut self, devices: &[Device]) {
        let mut own = devices.iter().filter(|device| !device.external);
        // A known device may be one of those whose identity cannot be read.
        if devices.is_empty()
            || self.observed.skipped().total > 0
            || own.any(|device| self.observed.index().get(&device.node_id).is_some())
        {
            return;
        }
        let previous = self.observed.replace(DeviceIndex::default());
        let previous = previous.devices().map(|device| device.node_id.clone());
        self.dirty.rematch_all(previous);
    }

    /// Takes a device of a list. `contradicted`: the list has it twice, with different values. Returns whether
    /// that may change what a policy does on the device.
    fn take_listed(
        &mut self,
        device: Device,
        contradicted: bool,
        asked_at: u64,
        fleet: &mut DeviceIndex,
    ) -> bool {
        let id = device.node_id.clone();
        let was_own = self.observed.index().get(&id);
        let was_own = was_own.is_some_and(|known| !known.external);
        // An own device that is listed as shared in counts as missing until it is proven to be gone.
        if self.observed.is_deleted(&id) || (device.external && was_own) {
            return false;
        }
        let is_back = !device.external && self.observed.absence_mut().note_present(&id);
        if is_back {
            self.dirty.plan(&id);
        }
        let known = self.observed.index().get(&id);
        let Some(node) = self.devices.get_mut(&id) else {
            match known {
                Some(ours) if contradicted => fleet.insert(ours.clone()),
                None if contradicted => {}
                known => {
                    if known.is_none_or(|known| known.facts_differ(&device)) {
                        self.dirty.rematch(&id);
                    }
                    fleet.insert(device);
                }
            }
            return is_back;
        };
        match known {
            // The list may be older than the last write or read of this device.
            Some(ours) if node.is_newer_than(asked_at) => {
                fleet.insert(ours.clone());
                is_back
            }
            // Only a read of the device itself can tell.
            Some(ours) if contradicted => {
                node.require_read();
                self.dirty.step(&id);
                fleet.insert(ours.clone());
                is_back
            }
            known => {
                let device = node.with_known_routes(device);
                let differs = known != Some(&device);
                let has_changed = node.note_listed() || differs || mutant!(ListEndsBackoffs);
                if mutant!(ListEndsBackoffs) {
                    node.progress_mut().forget_failures();
                }
                if has_changed {
                    self.dirty.plan(&id);
                }
                if known.is_none_or(|known| known.facts_differ(&device)) {
                    self.dirty.rematch(&id);
                }
                fleet.insert(device);
                is_back || has_changed
            }
        }
    }

    /// Plans again the devices that wait for an address or a name: it may be free now.
    fn reconsider_taken(&mut self) {
        let taken =
            |d: &Difference| matches!(d.hold, Some(Hold::AddressInUse(_) | Hold::NameTaken(_)));
        let waits = |node: &DeviceState| {
            let mut all = node.plan().differences.iter().chain(&node.plan().shown);
            let mut lost = node.plan().owners.conflicts.iter();
            all.any(taken) || lost.any(|lost| matches!(lost.kind, ConflictKind::Device(_)))
        };
        let waiting = self.devices.iter().filter(|(_, node)| waits(node));
        self.dirty.plan_all(waiting.map(|(id, _)| id.clone()));
    }

    /// Keeps devices that a new list lacks in the snapshot until they are given up. Returns those that are
    /// given up with this list.
    fn keep_missing(&mut self, listed: &mut DeviceIndex) -> Vec<NodeId> {
        let lists = self.observed.lists();
        let lacking = self
            .observed
            .index()
            .devices()
            .filter(|device| !device.external);
        let lacking = lacking.filter(|device| is_lacking(listed, &device.node_id));
        let lacking: Vec<Device> = lacking.cloned().collect();
        let looked_up = self.looked_up_devices();
        let recorded = self.recorded_devices(listed);
        let mut concerned = self.concerned_among(&lacking);
        concerned.extend(looked_up);
        let (mut lost, mut dropped, mut is_new) = (0_usize, Vec::new(), false);
        for device in lacking {
            let id = device.node_id.clone();
            let is_concerned = concerned.contains(&id) || recorded.contains(&id);
            let times = self.observed.absence_mut().note_absent(&id, lists);
            lost += 1;
            // A process that does not lead decides nothing and sends no lookup.
            if times > 1 && !(is_concerned && self.gate.leads()) || mutant!(OneListProvesAbsence) {
                dropped.push(id);
                continue;
            }
            is_new |= times == 1 && is_concerned;
            self.wait_for_missing(&id);
            listed.insert(device);
        }
        for id in &recorded {
            is_new |= self.observed.absence_mut().note_absent(id, lists) == 1;
        }
        let kept = |id: &NodeId| recorded.contains(id) || listed.get(id).is_some();
        self.observed.absence_mut().retain(kept);
        if is_new {
            self.observed.compare_soon();
        }
        // A device whose identity cannot be read is present.
        if !self.is_plausible(lost.saturating_sub(self.observed.skipped().total)) {
            self.observed.doubt();
        }
        dropped
    }

    /// Work on a missing device waits, and its policies report the device as missing.
    fn wait_for_missing(&mut self, id: &NodeId) {
        if let Some(node) = self.devices.get(id) {
            self.dirty.step(id);
            self.dirty.report_all(node.all_policies().cloned());
        }
    }

    /// The recorded devices of policies that neither the list nor the snapshot has.
    fn recorded_devices(&self, listed: &DeviceIndex) -> BTreeSet<NodeId> {
        let mut recorded: BTreeSet<&NodeId> = BTreeSet::new();
        for entry in self.policies.values() {
            recorded.extend(entry.bound_node());
            recorded.extend(entry.rivals());
            recorded.extend(entry.needed_record().managed.nodes.iter());
            recorded.extend(entry.needed_record().managed.released_devices());
            recorded.extend(entry.needed_record().owned.nodes());
        }
        recorded.extend(self.observed.absence().looked_up.bound());
        let lacking = recorded.into_iter().filter(|id| is_lacking(listed, id));
        lacking.cloned().collect()
    }

    /// The devices that a policy manages or names. An error about one of these cannot be undone.
    fn concerned_among(&self, lacking: &[Device]) -> BTreeSet<NodeId> {
        let mut concerned: BTreeSet<NodeId> = BTreeSet::new();
        if lacking.is_empty() {
            return concerned;
        }
        for entry in self.policies.values() {
            if let Ok(policy) = entry.policy()
                && let Target::Device(target) = &policy.target
            {
                let named = self.observed.index().find(&target.identity).into_iter();
                concerned.extend(named.map(|device| device.node_id.clone()));
            }
        }
        let managed = lacking.iter().map(|device| &device.node_id);
        concerned.extend(managed.filter(|id| self.devices.contains(id)).cloned());
        concerned
    }

    /// A device has left the tailnet: everything that depends on it is computed again.
    pub(super) fn give_up(&mut self, id: &NodeId) {
        self.observed.remove(id);
        self.dirty.rematch(id);
        self.dirty.plan(id);
        self.reconsider_taken();
        self.mark_bindings(|bound| bound == Some(id));
    }

    /// Marks policies for a single device to be bound again, if they have none or `concerns` is true of it.
    pub(super) fn mark_bindings(&mut self, concerns: impl Fn(Option<&NodeId>) -> bool) {
        let of_one_device = self.policies.iter();
        let of_one_device = of_one_device.filter(|(key, _)| !self.policies.has_selector(key));
        let affected = of_one_device.filter(|(_, entry)| {
            let node = entry.nodes().next();
            node.is_none() || concerns(node)
        });
        let affected: Vec<PolicyKey> = affected.map(|(key, _)| key.clone()).collect();
        self.dirty.rebind_all(affected);
    }

    /// Whether two complete lists can be compared. Before that, a device that the first list lacks may still
    /// exist. A run of an approved plan needs one list only: it compares the list with that plan.
    pub(super) fn can_compare_lists(&self) -> bool {
        self.observed.lists() > 1 || self.gate.approved_plan().is_some()
    }

    /// Whether a list that has lost so many devices is plausible.
    fn is_plausible(&self, gone: usize) -> bool {
        gone <= FEW.max(self.observed.index().own_count() / 10)
    }

    /// Marks devices that must be deleted for planning: they wait for a list that can be trusted.
    fn find_inactive(&mut self) {
        let waits = |node: &DeviceState| {
            let mut differences = node.plan().differences.iter();
            differences.any(|difference| difference.change.field() == Field::DeleteInactive)
        };
        let waiting = self.devices.iter().filter(|(_, node)| waits(node));
        self.dirty.plan_all(waiting.map(|(id, _)| id.clone()));
    }

    /// The first list of a term has arrived: nothing that other processes did for the existing policies may
    /// be undone before their devices are known.
    fn await_policies(&mut self) {
        for entry in self.policies.values_mut() {
            entry.targets_mut().await_devices();
        }
    }
}

/// The devices of a list, each once, and those that the list has twice with different values.
fn listed_once(devices: Vec<Device>) -> (Vec<Device>, BTreeSet<NodeId>) {
    let mut once: BTreeMap<NodeId, Device> = BTreeMap::new();
    let mut contradicted = BTreeSet::new();
    for device in devices {
        match once.get(&device.node_id) {
            Some(before) if *before != device => {
                contradicted.insert(device.node_id);
            }
            Some(_) => {}
            None => {
                once.insert(device.node_id.clone(), device);
            }
        }
    }
    (once.into_values().collect(), contradicted)
}
