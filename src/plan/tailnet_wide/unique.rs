use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use crate::{
    model::{Device, DeviceLabel, NodeId, TailnetIpv4},
    plan::{
        Conflict, ConflictKind, DeviceIndex, Field, FieldOwners, PlanContext, Policy, PolicyKey,
        PolicyRecord, Rank,
    },
};

/// What is decided for a device and no other device can have, with the rank of the policy that decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UniqueSetting {
    /// Its IPv4 address.
    pub ipv4: Option<(TailnetIpv4, Rank)>,
    /// Its name.
    pub name: Option<(DeviceLabel, Rank)>,
}

impl UniqueSetting {
    /// What the policies of a device have settled among themselves.
    #[must_use]
    pub fn of(claims: &FieldOwners, policies: &[(&Policy, &PolicyRecord)]) -> Self {
        let rank = |owners: &[PolicyKey]| {
            let first = owners.first()?;
            let mut policies = policies.iter().map(|(policy, _)| policy);
            Some(policies.find(|policy| policy.key == *first)?.owned_rank())
        };
        let ipv4 = claims.ipv4.as_ref();
        let name = claims.name.as_ref();
        Self {
            ipv4: ipv4.and_then(|claim| Some((claim.desired, rank(&claim.owners)?))),
            name: name.and_then(|claim| Some((claim.desired.clone(), rank(&claim.owners)?))),
        }
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

/// Those who want one thing, the first in rank first.
type Ranked = BTreeSet<(Rank, NodeId)>;

/// What is wanted for each device of a tailnet.
#[derive(Debug, Clone, Default)]
pub struct UniqueSettings {
    of: BTreeMap<NodeId, UniqueSetting>,
    ipv4: HashMap<Ipv4Addr, Ranked>,
    names: HashMap<DeviceLabel, Ranked>,
}

impl UniqueSettings {
    /// Notes what is wanted for a device now. Gives the other devices for which that may change
    /// something.
    pub fn put(&mut self, node: &NodeId, unique: UniqueSetting) -> BTreeSet<NodeId> {
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

    /// What is wanted for a device.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> UniqueSetting {
        self.of.get(node).cloned().unwrap_or_default()
    }

    /// Who comes before a device that wants an address: one that can have it.
    #[must_use]
    pub fn before_for_ipv4(
        &self,
        node: &NodeId,
        (addr, rank): &(TailnetIpv4, Rank),
        index: &DeviceIndex,
    ) -> Option<(&PolicyKey, &NodeId)> {
        let addr = addr.addr();
        let can_have = |other: &NodeId| match index.holder_of(addr) {
            Some(holder) if holder.node_id != *other => {
                let unique = self.of.get(&holder.node_id);
                unique.is_some_and(|unique| unique.leaves_ipv4(addr))
            }
            _ => true,
        };
        first_before(self.ipv4.get(&addr)?, node, rank, can_have)
    }

    /// Who comes before a device that wants a name: one that can have it.
    #[must_use]
    pub fn before_for_name(
        &self,
        node: &NodeId,
        (name, rank): &(DeviceLabel, Rank),
        index: &DeviceIndex,
    ) -> Option<(&PolicyKey, &NodeId)> {
        let can_have = |other: &NodeId| {
            let mut holders = index.devices_named(name);
            holders.all(|holder| {
                let unique = self.of.get(&holder.node_id);
                holder.node_id == *other || unique.is_some_and(|unique| unique.leaves_name(name))
            })
        };
        first_before(self.names.get(name)?, node, rank, can_have)
    }

    /// The devices that wait for the name of this one, or for its address, or for that of one that waits
    /// for it.
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

    /// The devices that would have to give each other their addresses for this one to get its own, this
    /// one left out. Nothing where there is no such circle.
    #[must_use]
    pub fn circle(&self, node: &NodeId, wanted: Ipv4Addr, index: &DeviceIndex) -> Vec<NodeId> {
        let mut circle: Vec<NodeId> = Vec::new();
        let mut holder = index.holder_of(wanted);
        while let Some(device) = holder {
            if device.node_id == *node {
                return circle;
            }
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

    /// The address that a device is to have, if no other one comes before it.
    fn granted(&self, node: &NodeId, index: &DeviceIndex) -> Option<Ipv4Addr> {
        let unique = self.of.get(node)?.ipv4.as_ref()?;
        self.before_for_ipv4(node, unique, index)
            .is_none()
            .then(|| unique.0.addr())
    }
}

/// Two policies of one rank do not exist, but one policy may be told of two devices for a moment.
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

/// Moves a device from one thing that it wants to another. Gives those who want either.
fn replace<T: std::hash::Hash + Eq>(
    wanted: &mut HashMap<T, Ranked>,
    node: &NodeId,
    old: Option<(T, Rank)>,
    new: Option<(T, Rank)>,
) -> BTreeSet<NodeId> {
    let mut affected = BTreeSet::new();
    if let Some((thing, rank)) = old
        && let Some(ranked) = wanted.get_mut(&thing)
    {
        ranked.remove(&(rank, node.clone()));
        affected.extend(ranked.iter().map(|(_, other)| other.clone()));
        if ranked.is_empty() {
            wanted.remove(&thing);
        }
    }
    if let Some((thing, rank)) = new {
        let ranked = wanted.entry(thing).or_default();
        affected.extend(ranked.iter().map(|(_, other)| other.clone()));
        ranked.insert((rank, node.clone()));
    }
    affected
}

impl FieldOwners {
    /// Gives up what another device is to have, by the word of a policy that ranks before.
    pub(in crate::plan) fn yield_to(
        &mut self,
        node: &NodeId,
        unique: &UniqueSetting,
        claimed: &UniqueSettings,
        policies: &[(&Policy, &PolicyRecord)],
        context: &PlanContext<'_>,
    ) {
        let index = context.index;
        let tells = |loser: &PolicyKey, other: &NodeId| {
            let mut of = policies.iter().filter(|(policy, _)| policy.key == *loser);
            of.all(|(policy, _)| policy.allowance.discloses(index.get(other)))
        };
        let mut lost = Vec::new();
        if let Some(ipv4) = &unique.ipv4
            && let Some((winner, other)) = claimed.before_for_ipv4(node, ipv4, index)
            && let Some(claim) = self.ipv4.take()
        {
            lost.push((Field::Ipv4, claim.owners, winner, other));
        }
        if let Some(name) = &unique.name
            && let Some((winner, other)) = claimed.before_for_name(node, name, index)
            && let Some(claim) = self.name.take()
        {
            lost.push((Field::Name, claim.owners, winner, other));
        }
        for (field, losers, winner, other) in lost {
            let conflicts = losers.into_iter().map(|loser| {
                let reported = tells(&loser, other);
                Conflict {
                    field: field.clone(),
                    owner: winner.clone(),
                    is_named: reported || winner.namespace == loser.namespace,
                    kind: ConflictKind::Device(context.called_where(reported, other)),
                    overridden: loser,
                }
            });
            self.conflicts.extend(conflicts);
        }
    }
}
