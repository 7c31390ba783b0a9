//! Converts the record of owned keys from and to the status of a policy.

use std::collections::BTreeSet;

use crate::{
    api::{AttributeRecord, DeviceDigest, DigestGroup, ListedDevices, TailscaleDevicePolicyStatus},
    model::{AttributeKey, NodeId},
    plan::{Digest, OwnedGroup, OwnedKeys, OwnedRecord},
};

impl OwnedKeys {
    /// The keys that the status of a policy with this UID records.
    ///
    /// A status of an older version lists only keys, not devices. They count for the bound device, and for the
    /// devices that are listed to be cleared. For a selector it is unknown on which devices the policy managed
    /// them: there it owns only the keys that it still declares, once they have been compared.
    #[must_use]
    pub fn of_status(status: &TailscaleDevicePolicyStatus, uid: &str) -> Self {
        let record = match &status.attribute_record {
            // A status from a backup, or of another object of the name: to own its keys would
            // delete them.
            Some(record) if record.uid.as_ref().is_some_and(|of| of != uid) => {
                return Self::default();
            }
            Some(record) => read(record),
            None => keys_without_devices(status),
        };
        Self::recorded(record)
    }
}

fn keys_without_devices(status: &TailscaleDevicePolicyStatus) -> OwnedRecord {
    let managed = status.managed_devices.iter().flat_map(|it| &it.node_ids);
    let nodes = status.node_id.iter().chain(managed);
    let group = OwnedGroup {
        keys: readable(&status.owned_attributes),
        nodes: nodes.filter_map(|id| id.parse().ok()).collect(),
    };
    OwnedRecord {
        groups: Some(group).into_iter().filter(is_about_something).collect(),
        ..OwnedRecord::default()
    }
}

fn is_about_something(group: &OwnedGroup) -> bool {
    !group.keys.is_empty() && !group.nodes.is_empty()
}

fn readable(keys: &[String]) -> BTreeSet<AttributeKey> {
    // An entry that cannot be parsed is no key of ours, as the controller writes only valid ones.
    keys.iter().filter_map(|key| key.parse().ok()).collect()
}

fn read(record: &AttributeRecord) -> OwnedRecord {
    let groups = record.listed.iter().map(|listed| OwnedGroup {
        keys: readable(&listed.attributes),
        nodes: listed
            .node_ids
            .iter()
            .filter_map(|id| id.parse::<NodeId>().ok())
            .collect(),
    });
    let numbers = record.digest.as_ref().and_then(|digest| {
        let newest = digest.newest.as_ref().and_then(|time| time.parse().ok());
        // All parts or none: with another seed, the table means other devices.
        Digest::read(digest.seed?, digest.bits?, digest.table.as_ref()?, newest)
    });
    let groups_of_digest = record.digest.iter().flat_map(|digest| &digest.groups);
    let numbered = groups_of_digest.map(|group| {
        let devices = group.devices.and_then(|count| count.try_into().ok());
        (readable(&group.attributes), devices.unwrap_or_default())
    });
    OwnedRecord {
        domain: record.domain.clone(),
        groups: groups.filter(is_about_something).collect(),
        // Without the table, the devices of the groups are unknown.
        numbered: numbered.filter(|_| numbers.is_some()).collect(),
        numbers: numbers.map(Into::into),
    }
}

impl OwnedRecord {
    /// The record for the status of a policy with this UID; `None` if there is nothing to record.
    #[must_use]
    pub fn to_status(&self, uid: &str, unrecorded: usize) -> Option<AttributeRecord> {
        // Absent and not empty, so that a policy without attributes has no such field.
        if self.is_empty() && unrecorded == 0 {
            return None;
        }
        let listed = self.groups.iter().map(|group| ListedDevices {
            attributes: texts(&group.keys),
            node_ids: texts(&group.nodes),
        });
        let digest = self.numbers.as_ref().map(|numbers| {
            let (seed, bits, table) = numbers.write();
            let groups = self.numbered.iter().map(|(keys, devices)| DigestGroup {
                attributes: texts(keys),
                devices: Some(count(*devices)),
            });
            DeviceDigest {
                groups: groups.collect(),
                newest: numbers.newest().map(|time| time.to_string()),
                seed: Some(seed),
                bits: Some(bits),
                table: Some(table),
            }
        });
        Some(AttributeRecord {
            // Policies from files have no uid.
            uid: (!uid.is_empty()).then(|| uid.to_owned()),
            domain: self.domain.clone(),
            listed: listed.collect(),
            digest,
            unrecorded_devices: (unrecorded > 0).then(|| count(unrecorded)),
        })
    }
}

fn texts<T: ToString>(items: &BTreeSet<T>) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}
