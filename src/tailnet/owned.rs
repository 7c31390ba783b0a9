//! The attribute keys that policies own: where they come to own one, where they no longer do, and when
//! that is recorded.
//!
//! A policy comes to own a key on a device once the device's attributes have been read and the policy
//! sets the key there, or would if it differed. It owns the key until the device no longer has it, until
//! another policy declares it, or until the device is released. The record of one device is kept before
//! its attributes are written; for the many devices of a fleet, records are kept together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{Engine, Now, absence::Absence, policy_entry::PolicyEntry};
use crate::{
    api::PolicyField,
    model::{AttributeKey, DesiredAttribute, Device, NodeId},
    plan::{
        AttributeType, Binding, Call, Capacity, DeviceIndex, Field, Mode, OwnedKeys, OwnedRecord,
        Policy, PolicyKey,
    },
};

/// A fleet of more devices records what it owns for many of them together.
const FEW: usize = 20;
/// So many devices that wait for a record do not wait for others.
const MANY_WAITING: usize = 50;
/// How long a device waits for others to be recorded with.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the keys that a policy owns are recorded.
#[derive(Debug, Default)]
pub(super) struct KeyRecord {
    /// As the status has it, or will have it with the next report.
    pub record: Arc<OwnedRecord>,
    /// What the record is made of.
    of: Option<Arc<OwnedKeys>>,
    /// Keys that are to be set for the first time, by device: the policy owns them from the request on.
    /// Where something holds the request before it is sent, the policy has not come to own them.
    unsent: BTreeMap<NodeId, BTreeSet<AttributeKey>>,
    /// Devices of which no record could be kept, so that the policy owns nothing there.
    pub unrecorded: BTreeSet<NodeId>,
    /// Devices that a list lacks, with the first such list (counted).
    absent: BTreeMap<NodeId, u64>,
    /// The list (counted) whose devices were met first.
    met_at: u64,
}

/// Devices that wait until it is recorded what is owned there.
#[derive(Debug, Default)]
pub(super) struct WaitingRecords {
    devices: usize,
    since: Option<Duration>,
    is_due: bool,
}

impl PolicyEntry {
    fn owned(&mut self) -> &mut OwnedKeys {
        Arc::make_mut(&mut self.needed_record.owned)
    }

    /// Takes from the status what it records of the devices of the first list.
    pub fn meet_devices(&mut self, fleet: &DeviceIndex, list: u64) {
        let Some(record) = self.needed_record.owned.unmet().cloned() else {
            return;
        };
        if !self.needed_record.owned.is_new() {
            return;
        }
        self.owned().meet_all(fleet);
        self.durable_record.owned = Arc::clone(&self.needed_record.owned);
        self.keys = KeyRecord {
            record,
            met_at: list,
            ..KeyRecord::default()
        };
    }

    /// Releases the devices that the policy no longer targets: it owns nothing there. A device of which
    /// the selector cannot tell is kept, and one that the list lacks may be in the next one.
    pub fn release_unmatched(&mut self, binding: Option<&Binding>, fleet: &DeviceIndex, list: u64) {
        if self.is_invalid() {
            return;
        }
        let mut released: Vec<NodeId> = Vec::new();
        for id in self.needed_record.owned.nodes() {
            match binding {
                Some(Binding::Device(target)) if id != target => released.push(id.clone()),
                Some(Binding::Selector(nodes))
                    if nodes.contains(id) || self.selector_errors.contains(id) => {}
                Some(Binding::Selector(_)) if fleet.get(id).is_none() => {
                    self.keys.absent.entry(id.clone()).or_insert(list);
                }
                Some(Binding::Selector(_)) => released.push(id.clone()),
                _ => {}
            }
        }
        for id in &released {
            self.keys.unsent.remove(id);
            self.owned().release(id);
        }
    }

