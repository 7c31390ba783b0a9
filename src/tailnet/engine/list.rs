//! Intake of the list of devices: what has changed, and which devices it lacks.
//!
//! One incomplete list proves nothing: see [`crate::tailnet::absence`].

use std::collections::{BTreeMap, BTreeSet};

use super::{evaluation::end_undecided, lookup::looked_up_devices};
use crate::{
    model::{Device, NodeId},
    plan::{ConflictKind, DeviceIndex, Field, Hold, PolicyKey, Target},
    tailnet::{
        Answer, Failure, Now, Settings, Ticket, device_state::DeviceState, devices::Devices,
        dirty::Dirty, gate::Gate, listed::ListedDevices, matching::Matching, mutants::mutant,
        observed::Observed, policy_set::PolicySet, polling::Asked,
    },
};

/// The number of devices that may leave between two lists without making the later one doubtful.
const FEW: usize = 5;

/// What a list of devices changes.
pub(super) struct Listing<'e> {
    pub settings: &'e Settings,
    pub gate: &'e mut Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e mut PolicySet,
    pub matching: &'e mut Matching,
    pub devices: &'e mut Devices,
    pub dirty: &'e mut Dirty,
    pub rng: &'e mut fastrand::Rng,
}

impl Listing<'_> {
    /// Takes the answer of a poll.
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
                self.observed
                    .poll_succeeded(now, self.settings.poll_interval, self.rng);
                self.take_devices(devices, asked.at);
                // After the devices, as the next status shows both.
                self.complete_reconcile_requests(asked.ticket);
            }
            result => {
                let failure = result.err().unwrap_or_else(Failure::unexpected);
                self.observed.poll_failed(now.monotonic, failure, self.rng);
            }
        }
        // The second list shows which devices the first one lacked.
        if self.observed.polling().outage() != before.as_ref() || self.observed.lists() <= 2 {
            self.dirty.report_all(self.policies.keys().cloned());
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
            end_undecided(self.matching, self.devices, self.dirty);
        }
        // What was cleared nowhere before is released now.
        let confirmed = self.observed.take_owners(&devices);
        self.dirty.rematch_all(confirmed);
        let (devices, contradicted) = listed_once(devices);
        let mut listed = ListedDevices::default();
        let mut changed: BTreeSet<NodeId> = BTreeSet::new();
        let mut owners_changed = false;
        for device in devices {
            let id = device.node_id.clone();
            let known = self.observed.index().get(&id);
            owners_changed |= known
                .is_none_or(|known| (&known.tags, &known.user) != (&device.tags, &device.user));
            let is_contradicted = contradicted.contains(&id);
            if self.take_listed(device, is_contradicted, asked_at, &mut listed) {
                changed.insert(id);
            }
        }
        let dropped = self.keep_missing(&mut listed);
        self.dirty.rematch_all(dropped);
        // At once, so that nothing compares devices of this list with those of the last one.
        self.observed.take_listed(listed);
        // Not for what machines claim: one that keeps changing its hostname must not cause status writes.
        if owners_changed {
            report_empty_selectors(self.policies, self.dirty);
        }
        find_inactive(self.devices, self.dirty);
        reconsider_taken(self.devices, self.dirty);
        // A policy whose device is unchanged in the list stays bound as it was.
        let lost = self
            .devices
            .ids()
            .filter(|id| self.observed.index().get(id).is_none());
        changed.extend(lost.cloned());
        mark_bindings(self.policies, self.dirty, |id| {
            id.is_some_and(|id| changed.contains(id))
        });
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
        let gone = previous.devices().map(|device| device.node_id.clone());
        self.dirty.rematch_all(gone);
    }

    /// Takes a device of a list. `contradicted`: the list has it twice, with different values. Returns whether
    /// that may change what a policy does on the device.
    fn take_listed(
        &mut self,
        device: Device,
        contradicted: bool,
        asked_at: u64,
        listed: &mut ListedDevices,
    ) -> bool {
        let id = device.node_id.clone();
        let was_own = self
            .observed
            .index()
            .get(&id)
            .is_some_and(|known| !known.external);
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
                Some(ours) if contradicted => listed.keep(ours),
                None if contradicted => {}
                known => {
                    if known.is_none_or(|known| known.facts_differ(&device)) {
                        self.dirty.rematch(&id);
                    }
                    listed.put(device, known);
                }
            }
            return is_back;
        };
        match known {
            // The list may be older than the last write or read of this device.
            Some(ours) if node.is_newer_than(asked_at) => {
                node.note_older(ours, &device, asked_at);
                listed.keep(ours);
                is_back
            }
            // Only a read of the device itself can tell.
            Some(ours) if contradicted => {
                node.require_read();
                self.dirty.step(&id);
                listed.keep(ours);
                is_back
            }
            known => {
                let mut device = node.with_known_routes(device);
                if let Some(ours) = known
                    && node.has_newer_routes(asked_at)
                {
                    device.enabled_routes.clone_from(&ours.enabled_routes);
                }
                let has_changed = take_known(node, known, &device, self.dirty);
                listed.put(device, known);
                is_back || has_changed
            }
        }
    }

    /// Keeps devices that a new list lacks in the snapshot until they are given up. Returns those that are
    /// given up with this list.
    fn keep_missing(&mut self, listed: &mut ListedDevices) -> Vec<NodeId> {
        let lists = self.observed.lists();
        let lacking: Vec<Device> = self
            .observed
            .index()
            .devices()
            .filter(|device| !device.external)
            .filter(|device| listed.lacks(&device.node_id))
            .cloned()
            .collect();
        let looked_up = looked_up_devices(self.settings, self.observed);
        let recorded = recorded_devices(self.observed, self.policies, listed);
        let mut concerned = concerned_among(self.observed, self.policies, self.devices, &lacking);
        concerned.extend(looked_up);
        let (mut lost, mut dropped, mut is_new) = (0_usize, Vec::new(), false);
        let mut kept: BTreeSet<NodeId> = BTreeSet::new();
        for device in lacking {
            let id = device.node_id.clone();
            let is_concerned = concerned.contains(&id) || recorded.contains(&id);
            is_new |= is_concerned && !self.observed.absence().is_missing(&id);
            let times = self.observed.absence_mut().note_absent(&id, lists);
            lost += 1;
            // A process that does not lead decides nothing and sends no lookup.
            if times > 1 && !(is_concerned && self.gate.leads()) || mutant!(OneListProvesAbsence) {
                dropped.push(id);
                continue;
            }
            wait_for_missing(self.devices, self.dirty, &id);
            listed.keep_missing(&id);
            kept.insert(id);
        }
        for id in &recorded {
            is_new |= !self.observed.absence().is_missing(id);
            self.observed.absence_mut().note_absent(id, lists);
        }
        self.observed
            .absence_mut()
            .retain(|id| recorded.contains(id) || kept.contains(id) || listed.has(id));
        if is_new {
            self.observed.compare_soon();
        }
        // A device whose identity cannot be read is present.
        if !self.is_plausible(lost.saturating_sub(self.observed.skipped().total)) {
            self.observed.doubt();
        }
        dropped
    }

    /// Whether a list that has lost so many devices is plausible.
    fn is_plausible(&self, gone: usize) -> bool {
        gone <= FEW.max(self.observed.index().own_count() / 10)
    }

    /// The first list of a term has arrived: nothing that other processes did for the existing policies may
    /// be undone before their devices are known.
    fn await_policies(&mut self) {
        for entry in self.policies.values_mut() {
            entry.targets_mut().await_devices();
        }
    }
}

