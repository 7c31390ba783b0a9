//! Devices that lists lack, and when one is given up.
//!
//! One short list proves nothing. A device that a complete list lacks stays in the snapshot as it was
//! last seen, so that whatever its presence decides stays as it is: which device a policy is bound to,
//! which of two has a name, what a fleet matches, what a frozen plan is made of, what has to be cleared,
//! how many devices the limit counts. Nothing is sent to it meanwhile. It is given up only once two
//! complete lists in a row lack it and, where any policy is concerned, the API itself answers that there
//! is no such device.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Answer, Engine, Failure, Now, Request, Retry, Ticket, device_lookup::LookedUpDevices,
    device_lookup::is_lacking, failure::backoff, send::MAX_LANES,
};
use crate::{
    api::Reason,
    model::{Device, NodeId},
    plan::{DeviceIndex, PolicyKey, Target},
};

/// Lookups under way at once: a list that lacks many devices must not keep other work waiting.
const MAX_LOOKUPS: usize = 2;

/// What is known of a device that the last list lacks.
#[derive(Debug)]
struct Missing {
    /// The first list (counted) in a row that lacks it.
    since: u64,
    /// Lookups that failed in a row.
    failures: u32,
    proof: Proof,
}

#[derive(Debug)]
enum Proof {
    /// Nothing is proven; the device itself can be asked for from this time on.
    Open(Duration),
    /// The device itself is being asked for.
    Asked(Ticket),
    /// There is no such device.
    Gone,
}

/// The devices that the last list lacks: see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Absence {
    missing: BTreeMap<NodeId, Missing>,
    /// The lookups under way, those that no longer matter among them.
    lookups: BTreeMap<Ticket, NodeId>,
    /// What those who work beside the engine have asked for.
    pub inquired: LookedUpDevices,
}

impl Absence {
    /// Whether the last list lacks a device: nothing is sent to it.
    pub fn is_missing(&self, id: &NodeId) -> bool {
        self.missing.contains_key(id)
    }

    /// Whether it is proven that a device has left the tailnet.
    pub fn is_gone(&self, id: &NodeId) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|missing| matches!(missing.proof, Proof::Gone))
    }

    /// Whether more than one list in a row lacks a device, so that it is reported.
    pub fn is_reported(&self, id: &NodeId, lists: u64) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|missing| missing.since < lists)
    }

    /// A list lacks a device. Says how many in a row do now.
    fn miss(&mut self, id: &NodeId, lists: u64) -> u64 {
        let missing = self.missing.entry(id.clone()).or_insert(Missing {
            since: lists,
            failures: 0,
            proof: Proof::Open(Duration::ZERO),
        });
        lists.saturating_sub(missing.since) + 1
    }

    /// A list has a device. Says whether the one before lacked it.
    pub fn find(&mut self, id: &NodeId) -> bool {
        self.missing.remove(id).is_some()
    }

    /// It is proven that a device is gone.
    pub fn prove(&mut self, id: &NodeId, lists: u64) {
        self.miss(id, lists);
        if let Some(missing) = self.missing.get_mut(id) {
            missing.proof = Proof::Gone;
        }
    }

    /// Forgets what lists lacked: they are counted anew.
    pub fn restart(&mut self) {
        self.missing.clear();
    }

    /// The lookup that is due first; two lists must lack the device.
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

    /// A request was not sent. Says whether it was a lookup.
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

    /// Whether an answer is still waited for.
    fn is_waited_for(&self, id: &NodeId, ticket: Ticket) -> bool {
        let missing = self.missing.get(id);
        missing.is_some_and(|it| matches!(it.proof, Proof::Asked(asked) if asked == ticket))
    }
}

impl Engine {
    /// Whether two complete lists can be compared: a device that only the first one lacks is taken
    /// for none. Whoever carries out an approved plan compares with that plan.
    pub(super) fn can_compare_lists(&self) -> bool {
        self.polling.seen > 1 || self.approved_plan.is_some()
    }

    /// Keeps what a new list lacks in the snapshot, until it is given up. Gives the devices that are
    /// given up with this list.
    pub(super) fn keep_missing(&mut self, listed: &mut DeviceIndex) -> Vec<NodeId> {
        let lists = self.polling.seen;
        let lacking = self.index.devices().filter(|device| !device.external);
        let lacking = lacking.filter(|device| is_lacking(listed, &device.node_id));
        let lacking: Vec<Device> = lacking.cloned().collect();
        let inquired = self.inquired_devices();
        let recorded = self.recorded_devices(listed);
        let mut concerned = self.concerned_among(&lacking);
        concerned.extend(inquired);
        let (mut lost, mut dropped, mut is_new) = (0, Vec::new(), false);
        for device in lacking {
            let id = device.node_id.clone();
            let is_concerned = concerned.contains(&id) || recorded.contains(&id);
            let times = self.absence.miss(&id, lists);
            lost += 1;
            // Who does not lead decides nothing and sends no lookup.
            if times > 1 && !(is_concerned && self.leads()) {
                dropped.push(id);
                continue;
            }
            is_new |= times == 1 && is_concerned;
            self.note_missing(&id);
            listed.insert(device);
        }
        for id in &recorded {
            is_new |= self.absence.miss(id, lists) == 1;
        }
        let kept = |id: &NodeId| recorded.contains(id) || listed.get(id).is_some();
        self.absence.missing.retain(|id, _| kept(id));
        if is_new {
            self.polling.compare_soon();
        }
        if !self.is_plausible(lost) {
            self.polling.doubt();
        }
        dropped
    }

