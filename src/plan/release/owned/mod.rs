//! The attribute keys that a policy owns on each device.
//!
//! A key that a policy no longer declares is deleted only where its status records that the policy managed it:
//! on this device, in this tailnet. [`OwnedRecord`] is the form that fits into a status.

mod capacity;
mod digest;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use self::{
    capacity::Capacity,
    digest::Digest,
    record::{OwnedGroup, OwnedRecord},
};
use crate::model::{AttributeKey, Device, NodeId};
use crate::plan::DeviceIndex;

/// Attribute keys of a device. Shared, because most devices of a policy have the same keys.
type Keys = Arc<BTreeSet<AttributeKey>>;

/// The attribute keys that a policy owns, for each device that it manages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OwnedKeys {
    by_device: BTreeMap<NodeId, Keys>,
    /// The record of a status, for the devices that have not been listed since it was read.
    unmet: Option<Unmet>,
}

/// A record, and the devices for which it has been applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Unmet {
    record: Arc<OwnedRecord>,
    met: Arc<BTreeSet<NodeId>>,
}

impl OwnedKeys {
    /// These keys on one device.
    #[must_use]
    pub fn on(id: &NodeId, keys: BTreeSet<AttributeKey>) -> Self {
        let mut owned = Self::default();
        owned.add(id, keys);
        owned
    }

    /// Everything that a status records.
    #[must_use]
    pub fn recorded(record: OwnedRecord) -> Self {
        let unmet = (!record.is_empty()).then(|| Unmet {
            record: Arc::new(record),
            met: Arc::default(),
        });
        Self {
            unmet,
            ..Self::default()
        }
    }

