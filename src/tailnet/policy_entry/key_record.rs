//! What the engine remembers of a policy's owned keys besides the keys: their record in the status, and the
//! devices about which it is not certain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    model::{AttributeKey, NodeId},
    plan::{Capacity, DeviceIndex, OwnedKeys, OwnedRecord},
    tailnet::absence::Absence,
};

/// The record of the keys that a policy owns.
#[derive(Debug, Default)]
pub(super) struct KeyRecord {
    /// The record in the status, or in the next report.
    record: Arc<OwnedRecord>,
    /// The keys that the record was made from.
    of: Option<Arc<OwnedKeys>>,
    /// Keys that will be set for the first time, by device: the policy owns them from the request on. If the
    /// request is held before it is sent, the policy has not come to own them.
    unsent: BTreeMap<NodeId, BTreeSet<AttributeKey>>,
    /// Devices for which the record has no capacity, so that the policy owns nothing there.
    unrecorded: BTreeSet<NodeId>,
    /// Devices that are missing, with the number of the first list that lacks them.
    absent: BTreeMap<NodeId, u64>,
    /// The number of the list whose devices were matched with the record first.
    met_at: u64,
    /// Whether the devices that were bound before the term began are reclaimed.
    has_reclaimed: bool,
}

impl KeyRecord {
    /// The record of a status, whose devices are matched with this list first.
    pub fn met(record: Arc<OwnedRecord>, list: u64) -> Self {
        Self {
            record,
            met_at: list,
            ..Self::default()
        }
    }

    /// Returns `true` for the first time.
    pub const fn start_reclaiming(&mut self) -> bool {
        !std::mem::replace(&mut self.has_reclaimed, true)
    }

    /// The record in the status, or in the next report.
    pub const fn record(&self) -> &Arc<OwnedRecord> {
        &self.record
    }

    /// The record of the status is still the right one.
    pub fn keep(&mut self, record: &Arc<OwnedRecord>) {
        self.record = Arc::clone(record);
    }

    /// Makes the record again if the keys have changed. Returns the devices that exceed its capacity: the
    /// policy owns nothing there.
    pub fn make(
        &mut self,
        owned: &Arc<OwnedKeys>,
        index: &DeviceIndex,
        room: Capacity,
    ) -> BTreeSet<NodeId> {
        let of = self.of.as_ref();
        // The pointers first, as the records of ten thousand devices take time to compare.
        let is_same = of.is_some_and(|of| Arc::ptr_eq(of, owned) || of == owned)
            || (self.record.numbers.is_some() && self.record.says(owned, index));
        if is_same {
            return BTreeSet::new();
        }
        let (record, without_room) = OwnedRecord::of(owned, index, room);
        self.record = Arc::new(record);
        // Noted, so that no request is sent that a crash would leave without an owner.
        self.unrecorded.extend(without_room.iter().cloned());
        without_room
    }

    /// The record was made from these keys.
    pub fn note_made_of(&mut self, owned: &Arc<OwnedKeys>) {
        self.of = Some(Arc::clone(owned));
    }

    /// The number of devices for which the record has no capacity.
    pub fn unrecorded(&self) -> usize {
        self.unrecorded.len()
    }

    /// Whether the record has no capacity for a device.
    pub fn is_unrecorded(&self, id: &NodeId) -> bool {
        self.unrecorded.contains(id)
    }

    /// Whether this list is a later one than the two that decide which devices the record of the status is
    /// about.
    pub const fn is_after_first_lists(&self, list: u64) -> bool {
        list > self.met_at + 1
    }

    /// This list lacks a device.
    pub fn note_absent(&mut self, id: &NodeId, list: u64) {
        self.absent.entry(id.clone()).or_insert(list);
    }

    /// A device is listed.
    pub fn note_present(&mut self, id: &NodeId) {
        self.absent.remove(id);
    }

    /// Takes the missing devices that are proven gone by now. Forgets those that are listed again.
    pub fn take_gone(&mut self, index: &DeviceIndex, absence: &Absence, list: u64) -> Vec<NodeId> {
        let mut gone: Vec<NodeId> = Vec::new();
        self.absent.retain(|id, first| {
            let is_absent = index.get(id).is_none();
            // Two lists, as everywhere: the first one that lacks a device proves nothing.
            let is_gone = is_absent && list > *first && absence.is_gone(id);
            if is_gone {
                gone.push(id.clone());
            }
            is_absent && !is_gone
        });
        gone
    }

    /// Keys of a device that will be set for the first time.
    pub fn unsent(&self, id: &NodeId) -> Option<&BTreeSet<AttributeKey>> {
        self.unsent.get(id)
    }

    /// Replaces the keys of a device that will be set for the first time.
    pub fn set_unsent(&mut self, id: &NodeId, keys: BTreeSet<AttributeKey>) {
        if keys.is_empty() {
            self.unsent.remove(id);
        } else {
            self.unsent.insert(id.clone(), keys);
        }
    }

    /// More keys of a device will be set for the first time.
    pub fn add_unsent(&mut self, id: &NodeId, keys: BTreeSet<AttributeKey>) {
        if !keys.is_empty() {
            self.unsent.entry(id.clone()).or_default().extend(keys);
        }
    }

    /// Takes the keys of a device that would have been set for the first time: they are sent, or the policy
    /// no longer targets the device.
    pub fn take_unsent(&mut self, id: &NodeId) -> Option<BTreeSet<AttributeKey>> {
        self.unsent.remove(id)
    }

    /// The policy released all of its keys.
    pub fn forget_unsent(&mut self) {
        self.unsent.clear();
        self.absent.clear();
    }

    /// The policy no longer targets a device: the record may have room for it when it does again.
    pub fn forget(&mut self, id: &NodeId) {
        self.unsent.remove(id);
        self.unrecorded.remove(id);
    }
}