    /// A device that was released under `Clear`, and from which not everything is taken yet, is targeted
    /// again: what the policy put there is its own as before.
    pub fn reclaim(&mut self, id: &NodeId) {
        let keys = self.needed_record.managed.due(id).keys;
        if !keys.is_empty() {
            self.owned().add(id, keys);
        }
    }

    /// A device has moved into the fleet or out of it, or is lacking in the list.
    pub fn see_device(&mut self, id: &NodeId, device: Option<&Device>, matches: bool, list: u64) {
        // What is recorded for an invalid policy is left as it is.
        let matches = matches || self.is_invalid();
        match device {
            Some(device) => {
                if self.needed_record.owned.unmet().is_some() {
                    self.owned().meet(device);
                }
                self.keys.absent.remove(id);
                if !matches && self.needed_record.owned.known_at(id).is_some() {
                    self.owned().release(id);
                }
            }
            None if self.needed_record.owned.known_at(id).is_some() => {
                self.keys.absent.entry(id.clone()).or_insert(list);
            }
            None => {}
        }
        if !matches {
            self.keys.unsent.remove(id);
            self.keys.unrecorded.remove(id);
        }
    }

    /// Releases devices that are proven gone. Says whether there are any.
    fn release_absent(&mut self, fleet: &DeviceIndex, absence: &Absence, list: u64) -> bool {
        if self.needed_record.owned.unmet().is_some() && list > self.keys.met_at + 1 {
            self.owned().forget_record();
        }
        if self.is_invalid() {
            return false;
        }
        let mut gone: Vec<NodeId> = Vec::new();
        self.keys.absent.retain(|id, first| {
            let is_absent = fleet.get(id).is_none();
            let is_gone = is_absent && list > *first && absence.is_gone(id);
            if is_gone {
                gone.push(id.clone());
            }
            is_absent && !is_gone
        });
        for id in &gone {
            self.owned().release(id);
        }
        !gone.is_empty()
    }

    /// The policy no longer owns a key that it declares with an expiry that has passed: the server removes
    /// the attribute, and what somebody sets there later is theirs.
    pub fn disown_expired(&mut self, now: Timestamp) {
        let Ok(policy) = &self.policy else {
            return;
        };
        let declared = policy.desired.attributes.iter().flatten();
        let expired = declared.filter(|(_, desired)| desired.has_expired(now));
        let expired: BTreeSet<AttributeKey> = expired.map(|(key, _)| key.clone()).collect();
        if !expired.is_disjoint(&self.needed_record.owned.names()) {
            self.owned().disown(&expired);
        }
    }

    /// Of the keys on a device, keeps those that the policy still owns.
    fn settle_keys(
        &mut self,
        id: &NodeId,
        kept: impl Fn(&Policy, &AttributeKey) -> bool,
        expired: impl Fn(&Policy, &AttributeKey) -> bool,
    ) {
        let (Ok(policy), Some(owned)) = (&self.policy, self.needed_record.owned.known_at(id))
        else {
            return;
        };
        let all = policy.desired.attributes.is_none() && !self.is_invalid();
        let actions = matches!(policy.mode, Mode::Enforce | Mode::Approve);
        let goes =
            |key: &&AttributeKey| all || expired(policy, key) || (actions && !kept(policy, key));
        let goes: BTreeSet<AttributeKey> = owned.iter().filter(goes).cloned().collect();
        if !goes.is_empty() {
            self.owned().retain(id, |key| !goes.contains(key));
        }
    }

