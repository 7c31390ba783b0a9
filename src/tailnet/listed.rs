//! The devices of a list on their way into the snapshot.
//!
//! Most lists say the same as the last one: only what differs is kept, and the snapshot is changed in place.

use std::collections::{HashMap, HashSet};

use crate::{
    model::{Device, NodeId},
    plan::DeviceIndex,
};

/// The devices that the next snapshot has.
#[derive(Debug, Default)]
pub(super) struct ListedDevices {
    /// Each device of the list, and whether it is only shared in.
    external: HashMap<NodeId, bool>,
    /// Those that the snapshot has differently or lacks, in the order of the list: where two have one address,
    /// the first of them holds it.
    changed: Vec<Device>,
    /// Devices that the list lacks and that stay in the snapshot.
    missing: HashSet<NodeId>,
}

impl ListedDevices {
    /// A device as the list has it. `known`: as the snapshot has it.
    pub fn put(&mut self, device: Device, known: Option<&Device>) {
        self.external
            .insert(device.node_id.clone(), device.external);
        if known != Some(&device) {
            self.changed.push(device);
        }
    }

    /// The list has a device, which stays as the snapshot has it.
    pub fn keep(&mut self, known: &Device) {
        self.external.insert(known.node_id.clone(), known.external);
    }

    /// The list lacks a device, which stays in the snapshot for now.
    pub fn keep_missing(&mut self, id: &NodeId) {
        self.missing.insert(id.clone());
    }

    /// Whether the list has a device, its own or one that is shared in.
    pub fn has(&self, id: &NodeId) -> bool {
        self.external.contains_key(id)
    }

    /// Whether the list lacks a device, or has it only as one that is shared in.
    pub fn lacks(&self, id: &NodeId) -> bool {
        self.external.get(id).is_none_or(|external| *external)
    }

    /// Changes the snapshot into this one.
    pub fn apply(self, index: &mut DeviceIndex) {
        let lacking = index.devices().filter(|known| !self.has(&known.node_id));
        let lacking: Vec<Device> = lacking.cloned().collect();
        for device in &lacking {
            index.remove(&device.node_id);
        }
        for device in self.changed {
            index.insert(device);
        }
        // Last, so that an address belongs to the device that the list has.
        for device in lacking {
            if self.missing.contains(&device.node_id) {
                index.insert(device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, hostname: &str) -> Device {
        Device {
            hostname: hostname.to_owned(),
            ipv4: Some([100, 80, 0, 1].into()),
            ..Device::plain(id.parse().unwrap())
        }
    }

    #[test]
    fn only_what_differs_changes_the_snapshot() {
        let (same, before, gone) = (device("n1", "a"), device("n2", "b"), device("n3", "c"));
        let mut index = DeviceIndex::new([same.clone(), before.clone(), gone.clone()]);
        let (after, new) = (device("n2", "z"), device("n4", "d"));
        let mut listed = ListedDevices::default();
        listed.put(same.clone(), index.get(&same.node_id));
        listed.put(after.clone(), index.get(&before.node_id));
        listed.put(new.clone(), None);
        assert!(listed.lacks(&gone.node_id) && !listed.lacks(&same.node_id));
        listed.apply(&mut index);
        let found: Vec<&Device> = index.devices().collect();
        assert_eq!(found, [&same, &after, &new]);
    }

    #[test]
    fn a_missing_device_stays_and_gives_its_address_to_the_one_that_is_listed() {
        let (old, new) = (device("n1", "fra"), device("n2", "fra"));
        let mut index = DeviceIndex::new([old.clone()]);
        let mut listed = ListedDevices::default();
        listed.put(new.clone(), None);
        listed.keep_missing(&old.node_id);
        listed.apply(&mut index);
        assert_eq!(index.devices().count(), 2);
        let addr = [100, 80, 0, 1].into();
        assert_eq!(
            index.holder_of(addr).map(|it| &it.node_id),
            Some(&new.node_id)
        );
    }

    #[test]
    fn a_device_that_is_only_shared_in_counts_as_lacking() {
        let shared = Device {
            external: true,
            ..device("n1", "fra")
        };
        let mut listed = ListedDevices::default();
        listed.keep(&shared);
        assert!(listed.lacks(&shared.node_id));
    }
}
