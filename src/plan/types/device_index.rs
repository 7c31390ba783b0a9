use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::Ipv4Addr,
};

use smallvec::SmallVec;

use crate::model::{Device, DeviceField, DeviceLabel, NodeId, folded, is_same_name};
use crate::plan::Identity;

/// The devices that have one name or address: nearly always a single one.
type Ids = SmallVec<[NodeId; 1]>;

/// The devices of a complete list, indexed by what identifies them.
#[derive(Debug, Clone, Default)]
pub struct DeviceIndex {
    /// Boxed, because a half-full node of the tree is common, and a device is large.
    devices: BTreeMap<NodeId, Box<Device>>,
    own: usize,
    /// Those with a field that cannot be read: every step of an engine asks for them.
    unreadable: BTreeSet<NodeId>,
    by_legacy_id: HashMap<Box<str>, Ids>,
    by_label: HashMap<Box<str>, Ids>,
    by_hostname: HashMap<Box<str>, Ids>,
    /// A missing device is kept for a while, and another one may have its address by then.
    by_ipv4: HashMap<Ipv4Addr, Ids>,
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
            // The usual case of a list: no index changes, and so nothing is allocated.
            Some(before) if same_keys(before, &device) => {}
            Some(_) => {
                self.remove(&id);
                self.index(&device);
            }
            None => self.index(&device),
        }
        if device.unreadable.is_empty() {
            self.unreadable.remove(&id);
        } else {
            self.unreadable.insert(id.clone());
        }
        self.devices.insert(id, Box::new(device));
    }

    fn index(&mut self, device: &Device) {
        // Its owner chooses the name in another tailnet, so no identity may find it.
        if device.external {
            return;
        }
        let id = device.node_id.clone();
        self.own += 1;
        // What cannot be read finds no device.
        if !device.is_unknown(DeviceField::Id) {
            add(
                &mut self.by_legacy_id,
                device.legacy_id.as_str().into(),
                &id,
            );
        }
        if !device.is_unknown(DeviceField::Name) {
            add(
                &mut self.by_label,
                folded(device.label().as_str()).into(),
                &id,
            );
        }
        if !device.is_unknown(DeviceField::Hostname) {
            add(&mut self.by_hostname, folded(&device.hostname).into(), &id);
        }
        if let Some(addr) = device.ipv4 {
            add(&mut self.by_ipv4, addr, &id);
        }
    }

    /// Removes a device that is no longer in the tailnet.
    pub fn remove(&mut self, id: &NodeId) {
        self.unreadable.remove(id);
        let Some(device) = self.devices.remove(id).filter(|device| !device.external) else {
            return;
        };
        self.own -= 1;
        forget(&mut self.by_legacy_id, &*device.legacy_id, id);
        forget(&mut self.by_label, &*folded(device.label().as_str()), id);
        forget(&mut self.by_hostname, &*folded(&device.hostname), id);
        if let Some(addr) = device.ipv4 {
            forget(&mut self.by_ipv4, &addr, id);
        }
    }

    /// The device of this id, external ones included.
    #[must_use]
    pub fn get(&self, id: &NodeId) -> Option<&Device> {
        self.devices.get(id).map(Box::as_ref)
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
        self.devices.values().map(Box::as_ref)
    }

    /// The devices with a field that cannot be read, by id.
    pub fn unreadable(&self) -> impl Iterator<Item = &Device> {
        self.unreadable.iter().filter_map(|id| self.get(id))
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
            Identity::LegacyId(id) => self
                .by_legacy_id
                .get(id.as_str())
                .into_iter()
                .flatten()
                .collect(),
            Identity::Hostname(name) => self
                .by_hostname
                .get(&*folded(name))
                .into_iter()
                .flatten()
                .collect(),
            Identity::Name(name) => {
                // The label first: the domain of a tailnet can change, and few devices share a label.
                let label = folded(DeviceLabel::reported(name).as_str());
                self.by_label.get(&*label).into_iter().flatten().collect()
            }
        };
        let mut found: Vec<&Device> = ids
            .into_iter()
            .filter_map(|id| self.get(id))
            .filter(|device| !device.external && names(identity, device))
            .collect();
        // The maps have them in the order of their arrival, on which no message may depend.
        found.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        found
    }

    /// The device that has an address now.
    #[must_use]
    pub fn holder_of(&self, addr: Ipv4Addr) -> Option<&Device> {
        let holders = self.by_ipv4.get(&addr);
        holders?.first().and_then(|id| self.get(id))
    }

    /// The devices that have a label now.
    pub fn devices_named<'a>(&'a self, label: &DeviceLabel) -> impl Iterator<Item = &'a Device> {
        let ids = self.by_label.get(&*folded(label.as_str()));
        ids.into_iter().flatten().filter_map(|id| self.get(id))
    }
}

fn add<K: Eq + Hash>(index: &mut HashMap<K, Ids>, key: K, id: &NodeId) {
    index.entry(key).or_default().push(id.clone());
}

fn forget<K, Q>(index: &mut HashMap<K, Ids>, key: &Q, id: &NodeId)
where
    K: Eq + Hash + Borrow<Q>,
    Q: Eq + Hash + ?Sized,
{
    let Some(ids) = index.get_mut(key) else {
        return;
    };
    ids.retain(|other| other != id);
    if ids.is_empty() {
        index.remove(key);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A missing device is kept for a while, and the one that has replaced it has its address and name.
    #[test]
    fn a_device_that_leaves_hides_no_other_one_with_the_same_address_or_id() {
        let addr: Ipv4Addr = [100, 80, 0, 1].into();
        let device = |id: &str| Device {
            legacy_id: "1001".to_owned(),
            hostname: "fra".to_owned(),
            ipv4: Some(addr),
            ..Device::plain(id.parse().unwrap())
        };
        let (first, other) = (device("n1CNTRL"), device("n2CNTRL"));
        for leaves in [&first, &other] {
            let stays = [&first, &other].into_iter().find(|it| it != &leaves);
            let stays = &stays.unwrap().node_id;
            let mut index = DeviceIndex::new([other.clone(), first.clone()]);
            index.remove(&leaves.node_id);
            let holder = index.holder_of(addr).map(|it| &it.node_id);
            assert_eq!(holder, Some(stays));
            for identity in ["1001", "fra"].map(str::to_owned) {
                let by_id = index.find(&Identity::LegacyId(identity.clone()));
                let found = index.find(&Identity::Hostname(identity));
                let found: Vec<&NodeId> = by_id
                    .into_iter()
                    .chain(found)
                    .map(|it| &it.node_id)
                    .collect();
                assert_eq!(found, [stays]);
            }
        }
    }
}