    /// The policy comes to own the keys that it manages on a device; of these, `open` are to be set.
    /// Says whether that is news.
    fn adopt(
        &mut self,
        id: &NodeId,
        managed: &BTreeSet<AttributeKey>,
        open: &BTreeSet<AttributeKey>,
    ) -> bool {
        if let Some(unsent) = self.keys.unsent.remove(id) {
            let held: BTreeSet<_> = unsent.difference(managed).cloned().collect();
            let unsent: BTreeSet<_> = unsent.intersection(open).cloned().collect();
            if !held.is_empty() {
                self.owned().retain(id, |key| !held.contains(key));
            }
            if !unsent.is_empty() {
                self.keys.unsent.insert(id.clone(), unsent);
            }
        }
        let known = self.needed_record.owned.known_at(id);
        let is_new = |key: &&AttributeKey| !known.is_some_and(|known| known.contains(*key));
        let new: BTreeSet<AttributeKey> = managed.iter().filter(is_new).cloned().collect();
        if new.is_empty() || self.keys.unrecorded.contains(id) {
            return false;
        }
        let unsent: Vec<AttributeKey> = new.intersection(open).cloned().collect();
        if !unsent.is_empty() {
            self.keys
                .unsent
                .entry(id.clone())
                .or_default()
                .extend(unsent);
        }
        self.owned().add(id, new);
        true
    }

    /// A request that sets attributes of a device was sent for the policy.
    pub fn attributes_sent(&mut self, id: &NodeId) {
        self.keys.unsent.remove(id);
    }

    /// Makes the record anew where something has changed. Gives the devices that it has no room for.
    fn record(&mut self, fleet: &DeviceIndex, room: Capacity) -> BTreeSet<NodeId> {
        if let Some(record) = self.needed_record.owned.untouched() {
            self.keys.record = Arc::clone(record);
            return BTreeSet::new();
        }
        let of = self.keys.of.as_ref();
        let is_same = of.is_some_and(|of| {
            Arc::ptr_eq(of, &self.needed_record.owned) || *of == self.needed_record.owned
        }) || (self.keys.record.numbers.is_some()
            && self.keys.record.says(&self.needed_record.owned, fleet));
        let mut left_out = BTreeSet::new();
        if !is_same {
            let (record, without_room) = OwnedRecord::of(&self.needed_record.owned, fleet, room);
            self.keys.record = Arc::new(record);
            left_out = without_room;
            for id in &left_out {
                self.owned().release(id);
            }
            self.keys.unrecorded.extend(left_out.iter().cloned());
        }
        self.keys.of = Some(Arc::clone(&self.needed_record.owned));
        left_out
    }
}

impl Engine {
    /// Settles which keys the policies of a device no longer own there. A deleted key is owned until it
    /// has been seen that it is gone; a key that another policy declares here is that one's; and a value
    /// whose expiry has passed is no longer desired.
    pub(super) fn update_ownership(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.devices.get(id) else {
            return;
        };
        let device = self.index.get(id);
        // What no rule allows here keeps no key from being deleted, nor what the tailnet has otherwise.
        let guardrails = &self.admission.guardrails;
        let counts = |policy: &Policy| {
            let field = PolicyField::PostureAttributes;
            let denied = device.and_then(|device| guardrails.denies(policy, field, device));
            denied.is_none() && policy.mode != Mode::Observe
        };
        let types = &self.tailnet_wide.types;
        let can_hold = |key: &AttributeKey, desired: &DesiredAttribute| {
            types.against(&AttributeType::of(key, desired)).is_none()
        };
        let declared: BTreeSet<AttributeKey> = node
            .policies
            .iter()
            .filter_map(|key| self.policies.get(key)?.policy.as_ref().ok())
            .filter(|policy| counts(policy))
            .filter_map(|policy| policy.desired.attributes.as_ref())
            .flatten()
            .filter(|(key, desired)| !desired.has_expired(now.wall) && can_hold(key, desired))
            .map(|(key, _)| key.clone())
            .collect();
        let gone = |key: &AttributeKey| {
            let read = node.attributes.as_ref();
            read.is_some_and(|reading| !reading.values.contains_key(key))
                && !node.unverified.contains_key(&Field::Attribute(key.clone()))
        };
        let kept = |policy: &Policy, key: &AttributeKey| {
            let own = policy.desired.attributes.as_ref();
            own.is_some_and(|own| own.contains_key(key)) || (!declared.contains(key) && !gone(key))
        };
        let expired = |policy: &Policy, key: &AttributeKey| policy.has_expired(key, now.wall);
        for key in &node.policies {
            if let Some(held) = self.policies.get_mut(key) {
                held.settle_keys(id, kept, expired);
            }
        }
    }

