//! Devices that are missing from the list, and when the engine gives one up.
//!
//! One incomplete list proves nothing. A device that is missing from a complete list stays in the snapshot as
//! it was last seen, so that everything that depends on its presence stays as it is: which device a policy is
//! bound to, which of two devices has a name, which devices a selector matches, what a frozen plan contains,
//! what must be cleared, and how many devices the limit counts. Nothing is sent to the device meanwhile. The
//! engine gives it up once two complete lists in a row lack it. If a policy concerns the device, the API must
//! also answer that there is no such device.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Answer, Engine, Failure, Now, Request, Retry, Ticket, device_lookup::LookedUpDevices,
    device_lookup::is_lacking, failure::backoff,
};
use crate::{
    model::{Device, NodeId, Reason},
    plan::{DeviceIndex, PolicyKey, Target},
};

/// Lookups in flight at once: a list that lacks many devices must not keep other work waiting.
const MAX_LOOKUPS: usize = 2;

/// A device that the last list lacks.
#[derive(Debug)]
struct Missing {
    /// The number of the first list in a row that lacks it.
    since: u64,
    /// Lookups that failed in a row.
    failures: u32,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    /// Nothing is proven. The device itself may be looked up from this time on.
    Open(Duration),
    /// The lookup of the device is in flight.
    Asked(Ticket),
    /// There is no such device.
    Gone,
}

/// The devices that the last list lacks: see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Absence {
    missing: BTreeMap<NodeId, Missing>,
    /// The lookups in flight, including those whose result no longer matters.
    lookups: BTreeMap<Ticket, NodeId>,
    /// The devices that other controllers have looked up.
    pub looked_up: LookedUpDevices,
}

impl Absence {
    /// Whether the last list lacks a device: nothing is sent to it.
    pub fn is_missing(&self, id: &NodeId) -> bool {
        self.missing.contains_key(id)
    }

    /// Whether a device is proven to have left the tailnet.
    pub fn is_gone(&self, id: &NodeId) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|missing| matches!(missing.proof, Proof::Gone))
    }

    /// Whether more than one list in a row lacks a device: statuses then report it.
    pub fn is_reported(&self, id: &NodeId, lists: u64) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|missing| missing.since < lists)
    }

    /// Notes that a list lacks a device. Returns how many lists in a row lack it now.
    fn note_absent(&mut self, id: &NodeId, lists: u64) -> u64 {
        let missing = self.missing.entry(id.clone()).or_insert(Missing {
            since: lists,
            failures: 0,
            proof: Proof::Open(Duration::ZERO),
        });
        lists.saturating_sub(missing.since) + 1
    }

    /// Notes that a list has a device. Returns whether the list before lacked it.
    pub fn note_present(&mut self, id: &NodeId) -> bool {
        self.missing.remove(id).is_some()
    }

    /// Notes the proof that a device is gone.
    pub fn prove(&mut self, id: &NodeId, lists: u64) {
        self.note_absent(id, lists);
        if let Some(missing) = self.missing.get_mut(id) {
            missing.proof = Proof::Gone;
        }
    }

    /// Forgets which devices were missing, and starts to count lists again.
    pub fn restart(&mut self) {
        self.missing.clear();
    }

    /// The lookup that is due first. Two lists must lack the device.
    fn next(&self, lists: u64) -> Option<(Duration, &NodeId)> {
        if self.lookups.len() >= MAX_LOOKUPS {
            return None;
        }
        let missing = self.missing.iter();
        let open = missing.filter_map(|(id, missing)| match missing.proof {
            Proof::Open(from) if missing.since < lists => Some((from, id)),
            _ => None,
        });
        open.min()
    }

    fn ask(&mut self, id: NodeId, ticket: Ticket) {
        if let Some(missing) = self.missing.get_mut(&id) {
            missing.proof = Proof::Asked(ticket);
        }
        self.lookups.insert(ticket, id);
    }

    /// Takes back a request that was not sent. Returns whether it was a lookup.
    pub fn take_back(&mut self, ticket: Ticket, now: Duration) -> bool {
        let Some(id) = self.lookups.remove(&ticket) else {
            return false;
        };
        if self.is_waited_for(&id, ticket)
            && let Some(missing) = self.missing.get_mut(&id)
        {
            missing.proof = Proof::Open(now);
        }
        true
    }

    /// Whether the engine still waits for the answer of this lookup.
    fn is_waited_for(&self, id: &NodeId, ticket: Ticket) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|it| matches!(it.proof, Proof::Asked(asked) if asked == ticket))
    }
}