    /// Whether the policy owns no key on any device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_device.is_empty() && self.unmet.is_none()
    }

    /// The keys that the policy owns on a device, whether or not the record has been applied for it.
    #[must_use]
    pub fn at(&self, device: &Device) -> Keys {
        let known = self.by_device.get(&device.node_id);
        let unmet = self.unmet.as_ref();
        let unmet = unmet.filter(|unmet| !unmet.met.contains(&device.node_id));
        match (known, unmet.and_then(|unmet| unmet.record.at(device))) {
            (None, None) => Arc::default(),
            (Some(known), None) => Arc::clone(known),
            (None, Some(recorded)) => Arc::new(recorded.clone()),
            // The policy may have come to own keys here before the record was applied.
            (Some(known), Some(recorded)) => Arc::new(known.union(recorded).cloned().collect()),
        }
    }

    /// The keys on a device for which the record has been applied.
    #[must_use]
    pub fn known_at(&self, id: &NodeId) -> Option<&BTreeSet<AttributeKey>> {
        self.by_device.get(id).map(AsRef::as_ref)
    }

    /// The devices for which the record has been applied and on which the policy owns keys.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.by_device.keys()
    }

    /// All keys that the policy owns on any device.
    #[must_use]
    pub fn names(&self) -> BTreeSet<AttributeKey> {
        let mut names = BTreeSet::new();
        // The devices share a few sets, and neighbors mostly the same: thousands are not added one by one.
        let mut last: Option<&Keys> = None;
        for keys in self.by_device.values() {
            if !last.is_some_and(|last| Arc::ptr_eq(last, keys)) {
                names.extend(keys.iter().cloned());
            }
            last = Some(keys);
        }
        if let Some(unmet) = &self.unmet {
            names.extend(unmet.record.names().cloned());
        }
        names
    }

    /// The devices, by the keys that the policy owns there.
    #[must_use]
    pub fn groups(&self) -> BTreeMap<&BTreeSet<AttributeKey>, Vec<&NodeId>> {
        let mut groups: BTreeMap<&BTreeSet<AttributeKey>, Vec<&NodeId>> = BTreeMap::new();
        for (id, keys) in &self.by_device {
            groups.entry(keys).or_default().push(id);
        }
        groups
    }

    /// Adds keys that the policy owns on a device.
    pub fn add(&mut self, id: &NodeId, keys: impl IntoIterator<Item = AttributeKey>) {
        let before = self.by_device.get(id);
        let mut all: BTreeSet<AttributeKey> = before.map(|it| (**it).clone()).unwrap_or_default();
        all.extend(keys);
        self.set(id, all);
    }

    /// Keeps the keys on a device that meet the condition. Returns whether one was removed.
    pub fn retain(&mut self, id: &NodeId, keep: impl Fn(&AttributeKey) -> bool) -> bool {
        let Some(keys) = self.by_device.get(id) else {
            return false;
        };
        // The set is shared with other devices, and must not be copied without a change.
        if keys.iter().all(&keep) {
            return false;
        }
        let kept = keys.iter().filter(|key| keep(key)).cloned().collect();
        self.set(id, kept);
        true
    }

    /// Removes these keys from all devices.
    pub fn disown(&mut self, keys: &BTreeSet<AttributeKey>) {
        // Devices that shared a set share the new one too.
        let mut before: Option<(Keys, Keys)> = None;
        self.by_device.retain(|_, owned| {
            let kept = match &before {
                Some((same, kept)) if Arc::ptr_eq(same, owned) => Arc::clone(kept),
                _ if owned.is_disjoint(keys) => Arc::clone(owned),
                _ => Arc::new(owned.difference(keys).cloned().collect()),
            };
            before = Some((std::mem::replace(owned, Arc::clone(&kept)), kept));
            !owned.is_empty()
        });
    }

    fn set(&mut self, id: &NodeId, keys: BTreeSet<AttributeKey>) {
        if keys.is_empty() {
            self.by_device.remove(id);
            return;
        }
        // Most devices of a policy have the same keys, so one comparison usually finds a set to share.
        let some_other = self.by_device.values().next();
        let shared = some_other.filter(|other| ***other == keys).cloned();
        let keys = shared.unwrap_or_else(|| Arc::new(keys));
        self.by_device.insert(id.clone(), keys);
    }

    /// Removes a device that the policy no longer manages. Returns whether it owned keys there.
    pub fn release(&mut self, id: &NodeId) -> bool {
        self.by_device.remove(id).is_some()
    }

    /// Applies the record for the devices of a complete list.
    pub fn meet_all(&mut self, index: &DeviceIndex) {
        let unmet = self.unmet.as_ref().filter(|_| self.is_new());
        let Some(record) = unmet.map(|unmet| Arc::clone(&unmet.record)) else {
            return;
        };
        for device in index.devices() {
            let keys = self.at(device);
            if !keys.is_empty() {
                self.set(&device.node_id, (*keys).clone());
            }
        }
        // A device that is missing from this list may be in the next one.
        let absent = record.listed().filter(|(id, _)| index.get(id).is_none());
        for (id, keys) in absent {
            self.add(id, keys.iter().cloned());
        }
        let met = index.devices().map(|device| device.node_id.clone());
        let met = Arc::new(met.collect());
        // Every device of the groups has its keys by now. Those of a digest show only when they are seen.
        self.unmet = record.numbers.is_some().then_some(Unmet { record, met });
    }

    /// Applies the record for a device that was missing from the earlier lists.
    pub fn meet(&mut self, device: &Device) {
        let id = &device.node_id;
        if self
            .unmet
            .as_ref()
            .is_none_or(|unmet| unmet.met.contains(id))
        {
            return;
        }
        let keys = self.at(device);
        self.set(id, (*keys).clone());
        // Once for each device: a key that the policy no longer owns must not come back from the record.
        if let Some(unmet) = &mut self.unmet {
            Arc::make_mut(&mut unmet.met).insert(id.clone());
        }
    }

    /// Drops the record, once it has been applied for all of its devices, or they are gone.
    pub fn forget_record(&mut self) {
        self.unmet = None;
    }

    /// The record that was read, while there may be devices for which it has not been applied.
    #[must_use]
    pub fn unmet(&self) -> Option<&Arc<OwnedRecord>> {
        self.unmet.as_ref().map(|unmet| &unmet.record)
    }

    /// Whether a record was read and has not been applied for any device.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.unmet
            .as_ref()
            .is_some_and(|unmet| unmet.met.is_empty())
    }

    /// The record that was read, if it has not been applied for any device and is unchanged.
    #[must_use]
    pub fn untouched(&self) -> Option<&Arc<OwnedRecord>> {
        let unmet = self.unmet.as_ref()?;
        (self.by_device.is_empty() && unmet.met.is_empty()).then_some(&unmet.record)
    }

    /// Whether this contains all keys that `needed` has on a device.
    #[must_use]
    pub fn covers_at(&self, id: &NodeId, needed: &Self) -> bool {
        let Some(needed) = needed.by_device.get(id) else {
            return true;
        };
        let known = self.by_device.get(id);
        known.is_some_and(|known| Arc::ptr_eq(known, needed) || known.is_superset(needed))
    }

    /// Whether this contains all keys that `needed` has.
    #[must_use]
    pub fn covers(&self, needed: &Self) -> bool {
        let mut nodes = needed.by_device.keys();
        nodes.all(|id| self.covers_at(id, needed))
    }
}
