//! The record of the keys that a policy owns, within a fixed number of bytes of its status.
//!
//! While the nodeIds fit, the record lists them, grouped by the keys that the policy owns there. Beyond that,
//! the largest groups go into a [`Digest`], and the few other devices are listed. Keys that do not fit are not
//! recorded: the policy does not own them, and never deletes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Digest, OwnedGroup, OwnedKeys, OwnedRecord};
use crate::{
    model::{AttributeKey, NodeId},
    plan::DeviceIndex,
};

/// The size limits of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of lists without a digest.
    pub lists: usize,
    /// Bytes of lists with a digest.
    pub few: usize,
    /// Bytes of the keys of the groups in a digest.
    pub keys: usize,
    /// Bits of a digest.
    pub bits: usize,
}

impl Default for Capacity {
    /// About 200 devices in lists, or 10,000 in a digest: at most 10 of the 16 KiB of a status.
    fn default() -> Self {
        Self {
            lists: 4 << 10,
            few: 1 << 10,
            keys: 2 << 10,
            bits: 38_400,
        }
    }
}

impl OwnedRecord {
    /// Records the keys that a policy owns, in a tailnet with these devices. Also returns the devices that do
    /// not fit.
    #[must_use]
    pub fn of(
        owned: &OwnedKeys,
        index: &DeviceIndex,
        capacity: Capacity,
    ) -> (Self, BTreeSet<NodeId>) {
        let mut groups: Vec<(&BTreeSet<AttributeKey>, Vec<&NodeId>)> =
            owned.groups().into_iter().collect();
        let mut record = Self {
            domain: index.domain(),
            ..Self::default()
        };
        // Lists as long as they fit: a digest can mistake a device that no list had for a managed one.
        let all: usize = groups.iter().map(|group| text_of(group)).sum();
        if all <= capacity.lists {
            record.groups = groups.into_iter().map(listed).collect();
            return (record, BTreeSet::new());
        }
        // The smallest first: lists are for few devices, a digest for many. The keys make the order, and so the
        // status, the same each time.
        groups.sort_by_key(|(keys, nodes)| (nodes.len(), *keys));
        let few = count_within(capacity.few, groups.iter().map(text_of));
        let many = groups.split_off(few);
        record.groups = groups.into_iter().map(listed).collect();
        let left_out = record.number(many, index, capacity);
        (record, left_out)
    }

    /// Puts large groups into a digest. Returns the devices that do not fit.
    fn number(
        &mut self,
        mut many: Vec<(&BTreeSet<AttributeKey>, Vec<&NodeId>)>,
        index: &DeviceIndex,
        capacity: Capacity,
    ) -> BTreeSet<NodeId> {
        // The largest group first: groups are left out from the end.
        many.reverse();
        let mut fitting = count_within(
            capacity.keys,
            many.iter().map(|(keys, _)| text_of_keys(keys)),
        );
        let newest = index.devices().filter_map(|device| device.created).max();
        while fitting > 0 {
            let members: BTreeMap<&NodeId, u32> = (1..)
                .zip(&many[..fitting])
                .flat_map(|(number, (_, nodes))| nodes.iter().map(move |id| (*id, number)))
                .collect();
            let others: Vec<&NodeId> = index
                .devices()
                .map(|device| &device.node_id)
                .filter(|id| !members.contains_key(id))
                .collect();
            if let Some(digest) = Digest::new(&members, &others, newest, capacity.bits) {
                self.numbers = Some(Arc::new(digest));
                break;
            }
            // Fewer groups need fewer bits.
            fitting -= 1;
        }
        let (numbered, left_out) = many.split_at(fitting);
        self.numbered = numbered
            .iter()
            .map(|(keys, nodes)| ((*keys).clone(), nodes.len()))
            .collect();
        left_out
            .iter()
            .flat_map(|(_, nodes)| nodes)
            .map(|id| (*id).clone())
            .collect()
    }

    /// Whether it records exactly these keys for all devices of a tailnet.
    #[must_use]
    pub fn says(&self, owned: &OwnedKeys, index: &DeviceIndex) -> bool {
        let listed: BTreeSet<&NodeId> = self.listed().map(|(id, _)| id).collect();
        let mut devices = index.devices();
        let mut absent = owned.nodes().filter(|id| index.get(id).is_none());
        self.domain == index.domain()
            && devices.all(|device| self.at(device) == owned.known_at(&device.node_id))
            && absent.all(|id| listed.contains(id))
    }
}

/// How many of these texts, from the first on, fit into the capacity.
fn count_within(capacity: usize, texts: impl Iterator<Item = usize>) -> usize {
    let sums = texts.scan(0, |sum, text| {
        *sum += text;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= capacity).count()
}

fn listed((keys, nodes): (&BTreeSet<AttributeKey>, Vec<&NodeId>)) -> OwnedGroup {
    OwnedGroup {
        keys: keys.clone(),
        nodes: nodes.into_iter().cloned().collect(),
    }
}

/// The bytes of a group in JSON, with the names of its fields.
fn text_of((keys, nodes): &(&BTreeSet<AttributeKey>, Vec<&NodeId>)) -> usize {
    // Two quotes and a comma each.
    let nodes: usize = nodes.iter().map(|id| id.as_str().len() + 3).sum();
    text_of_keys(keys) + nodes
}

fn text_of_keys(keys: &BTreeSet<AttributeKey>) -> usize {
    let keys: usize = keys.iter().map(|key| key.as_str().len() + 3).sum();
    keys + 40
}
