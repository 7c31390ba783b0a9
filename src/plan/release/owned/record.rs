//! The keys that a policy owns, as its status records them.

use std::{collections::BTreeSet, sync::Arc};

use super::Digest;
use crate::model::{AttributeKey, Device, DeviceField, NodeId};

/// Devices on which a policy owns the same keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OwnedGroup {
    /// The keys.
    pub keys: BTreeSet<AttributeKey>,
    /// The devices.
    pub nodes: BTreeSet<NodeId>,
}

/// The keys that a policy owns, as its status records them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OwnedRecord {
    /// The domain of the devices: the policy owns nothing in another tailnet.
    pub domain: Option<String>,
    /// The listed devices.
    pub groups: Vec<OwnedGroup>,
    /// The groups of the digest: the keys of the devices with the number 1, 2, and so on, and their count.
    pub numbered: Vec<(BTreeSet<AttributeKey>, usize)>,
    /// The number of the group of each device in the digest.
    pub numbers: Option<Arc<Digest>>,
}

impl OwnedRecord {
    /// Whether nothing is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.numbered.is_empty()
    }

    /// The keys on a device.
    #[must_use]
    pub fn at(&self, device: &Device) -> Option<&BTreeSet<AttributeKey>> {
        let is_named = !device.is_unknown(DeviceField::Name);
        let domain = device.name.split_once('.').map(|(_, domain)| domain);
        // The connection may lead to another tailnet by now, in which the policy owns nothing.
        if is_named && self.domain.is_some() && self.domain.as_deref() != domain {
            return None;
        }
        let listed = self
            .groups
            .iter()
            .find(|group| group.nodes.contains(&device.node_id));
        if let Some(listed) = listed {
            return Some(&listed.keys);
        }
        // A nodeId is of one tailnet, but a digest can mistake a device of another tailnet for one of its own.
        if !is_named {
            return None;
        }
        let number = self.numbers.as_ref()?.of(device).checked_sub(1)?;
        let group = self.numbered.get(usize::try_from(number).ok()?);
        group.map(|(keys, _)| keys)
    }

    /// The listed devices, with their keys.
    pub fn listed(&self) -> impl Iterator<Item = (&NodeId, &BTreeSet<AttributeKey>)> {
        let groups = self.groups.iter();
        groups.flat_map(|group| group.nodes.iter().map(|id| (id, &group.keys)))
    }

    /// All keys that it records for any device.
    pub fn names(&self) -> impl Iterator<Item = &AttributeKey> {
        let listed = self.groups.iter().map(|group| &group.keys);
        listed
            .chain(self.numbered.iter().map(|(keys, _)| keys))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::scenes::{key, plain_device};

    #[test]
    fn listed_device_whose_name_cannot_be_read_keeps_its_keys() {
        let device = plain_device();
        let keys = BTreeSet::from([key(0)]);
        let record = OwnedRecord {
            domain: Some("tail1.ts.net".to_owned()),
            groups: vec![OwnedGroup {
                keys: keys.clone(),
                nodes: [device.node_id.clone()].into(),
            }],
            ..OwnedRecord::default()
        };
        assert_eq!(record.at(&device), Some(&keys));
        let unnamed = Device {
            name: String::new(),
            unreadable: [DeviceField::Name].into_iter().collect(),
            ..device.clone()
        };
        assert_eq!(record.at(&unnamed), Some(&keys));
        let elsewhere = Device {
            name: "name-0.tail2.ts.net".to_owned(),
            ..device
        };
        assert_eq!(record.at(&elsewhere), None);
    }
}
