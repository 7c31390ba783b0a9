//! The attribute keys that policies own: when they come to own one, when they no longer do, and when that is
//! recorded.
//!
//! A policy comes to own a key on a device once the device's attributes have been read and the policy sets
//! the key there, or would if it differed. It owns the key until the device no longer has it, until another
//! policy declares it, or until the device is released. The record of a device must be durable before its
//! attributes are written. The records of many devices of one policy are written together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{PolicyEntry, key_record::KeyRecord};
use crate::{
    model::{AttributeKey, Device, NodeId},
    plan::{Binding, Capacity, Deletion, DeviceIndex, Mode, OwnedKeys, OwnedRecord, Policy},
    tailnet::{absence::Absence, mutants::mutant},
};

impl PolicyEntry {
    /// The record of the owned keys, as of the last report.
    pub const fn owned_record(&self) -> &Arc<OwnedRecord> {
        self.keys.record()
    }

    /// The number of devices for which the record has no capacity.
    pub fn unrecorded(&self) -> usize {
        self.keys.unrecorded()
    }

    fn owned(&mut self) -> &mut OwnedKeys {
        Arc::make_mut(&mut self.records.needed_mut().owned)
    }

    /// Restores the owned keys from the status, for the devices of the first list.
    pub fn meet_devices(&mut self, index: &DeviceIndex, list: u64) {
        let record = self.needed_record().owned.unmet().cloned();
        if let Some(record) = record.filter(|_| self.needed_record().owned.is_new()) {
            self.records.meet_all(index);
            self.keys = KeyRecord::met(record, list);
        }
        if list > 0 && self.keys.start_reclaiming() {
            self.reclaim_bound();
        }
    }

    /// Reclaims the devices that were bound before this process led, once in a term.
    fn reclaim_bound(&mut self) {
        let Some(binding) = self.targets.binding() else {
            return;
        };
        let due = self.needed_record().managed.released_devices();
        let due = due.into_iter().filter(|id| binding.holds(id));
        let due: Vec<NodeId> = due.cloned().collect();
        for id in &due {
            self.reclaim(id);
        }
    }

    /// Releases the devices that the policy no longer targets: it owns nothing there. A device on which the
    /// selector fails is kept, and so is a missing one, as the next list may have it, and one that `waits`: its
    /// keys may have to be cleared.
    pub fn release_unmatched(
        &mut self,
        binding: Option<&Binding>,
        index: &DeviceIndex,
        waits: impl Fn(&NodeId) -> bool,
        list: u64,
    ) {
        if self.is_invalid() {
            return;
        }
        let mut released: Vec<NodeId> = Vec::new();
        for id in self.records.needed().owned.nodes() {
            match binding {
                Some(Binding::Device(target)) if id != target => released.push(id.clone()),
                Some(Binding::Selector(nodes))
                    if nodes.contains(id) || self.targets.has_error(id) => {}
                // A list that lacks the device decides nothing (docs/decisions/0013).
                Some(Binding::Selector(_)) if index.get(id).is_none() => {
                    self.keys.note_absent(id, list);
                }
                Some(Binding::Selector(_))
                    if self.records.needed().managed.nodes.contains(id) && waits(id) => {}
                Some(Binding::Selector(_)) => released.push(id.clone()),
                _ => {}
            }
        }
        for id in &released {
            self.keys.take_unsent(id);
            self.owned().release(id);
        }
    }

    /// A device that was released under `Clear`, and is not cleared yet, is targeted again: the policy owns
    /// its keys there as before.
    pub fn reclaim(&mut self, id: &NodeId) {
        let keys = self.needed_record().managed.due(id).keys;
        if !keys.is_empty() {
            self.owned().add(id, keys);
        }
    }

    /// Notes that a device matches the selector or no longer does, or is missing from the list.
    pub fn see_device(&mut self, id: &NodeId, device: Option<&Device>, matches: bool, list: u64) {
        // The record of an invalid policy stays as it is.
        let matches = matches || self.is_invalid();
        match device {
            Some(device) => {
                if self.needed_record().owned.unmet().is_some() {
                    self.owned().meet(device);
                }
                // A list that has the device ends the doubt that one without it has raised.
                self.keys.note_present(id);
                if !matches && self.needed_record().owned.known_at(id).is_some() {
                    self.owned().release(id);
                }
            }
            None if self.needed_record().owned.known_at(id).is_some() => {
                self.keys.note_absent(id, list);
            }
            None => {}
        }
        if !matches {
            self.keys.forget(id);
        }
    }

    /// Releases devices that are proven gone. Returns whether there are any.
    pub fn release_absent(&mut self, index: &DeviceIndex, absence: &Absence, list: u64) -> bool {
        if self.needed_record().owned.unmet().is_some() && self.keys.is_after_first_lists(list) {
            self.owned().forget_record();
        }
        if self.is_invalid() {
            return false;
        }
        let gone = self.keys.take_gone(index, absence, list);
        for id in &gone {
            self.owned().release(id);
        }
        !gone.is_empty()
    }

    /// The policy no longer owns a key that it declares with an expiry that has passed: the server removes
    /// the attribute, and a value that someone sets later is theirs.
    pub fn disown_expired(&mut self, now: Timestamp) {
        let Ok(policy) = self.policy.as_deref() else {
            return;
        };
        let declared = policy.desired.attributes.iter().flatten();
        let mut expired: BTreeSet<AttributeKey> = declared
            .filter(|(_, desired)| desired.has_expired(now))
            .map(|(key, _)| key.clone())
            .collect();
        // A key may have expired, and been taken out of the spec, while no controller ran.
        expired.extend(self.needed_record().key_expiries.expired(now));
        if !expired.is_disjoint(&self.needed_record().owned.names()) {
            self.owned().disown(&expired);
        }
    }