    /// The policies of a device come to own the keys that they manage there, as the plan has found.
    pub(super) fn adopt_keys(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.devices.get(id) else {
            return;
        };
        // What is under way may have been sent: whether it is owned turns out with its answer.
        if node.plan.attributes_unread || !node.plan.owners.need_attributes() || node.busy > 0 {
            return;
        }
        let open = node.plan.differences.iter().filter(|it| it.hold.is_none());
        let open = open.filter_map(|difference| match difference.change.field() {
            Field::Attribute(key) => Some(key),
            _ => None,
        });
        let open: BTreeSet<AttributeKey> = open.collect();
        let nothing = BTreeSet::new();
        let mut is_new = false;
        for key in &node.policies {
            let managed = node.plan.managed.get(key).unwrap_or(&nothing);
            if let Some(held) = self.policies.get_mut(key) {
                is_new |= held.adopt(id, managed, &open);
            }
        }
        if is_new && !open.is_empty() {
            self.waiting_records.devices += 1;
            self.waiting_records.since.get_or_insert(now.monotonic);
        }
    }

    /// What was sent, and may have had an effect, is owned.
    pub(super) fn note_sent(&mut self, call: &Call) {
        let Call::WriteAttributes(nodes) = call else {
            return;
        };
        for id in nodes.keys() {
            let policies = self.devices.get(id).map(|node| &node.policies);
            for key in policies.into_iter().flatten() {
                if let Some(held) = self.policies.get_mut(key) {
                    held.attributes_sent(id);
                }
            }
        }
    }

    /// A list has come: devices may be proven gone since the last one.
    pub(super) fn release_absent(&mut self) {
        let list = self.polling.seen;
        if self.released_at == list {
            return;
        }
        self.released_at = list;
        for (key, held) in &mut self.policies {
            if held.release_absent(&self.index, &self.absence, list) {
                self.dirty_statuses.insert(key.clone());
            }
        }
    }

    /// Makes the record of the keys that a policy owns, for its report.
    pub(super) fn record_keys(&mut self, key: &PolicyKey) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        let left_out = held.record(&self.index, self.record_capacity);
        self.dirty_steps.extend(left_out);
    }

    /// Whether devices that wait for a record are to be recorded now: they are many, they have waited
    /// for a while, or nothing is on its way that could bring others.
    pub(super) fn count_waiting_records(&mut self, now: Now) {
        let waiting = &mut self.waiting_records;
        let nothing_comes = self.in_flight.is_empty() && self.queues.next_ready().is_none();
        waiting.is_due = waiting.since.is_some_and(|since| {
            waiting.devices >= MANY_WAITING || nothing_comes || now.monotonic >= since + PATIENCE
        });
        if waiting.is_due {
            waiting.devices = 0;
            waiting.since = None;
        }
    }

    /// When devices have waited for others long enough.
    pub(super) fn records_due_at(&self) -> Option<Duration> {
        let since = self.waiting_records.since.filter(|_| self.leads());
        since.map(|since| since + PATIENCE)
    }

    /// Whether something must be recorded now that is not yet.
    pub(super) fn must_record(&self, key: &PolicyKey) -> bool {
        let Some(held) = self.policies.get(key) else {
            return false;
        };
        if !held.durable_record.covers_all_but_keys(&held.needed_record) {
            return true;
        }
        let is_due = self.waiting_records.is_due || held.nodes().nth(FEW).is_none();
        is_due && !held.durable_record.covers(&held.needed_record)
    }
}
