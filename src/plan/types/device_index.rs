use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
};

use crate::model::{Device, DeviceField, DeviceLabel, NodeId, folded, is_same_name};
use crate::plan::Identity;

/// The devices of a complete list, indexed by what identifies them.
#[derive(Debug, Clone, Default)]
pub struct DeviceIndex {
    devices: BTreeMap<NodeId, Device>,
    own: usize,
    by_legacy_id: HashMap<String, NodeId>,
    by_label: HashMap<String, Vec<NodeId>>,
    by_hostname: HashMap<String, Vec<NodeId>>,
    by_ipv4: HashMap<Ipv4Addr, NodeId>,
}

impl DeviceIndex {
    /// Indexes a complete list. External devices are kept, but no identity finds them.
    #[must_use]
    pub fn new(devices: impl IntoIterator<Item = Device>) -> Self {
        let mut index = Self::default();
        for device in devices {
            index.insert(device);
        }
        index
    }

    /// Adds a device, or replaces an older observation of it.
    pub fn insert(&mut self, device: Device) {
        let id = device.node_id.clone();
        match self.devices.get(&id) {
            Some(before) if same_keys(before, &device) => {}
            Some(_) => {
                self.remove(&id);
                self.index(&device);
            }
            None => self.index(&device),
        }
        self.devices.insert(id, device);
    }

    fn index(&mut self, device: &Device) {
        if device.external {
            return;
        }
        let id = device.node_id.clone();
        self.own += 1;
        // What cannot be read finds no device.
        if !device.is_unknown(DeviceField::Id) {
            self.by_legacy_id
                .insert(device.legacy_id.clone(), id.clone());
        }
        if !device.is_unknown(DeviceField::Name) {
            self.by_label
                .entry(folded(device.label().as_str()))
                .or_default()
                .push(id.clone());
        }
        if !device.is_unknown(DeviceField::Hostname) {
            self.by_hostname
                .entry(folded(&device.hostname))
                .or_default()
                .push(id.clone());
        }
        if let Some(addr) = device.ipv4 {
            self.by_ipv4.insert(addr, id);
        }
    }

    /// Removes a device that is no longer in the tailnet.
    pub fn remove(&mut self, id: &NodeId) {
        let Some(device) = self.devices.remove(id).filter(|device| !device.external) else {
            return;
        };
        self.own -= 1;
        let others = |ids: &mut Vec<NodeId>| ids.retain(|other| other != id);
        if self.by_legacy_id.get(&device.legacy_id) == Some(&device.node_id) {
            self.by_legacy_id.remove(&device.legacy_id);
        }
        self.by_label
            .entry(folded(device.label().as_str()))
            .and_modify(others);
        self.by_hostname
            .entry(folded(&device.hostname))
            .and_modify(others);
        if let Some(addr) = device.ipv4
            && self.by_ipv4.get(&addr) == Some(&device.node_id)
        {
            self.by_ipv4.remove(&addr);
        }
    }

    /// The device of this id, external ones included.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Device> {
        self.devices.get(id)
    }

    /// The name of a device for people, and its id.
    #[must_use]
    pub fn called(&self, id: &NodeId) -> String {
        match self.get(id) {
            Some(device) => format!("{} ({id})", device.label()),
            None => id.to_string(),
        }
    }

    /// All devices, by id.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The number of the tailnet's own devices, without external ones.
    #[must_use]
    pub fn own_count(&self) -> usize {
        self.own
    }

    /// The domain that the names of the tailnet's own devices share.
    #[must_use]
    pub fn domain(&self) -> Option<String> {
        let mut own = self.devices.values().filter(|device| !device.external);
        own.find_map(|own| own.name.split_once('.'))
            .map(|(_, domain)| domain.to_owned())
    }

    /// The devices that an identity matches, in the order of their ids.
    #[must_use]
    pub fn find(&self, identity: &Identity) -> Vec<&Device> {
        let ids: Vec<&NodeId> = match identity {
            Identity::NodeId(id) => vec![id],
            Identity::LegacyId(id) => self.by_legacy_id.get(id).into_iter().collect(),
            Identity::Hostname(name) => self
                .by_hostname
                .get(&folded(name))
                .into_iter()
                .flatten()
                .collect(),
            Identity::Name(name) => {
                let label = folded(DeviceLabel::reported(name).as_str());
                self.by_label.get(&label).into_iter().flatten().collect()
            }
        };
        let mut found: Vec<&Device> = ids
            .into_iter()
            .filter_map(|id| self.devices.get(id))
            .filter(|device| !device.external && names(identity, device))
            .collect();
        // The maps have them in the order of their arrival, on which no message may depend.
        found.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        found
    }

    /// The device that has an address now.
    #[must_use]
    pub fn holder_of(&self, addr: Ipv4Addr) -> Option<&Device> {
        self.by_ipv4.get(&addr).and_then(|id| self.devices.get(id))
    }

    /// The devices that have a label now.
    pub fn devices_named<'a>(&'a self, label: &DeviceLabel) -> impl Iterator<Item = &'a Device> {
        let ids = self.by_label.get(&folded(label.as_str()));
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.devices.get(id))
    }
}

/// A name with a domain must match as a whole; a bare label matches the first part.
fn names(identity: &Identity, device: &Device) -> bool {
    match identity {
        Identity::Name(name) if name.contains('.') => {
            is_same_name(name.trim_end_matches('.'), &device.name)
        }
        _ => true,
    }
}

fn same_keys(a: &Device, b: &Device) -> bool {
    a.legacy_id == b.legacy_id
        && a.name == b.name
        && a.hostname == b.hostname
        && a.ipv4 == b.ipv4
        && a.external == b.external
        && a.unreadable == b.unreadable
}
