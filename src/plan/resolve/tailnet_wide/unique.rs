use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use crate::{
    model::{Device, DeviceLabel, NodeId, TailnetIpv4, UniqueValue},
    plan::{DeviceIndex, FieldOwners, Policy, PolicyKey, PolicyRecord, Rank},
};

/// The desired settings of a device that no other device can have, with the rank of their owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UniqueSetting {
    /// Its IPv4 address.
    pub ipv4: Option<(TailnetIpv4, Rank)>,
    /// Its name.
    pub name: Option<(DeviceLabel, Rank)>,
}

impl UniqueSetting {
    /// The unique settings that the owners of a device's fields declare.
    #[must_use]
    pub fn of(field_owners: &FieldOwners, policies: &[(&Policy, &PolicyRecord)]) -> Self {
        let rank = |owners: &[PolicyKey]| {
            let first = owners.first()?;
            let mut policies = policies.iter().map(|(policy, _)| policy);
            Some(policies.find(|policy| policy.key == *first)?.owned_rank())
        };
        let mut unique = Self::default();
        for claim in field_owners.settings.values() {
            let Some(rank) = rank(&claim.owners) else {
                continue;
            };
            match claim.desired.as_unique() {
                Some(UniqueValue::Ipv4(ipv4)) => unique.ipv4 = Some((ipv4, rank)),
                Some(UniqueValue::Name(name)) => unique.name = Some((name, rank)),
                None => {}
            }
        }
        unique
    }

    fn leaves_ipv4(&self, addr: Ipv4Addr) -> bool {
        let wanted = self.ipv4.as_ref();
        wanted.is_some_and(|(wanted, _)| wanted.addr() != addr)
    }

    fn leaves_name(&self, name: &DeviceLabel) -> bool {
        let wanted = self.name.as_ref();
        wanted.is_some_and(|(wanted, _)| wanted != name)
    }
}

/// The devices for which one value is desired, by the rank of the policy.
type Ranked = BTreeSet<(Rank, NodeId)>;

/// The desired unique settings of each device of a tailnet.
#[derive(Debug, Clone, Default)]
pub struct UniqueSettings {
    of: BTreeMap<NodeId, UniqueSetting>,
    ipv4: HashMap<Ipv4Addr, Ranked>,
    names: HashMap<DeviceLabel, Ranked>,
}

impl UniqueSettings {
    /// Replaces the unique settings of a device. Returns the other devices that this may affect.
    pub fn put(&mut self, node: &NodeId, unique: UniqueSetting) -> BTreeSet<NodeId> {
        // Almost all devices have none.
        let before = if unique == UniqueSetting::default() {
            self.of.remove(node)
        } else {
            self.of.insert(node.clone(), unique.clone())
        };
        let before = before.unwrap_or_default();
        let mut affected = BTreeSet::new();
        if before.ipv4 != unique.ipv4 {
            let key = |(addr, rank): (TailnetIpv4, Rank)| (addr.addr(), rank);
            let (old, new) = (before.ipv4.map(key), unique.ipv4.map(key));
            affected.extend(replace(&mut self.ipv4, node, old, new));
        }
        if before.name != unique.name {
            affected.extend(replace(&mut self.names, node, before.name, unique.name));
        }
        affected.remove(node);
        affected
    }