impl Engine {
    /// Whether two complete lists can be compared. Before that, a device that the first list lacks may still
    /// exist. A run of an approved plan needs one list only: it compares the list with that plan.
    pub(super) fn can_compare_lists(&self) -> bool {
        self.observed.lists() > 1 || self.gate.approved_plan().is_some()
    }

    /// Keeps devices that a new list lacks in the snapshot until they are given up. Returns those that are
    /// given up with this list.
    pub(super) fn keep_missing(&mut self, listed: &mut DeviceIndex) -> Vec<NodeId> {
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
        let (mut lost, mut dropped, mut is_new) = (0, Vec::new(), false);
        for device in lacking {
            let id = device.node_id.clone();
            let is_concerned = concerned.contains(&id) || recorded.contains(&id);
            let times = self.observed.absence_mut().note_absent(&id, lists);
            lost += 1;
            // A process that does not lead decides nothing and sends no lookup.
            if times > 1 && !(is_concerned && self.gate.leads()) {
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
        self.observed.absence_mut().missing.retain(|id, _| kept(id));
        if is_new {
            self.observed.compare_soon();
        }
        if !self.is_plausible(lost) {
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
            recorded.extend(entry.needed_record.managed.nodes.iter());
            recorded.extend(entry.needed_record.managed.released_devices());
            recorded.extend(entry.needed_record.owned.nodes());
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
            if let Ok(policy) = &entry.policy
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

    /// Looks up the devices that two lists lack.
    pub(super) fn send_lookups(&mut self, now: Now) {
        while self.next_lookup().is_some_and(|from| from <= now.monotonic)
            && self.outbox.take_turn()
            && let Some((_, id)) = self.observed.absence().next(self.observed.lists())
        {
            let id = id.clone();
            let ticket = self.send(Request::Device(id.clone()), Vec::new(), now);
            self.observed.absence_mut().ask(id, ticket);
        }
    }

    /// When the next lookup is due, if one can be sent.
    pub(super) fn next_lookup(&self) -> Option<Duration> {
        // While something waits for a turn, the turn is the next occasion.
        if !self.gate.may_send(&self.observed)
            || self.outbox.waits_for_turn()
            || self.outbox.is_crowded()
        {
            return None;
        }
        let next = self.observed.absence().next(self.observed.lists());
        next.map(|(from, _)| from)
    }

    /// Takes the answer of a lookup. Returns whether it was one.
    pub(super) fn take_lookup(
        &mut self,
        ticket: Ticket,
        result: &Result<Answer, Failure>,
        now: Now,
    ) -> bool {
        let Some(id) = self.observed.absence_mut().lookups.remove(&ticket) else {
            return false;
        };
        // The device may be in the list again.
        if !self.observed.absence().is_waited_for(&id, ticket) {
            return true;
        }
        match result {
            Err(failure) if failure.reason == Reason::DeviceNotFound => self.give_up(&id),
            // A device that is now shared in is no longer one of the tailnet's own.
            Ok(Answer::Device(device)) if device.node_id == id && device.external => {
                self.give_up(&id);
            }
            Ok(Answer::Device(device)) if device.node_id == id => {
                self.take_unlisted((**device).clone(), now);
            }
            result => self.lookup_failed(&id, result.as_ref().err(), now),
        }
        true
    }

    /// A device that lists lack is in the tailnet: the lists are incomplete.
    fn take_unlisted(&mut self, device: Device, now: Now) {
        let id = device.node_id.clone();
        self.observed.doubt();
        let again = now.monotonic + self.refresh();
        if let Some(missing) = self.observed.absence_mut().missing.get_mut(&id) {
            missing.failures = 0;
            missing.proof = Proof::Open(again);
        }
        self.observed.put(device);
        self.dirty.rematch(&id);
        self.dirty.plan(&id);
        self.mark_bindings(|bound| bound == Some(&id));
    }

    fn lookup_failed(&mut self, id: &NodeId, failure: Option<&Failure>, now: Now) {
        let Some(missing) = self.observed.absence_mut().missing.get_mut(id) else {
            return;
        };
        missing.failures = missing.failures.saturating_add(1);
        let pause = match failure.map(|failure| failure.retry) {
            Some(Retry::After(pause)) => pause,
            _ => Duration::ZERO,
        };
        let pause = pause.max(backoff(missing.failures, &mut self.rng));
        missing.proof = Proof::Open(now.monotonic + pause);
    }

    /// A device has left the tailnet: everything that depends on it is computed again.
    fn give_up(&mut self, id: &NodeId) {
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
}
