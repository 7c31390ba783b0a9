//! The keys that a policy owns, as its status records them.

use std::{collections::BTreeSet, sync::Arc};

use super::Digest;
use crate::model::{AttributeKey, Device, NodeId};

/// Devices on which a policy owns the same keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedGroup {
    /// The keys.
    pub keys: BTreeSet<AttributeKey>,
    /// The devices.
    pub nodes: BTreeSet<NodeId>,
}

/// The keys that a policy owns, as its status records them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
        let domain = device.name.split_once('.').map(|(_, domain)| domain);
        if self.domain.is_some() && self.domain.as_deref() != domain {
            return None;
        }
        let listed = self
            .groups
            .iter()
            .find(|group| group.nodes.contains(&device.node_id));
        if let Some(listed) = listed {
            return Some(&listed.keys);
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