    /// The unique settings of a device.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> UniqueSetting {
        self.of.get(node).cloned().unwrap_or_default()
    }

    /// The policy and device that take precedence over a device for an address, if that device can have it.
    #[must_use]
    pub fn before_for_ipv4(
        &self,
        node: &NodeId,
        (addr, rank): &(TailnetIpv4, Rank),
        index: &DeviceIndex,
    ) -> Option<(&PolicyKey, &NodeId)> {
        let addr = addr.addr();
        // A claim on an address that a device keeps has no effect. It would hold the claims of others for as
        // long as it stands, without ever being met.
        first_before(self.ipv4.get(&addr)?, node, rank, |other| {
            match index.holder_of(addr) {
                Some(holder) if holder.node_id != *other => {
                    let unique = self.of.get(&holder.node_id);
                    unique.is_some_and(|unique| unique.leaves_ipv4(addr))
                }
                _ => true,
            }
        })
    }

    /// The policy and device that take precedence over a device for a name, if that device can have it.
    #[must_use]
    pub fn before_for_name(
        &self,
        node: &NodeId,
        (name, rank): &(DeviceLabel, Rank),
        index: &DeviceIndex,
    ) -> Option<(&PolicyKey, &NodeId)> {
        first_before(self.names.get(name)?, node, rank, |other| {
            let mut holders = index.devices_named(name);
            holders.all(|holder| {
                let unique = self.of.get(&holder.node_id);
                holder.node_id == *other || unique.is_some_and(|unique| unique.leaves_name(name))
            })
        })
    }

    /// The devices that wait for the name or the address of this one, or, transitively, for the address of a
    /// device that waits for it.
    #[must_use]
    pub fn waiting_for(&self, node: &NodeId, index: &DeviceIndex) -> BTreeSet<NodeId> {
        let mut waiting = BTreeSet::new();
        let label = index.get(node).map(Device::label);
        let ranked = label.and_then(|label| self.names.get(&label));
        for (_, other) in ranked.into_iter().flatten() {
            if other != node {
                waiting.insert(other.clone());
            }
        }
        // Addresses in chains, because each change in a chain can close or break a circle (`Self::circle`). Not by
        // recursion: a chain can be as long as the tailnet.
        let mut next = vec![node];
        while let Some(node) = next.pop() {
            let addr = index.get(node).and_then(|device| device.ipv4);
            let ranked = addr.and_then(|addr| self.ipv4.get(&addr));
            for (_, other) in ranked.into_iter().flatten() {
                if other != node && waiting.insert(other.clone()) {
                    next.push(other);
                }
            }
        }
        waiting
    }

    /// The devices that would have to swap addresses so that this one gets its desired address, without this
    /// one. Empty if there is no such circle.
    #[must_use]
    pub fn circle(&self, node: &NodeId, wanted: Ipv4Addr, index: &DeviceIndex) -> Vec<NodeId> {
        let mut circle: Vec<NodeId> = Vec::new();
        let mut holder = index.holder_of(wanted);
        while let Some(device) = holder {
            if device.node_id == *node {
                return circle;
            }
            // Another circle, which waits for itself and not for this device.
            if circle.contains(&device.node_id) {
                break;
            }
            circle.push(device.node_id.clone());
            holder = self
                .granted(&device.node_id, index)
                .and_then(|wanted| index.holder_of(wanted));
        }
        Vec::new()
    }

    /// The desired address of a device, if no other device takes precedence for it.
    fn granted(&self, node: &NodeId, index: &DeviceIndex) -> Option<Ipv4Addr> {
        let unique = self.of.get(node)?.ipv4.as_ref()?;
        self.before_for_ipv4(node, unique, index)
            .is_none()
            .then(|| unique.0.addr())
    }
}

/// The first in rank of the other devices that can have the value, if it ranks before `rank`. Ranks are unique,
/// but one policy can have two devices here for a moment, while it is bound to another one.
fn first_before<'a>(
    ranked: &'a Ranked,
    node: &NodeId,
    rank: &Rank,
    can_have: impl Fn(&NodeId) -> bool,
) -> Option<(&'a PolicyKey, &'a NodeId)> {
    let mut others = ranked.iter();
    let (first, holder) = others.find(|(_, other)| other != node && can_have(other))?;
    (first < rank).then(|| (first.policy(), holder))
}

/// Moves a device from one desired value to another. Returns the devices that desire either.
fn replace<T: std::hash::Hash + Eq>(
    wanted: &mut HashMap<T, Ranked>,
    node: &NodeId,
    old: Option<(T, Rank)>,
    new: Option<(T, Rank)>,
) -> BTreeSet<NodeId> {
    let mut affected = BTreeSet::new();
    if let Some((value, rank)) = old
        && let Some(ranked) = wanted.get_mut(&value)
    {
        ranked.remove(&(rank, node.clone()));
        affected.extend(ranked.iter().map(|(_, other)| other.clone()));
        if ranked.is_empty() {
            wanted.remove(&value);
        }
    }
    if let Some((value, rank)) = new {
        let ranked = wanted.entry(value).or_default();
        affected.extend(ranked.iter().map(|(_, other)| other.clone()));
        ranked.insert((rank, node.clone()));
    }
    affected
}