    /// Records the expiries that the policy declares. Returns whether they have changed.
    pub fn record_expiries(&mut self) -> bool {
        let Some(policy) = self.policy.as_deref().ok().filter(|_| !self.is_invalid()) else {
            return false;
        };
        // A policy that sends nothing comes to own nothing.
        let declared = match (policy.mode, &policy.desired.attributes) {
            (Mode::Enforce | Mode::Approve, Some(declared)) => declared,
            _ => &BTreeMap::new(),
        };
        let before = &self.needed_record().key_expiries;
        let after = before.after(declared, &self.needed_record().owned.names());
        let has_changed = after != *before;
        self.records.needed_mut().key_expiries = after;
        has_changed
    }

    /// Drops keys that the policy would have set for the first time and no longer declares: a value that the
    /// device has by now is not the policy's. Not while a request is in flight that may set them.
    pub fn drop_never_set(&mut self, id: &NodeId) {
        let (Ok(policy), Some(unsent)) = (&self.policy, self.keys.unsent(id)) else {
            return;
        };
        let declared = policy.desired.attributes.as_ref();
        let (still, dropped): (BTreeSet<_>, BTreeSet<_>) = unsent
            .iter()
            .partition(|key| declared.is_some_and(|it| it.contains_key(*key)));
        if self.is_invalid() || dropped.is_empty() {
            return;
        }
        let still = still.into_iter().cloned().collect();
        let dropped: BTreeSet<AttributeKey> = dropped.into_iter().cloned().collect();
        self.keys.set_unsent(id, still);
        self.owned().retain(id, |key| !dropped.contains(key));
    }

    /// Under `Clear`, a policy without `postureAttributes` clears the keys that it owns on a device. Most are
    /// released with the field; these are on a device that was not listed then. Returns whether there are any.
    pub fn clear_late_keys(&mut self, id: &NodeId) -> bool {
        let clears = |policy: &Policy| policy.clears() && policy.desired.attributes.is_none();
        let is_due = self.policy.as_deref().is_ok_and(clears)
            && !self.is_invalid()
            && self.needed_record().owned.known_at(id).is_some();
        if is_due {
            self.records.needed_mut().clear_keys(id);
        }
        is_due
    }

    /// Drops the keys on a device that the policy no longer owns.
    pub fn drop_keys(
        &mut self,
        id: &NodeId,
        kept: impl Fn(&Policy, &AttributeKey) -> bool,
        expired: impl Fn(&Policy, &AttributeKey) -> bool,
    ) {
        let (Ok(policy), Some(owned)) = (&self.policy, self.needed_record().owned.known_at(id))
        else {
            return;
        };
        // Under `Clear`, a policy that sends nothing now clears them later.
        let all = policy.desired.attributes.is_none()
            && policy.deletion == Deletion::Retain
            && !self.is_invalid();
        let actions = matches!(policy.mode, Mode::Enforce | Mode::Approve);
        let dropped: BTreeSet<AttributeKey> = owned
            .iter()
            .filter(|key| all || expired(policy, key) || (actions && !kept(policy, key)))
            .cloned()
            .collect();
        if !dropped.is_empty() {
            self.owned().retain(id, |key| !dropped.contains(key));
        }
    }

    /// The policy comes to own the keys that it manages on a device. `open`: the keys that will be set.
    /// Returns whether anything is new.
    pub fn adopt(
        &mut self,
        id: &NodeId,
        managed: &BTreeSet<AttributeKey>,
        open: &BTreeSet<AttributeKey>,
    ) -> bool {
        if let Some(unsent) = self.keys.take_unsent(id) {
            let held: BTreeSet<_> = unsent.difference(managed).cloned().collect();
            let unsent: BTreeSet<_> = unsent.intersection(open).cloned().collect();
            if !held.is_empty() {
                self.owned().retain(id, |key| !held.contains(key));
            }
            self.keys.set_unsent(id, unsent);
        }
        let everywhere =
            mutant!(KeysAreOwnedByPolicy).then(|| managed | &self.needed_record().owned.names());
        let managed = everywhere.as_ref().unwrap_or(managed);
        let known = self.needed_record().owned.known_at(id);
        let new: BTreeSet<AttributeKey> = managed
            .iter()
            .filter(|key| !known.is_some_and(|known| known.contains(*key)))
            .cloned()
            .collect();
        // A key without room in the record would be owned only until the next start.
        if new.is_empty() || self.keys.is_unrecorded(id) {
            return false;
        }
        let unsent = new.intersection(open).cloned().collect();
        self.keys.add_unsent(id, unsent);
        self.owned().add(id, new);
        true
    }

    /// A request that sets attributes of a device was sent for the policy.
    pub fn attributes_sent(&mut self, id: &NodeId) {
        self.keys.take_unsent(id);
    }

    /// Makes the record again if something has changed. Returns the devices that exceed its capacity.
    pub fn record(&mut self, index: &DeviceIndex, room: Capacity) -> BTreeSet<NodeId> {
        let owned = Arc::clone(&self.needed_record().owned);
        if let Some(record) = owned.untouched() {
            self.keys.keep(record);
            return BTreeSet::new();
        }
        let left_out = self.keys.make(&owned, index, room);
        for id in &left_out {
            self.owned().release(id);
        }
        let owned = Arc::clone(&self.needed_record().owned);
        self.keys.note_made_of(&owned);
        left_out
    }
}