/// Takes what a list reports of a device that a policy manages. Returns whether that may change what a policy does
/// there.
fn take_known(
    node: &mut DeviceState,
    known: Option<&Device>,
    device: &Device,
    dirty: &mut Dirty,
) -> bool {
    let differs = known != Some(device);
    let has_changed = node.note_listed() || differs || mutant!(ListEndsBackoffs);
    if mutant!(ListEndsBackoffs) {
        node.progress_mut().forget_failures();
    }
    if has_changed {
        dirty.plan(&device.node_id);
    }
    if known.is_none_or(|known| known.facts_differ(device)) {
        dirty.rematch(&device.node_id);
    }
    has_changed
}

/// A policy without a device names what the devices have instead.
fn report_empty_selectors(policies: &PolicySet, dirty: &mut Dirty) {
    let empty: Vec<PolicyKey> = policies
        .iter()
        .filter(|(_, entry)| entry.targets().selected().is_some_and(BTreeSet::is_empty))
        .map(|(key, _)| key.clone())
        .collect();
    dirty.report_all(empty);
}

/// Plans again the devices that wait for an address or a name: it may be free now.
fn reconsider_taken(devices: &Devices, dirty: &mut Dirty) {
    let waiting = devices.iter().filter(|(_, node)| {
        let mut all = node.plan().differences.iter().chain(&node.plan().shown);
        let mut lost = node.plan().owners.conflicts.iter();
        all.any(|it| matches!(it.hold, Some(Hold::AddressInUse(_) | Hold::NameTaken(_))))
            || lost.any(|it| matches!(it.kind, ConflictKind::Device(_)))
    });
    dirty.plan_all(waiting.map(|(id, _)| id.clone()));
}