    /// What is under way for a device that a list lacks waits, and its policies report it.
    fn note_missing(&mut self, id: &NodeId) {
        if let Some(node) = self.devices.get(id) {
            self.dirty_steps.insert(id.clone());
            self.dirty_statuses.extend(node.all_policies().cloned());
        }
    }

    /// The devices that policies remember and that neither the list nor the snapshot has.
    fn recorded_devices(&self, listed: &DeviceIndex) -> BTreeSet<NodeId> {
        let mut recorded: BTreeSet<&NodeId> = BTreeSet::new();
        for held in self.policies.values() {
            recorded.extend(held.bound_node());
            recorded.extend(held.needed_record.managed.nodes.iter());
            recorded.extend(held.needed_record.managed.release());
            recorded.extend(held.needed_record.owned.nodes());
        }
        recorded.extend(self.absence.inquired.bound());
        let lacking = recorded.into_iter().filter(|id| is_lacking(listed, id));
        lacking.cloned().collect()
    }

    /// The devices that any policy acts on or names: to be wrong about them cannot be undone.
    fn concerned_among(&self, lacking: &[Device]) -> BTreeSet<NodeId> {
        let mut concerned: BTreeSet<NodeId> = BTreeSet::new();
        if lacking.is_empty() {
            return concerned;
        }
        for held in self.policies.values() {
            if let Ok(policy) = &held.policy
                && let Target::Device(target) = &policy.target
            {
                let named = self.index.find(&target.identity).into_iter();
                concerned.extend(named.map(|device| device.node_id.clone()));
            }
        }
        let held = lacking.iter().map(|device| &device.node_id);
        concerned.extend(held.filter(|id| self.devices.contains_key(*id)).cloned());
        concerned
    }

    /// Asks for devices that two lists lack.
    pub(super) fn send_lookups(&mut self, now: Now) {
        while self.next_lookup().is_some_and(|from| from <= now.monotonic)
            && self.turns.take()
            && let Some((_, id)) = self.absence.next(self.polling.seen)
        {
            let id = id.clone();
            self.send(Request::Device(id.clone()), Vec::new(), now);
            self.absence.ask(id, Ticket(self.next_ticket));
        }
    }

    /// When the next lookup is due, if one can be sent.
    pub(super) fn next_lookup(&self) -> Option<Duration> {
        // While something waits for a turn, that is the next occasion.
        if !self.may_act() || self.turns.is_wanted() || self.in_flight.len() >= MAX_LANES {
            return None;
        }
        let next = self.absence.next(self.polling.seen);
        next.map(|(from, _)| from)
    }

    /// Takes the answer of a lookup. Says whether it was one.
    pub(super) fn take_lookup(
        &mut self,
        ticket: Ticket,
        result: &Result<Answer, Failure>,
        now: Now,
    ) -> bool {
        let Some(id) = self.absence.lookups.remove(&ticket) else {
            return false;
        };
        // The device may be in the list again.
        if !self.absence.is_waited_for(&id, ticket) {
            return true;
        }
        match result {
            Err(failure) if failure.reason == Reason::DeviceNotFound => self.give_up(&id),
            // One that is shared in is none of the tailnet's own any longer.
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

    /// A device that lists lack is in the tailnet all the same: the lists are incomplete.
    fn take_unlisted(&mut self, device: Device, now: Now) {
        let id = device.node_id.clone();
        self.polling.doubt();
        let again = now.monotonic + self.refresh();
        if let Some(missing) = self.absence.missing.get_mut(&id) {
            missing.failures = 0;
            missing.proof = Proof::Open(again);
        }
        self.index.insert(device);
        self.dirty_matches.insert(id.clone());
        self.dirty_plans.insert(id.clone());
        self.question_bindings(|held| held == Some(&id));
    }

    fn lookup_failed(&mut self, id: &NodeId, failure: Option<&Failure>, now: Now) {
        let Some(missing) = self.absence.missing.get_mut(id) else {
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

    /// A device has left the tailnet: what depends on it is decided anew.
    fn give_up(&mut self, id: &NodeId) {
        self.absence.prove(id, self.polling.seen);
        self.index.remove(id);
        self.dirty_matches.insert(id.clone());
        self.dirty_plans.insert(id.clone());
        self.reconsider_taken();
        self.question_bindings(|held| held == Some(id));
    }

    /// Policies about a single device that is none now, or one of these, are bound anew.
    pub(super) fn question_bindings(&mut self, concerns: impl Fn(Option<&NodeId>) -> bool) {
        let single = self.policies.iter();
        let single = single.filter(|(key, _)| !self.selector_policies.contains(*key));
        let in_question = single.filter(|(_, held)| {
            let node = held.nodes().next();
            node.is_none() || concerns(node)
        });
        let in_question: Vec<PolicyKey> = in_question.map(|(key, _)| key.clone()).collect();
        self.dirty_targets.extend(in_question);
    }
}