/// Work on a missing device waits, and its policies report the device as missing.
fn wait_for_missing(devices: &Devices, dirty: &mut Dirty, id: &NodeId) {
    if let Some(node) = devices.get(id) {
        dirty.step(id);
        dirty.report_all(node.all_policies().cloned());
    }
}

/// The recorded devices of policies that neither the list nor the snapshot has.
fn recorded_devices(
    observed: &Observed,
    policies: &PolicySet,
    listed: &ListedDevices,
) -> BTreeSet<NodeId> {
    let mut recorded: BTreeSet<&NodeId> = BTreeSet::new();
    for entry in policies.values() {
        recorded.extend(entry.bound_node());
        recorded.extend(entry.rivals());
        recorded.extend(entry.needed_record().managed.nodes.iter());
        recorded.extend(entry.needed_record().managed.released_devices());
        recorded.extend(entry.needed_record().owned.nodes());
    }
    recorded.extend(observed.absence().looked_up.bound());
    let lacking = recorded.into_iter().filter(|id| listed.lacks(id));
    lacking.cloned().collect()
}

/// The devices that a policy manages or names. An error about one of these cannot be undone.
fn concerned_among(
    observed: &Observed,
    policies: &PolicySet,
    devices: &Devices,
    lacking: &[Device],
) -> BTreeSet<NodeId> {
    let mut concerned: BTreeSet<NodeId> = BTreeSet::new();
    if lacking.is_empty() {
        return concerned;
    }
    for entry in policies.values() {
        if let Ok(policy) = entry.policy()
            && let Target::Device(target) = &policy.target
        {
            let named = observed.index().find(&target.identity).into_iter();
            concerned.extend(named.map(|device| device.node_id.clone()));
        }
    }
    let managed = lacking.iter().map(|device| &device.node_id);
    concerned.extend(managed.filter(|id| devices.contains(id)).cloned());
    concerned
}

/// A device has left the tailnet: everything that depends on it is computed again.
pub(super) fn give_up(
    observed: &mut Observed,
    policies: &PolicySet,
    devices: &Devices,
    dirty: &mut Dirty,
    id: &NodeId,
) {
    observed.remove(id);
    dirty.rematch(id);
    dirty.plan(id);
    reconsider_taken(devices, dirty);
    mark_bindings(policies, dirty, |bound| bound == Some(id));
}

/// Marks policies for a single device to be bound again, if they have none or `concerns` is true of it.
pub(super) fn mark_bindings(
    policies: &PolicySet,
    dirty: &mut Dirty,
    concerns: impl Fn(Option<&NodeId>) -> bool,
) {
    let of_one_device = policies
        .iter()
        .filter(|(key, _)| !policies.has_selector(key));
    let affected: Vec<PolicyKey> = of_one_device
        .filter(|(_, entry)| {
            let node = entry.nodes().next();
            node.is_none() || concerns(node)
        })
        .map(|(key, _)| key.clone())
        .collect();
    dirty.rebind_all(affected);
}

/// Marks devices that must be deleted for planning: they wait for a list that can be trusted.
fn find_inactive(devices: &Devices, dirty: &mut Dirty) {
    let waiting = devices.iter().filter(|(_, node)| {
        let mut differences = node.plan().differences.iter();
        differences.any(|difference| difference.change.field() == Field::DeleteInactive)
    });
    dirty.plan_all(waiting.map(|(id, _)| id.clone()));
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
