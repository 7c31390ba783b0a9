use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::Ipv4Addr,
};

use crate::{
    model::{Device, DeviceLabel, NodeId, TailnetIpv4},
    plan::{
        Claims, Conflict, Dispute, Field, Fleet, Memory, Policy, PolicyKey, Rank, Surroundings,
    },
};

/// What is decided for a device and no other device can have, with the rank of the policy that decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// Its IPv4 address.
    pub ipv4: Option<(TailnetIpv4, Rank)>,
    /// Its name.
    pub name: Option<(DeviceLabel, Rank)>,
}

impl Want {
    /// What the policies of a device have settled among themselves.
    #[must_use]
    pub fn of(claims: &Claims, policies: &[(&Policy, &Memory)]) -> Self {
        let rank = |owners: &[PolicyKey]| {
            let first = owners.first()?;
            let mut policies = policies.iter().map(|(policy, _)| policy);
            Some(policies.find(|policy| policy.key == *first)?.owned_rank())
        };
        let ipv4 = claims.ipv4.as_ref();
        let name = claims.name.as_ref();
        Self {
            ipv4: ipv4.and_then(|claim| Some((claim.wish, rank(&claim.owners)?))),
            name: name.and_then(|claim| Some((claim.wish.clone(), rank(&claim.owners)?))),
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
pub struct Wants {
    of: BTreeMap<NodeId, Want>,
    ipv4: HashMap<Ipv4Addr, Ranked>,
    names: HashMap<DeviceLabel, Ranked>,
}

impl Wants {
    /// Notes what is wanted for a device now. Gives the other devices for which that may change
    /// something.
    pub fn put(&mut self, node: &NodeId, want: Want) -> BTreeSet<NodeId> {
        let before = if want == Want::default() {
            self.of.remove(node)
        } else {
            self.of.insert(node.clone(), want.clone())
        };
        let before = before.unwrap_or_default();
        let mut affected = BTreeSet::new();
        if before.ipv4 != want.ipv4 {
            let key = |(addr, rank): (TailnetIpv4, Rank)| (addr.addr(), rank);
            let (old, new) = (before.ipv4.map(key), want.ipv4.map(key));
            affected.extend(replace(&mut self.ipv4, node, old, new));
        }
        if before.name != want.name {
            affected.extend(replace(&mut self.names, node, before.name, want.name));
        }
        affected.remove(node);
        affected
    }

    /// What is wanted for a device.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Want {
        self.of.get(node).cloned().unwrap_or_default()
    }

    /// Who comes before a device that wants an address: one that can have it.
    #[must_use]
    pub fn before_for_ipv4(
        &self,
        node: &NodeId,
        (addr, rank): &(TailnetIpv4, Rank),
        fleet: &Fleet,
    ) -> Option<(&PolicyKey, &NodeId)> {
        let addr = addr.addr();
        let can_have = |other: &NodeId| match fleet.holder_of(addr) {
            Some(holder) if holder.node_id != *other => {
                let want = self.of.get(&holder.node_id);
                want.is_some_and(|want| want.leaves_ipv4(addr))
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
        fleet: &Fleet,
    ) -> Option<(&PolicyKey, &NodeId)> {
        let can_have = |other: &NodeId| {
            let mut bearers = fleet.bearers_of(name);
            bearers.all(|bearer| {
                let want = self.of.get(&bearer.node_id);
                bearer.node_id == *other || want.is_some_and(|want| want.leaves_name(name))
            })
        };
        first_before(self.names.get(name)?, node, rank, can_have)
    }

    /// The devices that wait for the name of this one, or for its address, or for that of one that waits
    /// for it.
    #[must_use]
    pub fn waiting_for(&self, node: &NodeId, fleet: &Fleet) -> BTreeSet<NodeId> {
        let mut waiting = BTreeSet::new();
        let label = fleet.get(node).map(Device::label);
        let ranked = label.and_then(|label| self.names.get(&label));
        for (_, other) in ranked.into_iter().flatten() {
            if other != node {
                waiting.insert(other.clone());
            }
        }
        let mut next = vec![node];
        while let Some(node) = next.pop() {
            let addr = fleet.get(node).and_then(|device| device.ipv4);
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
    pub fn circle(&self, node: &NodeId, wanted: Ipv4Addr, fleet: &Fleet) -> Vec<NodeId> {
        let mut circle: Vec<NodeId> = Vec::new();
        let mut holder = fleet.holder_of(wanted);
        while let Some(device) = holder {
            if device.node_id == *node {
                return circle;
            }
            if circle.contains(&device.node_id) {
                break;
            }
            circle.push(device.node_id.clone());
            holder = self
                .granted(&device.node_id, fleet)
                .and_then(|wanted| fleet.holder_of(wanted));
        }
        Vec::new()
    }

    /// The address that a device is to have, if no other one comes before it.
    fn granted(&self, node: &NodeId, fleet: &Fleet) -> Option<Ipv4Addr> {
        let want = self.of.get(node)?.ipv4.as_ref()?;
        self.before_for_ipv4(node, want, fleet)
            .is_none()
            .then(|| want.0.addr())
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

impl Claims {
    /// Gives up what another device is to have, by the word of a policy that ranks before.
    pub(in crate::plan) fn yield_to(
        &mut self,
        node: &NodeId,
        want: &Want,
        wants: &Wants,
        policies: &[(&Policy, &Memory)],
        around: &Surroundings<'_>,
    ) {
        let fleet = around.fleet;
        let tells = |loser: &PolicyKey, other: &NodeId| {
            let mut of = policies.iter().filter(|(policy, _)| policy.key == *loser);
            of.all(|(policy, _)| policy.allowance.tells_of(fleet.get(other)))
        };
        let mut lost = Vec::new();
        if let Some(ipv4) = &want.ipv4
            && let Some((winner, other)) = wants.before_for_ipv4(node, ipv4, fleet)
            && let Some(claim) = self.ipv4.take()
        {
            lost.push((Field::Ipv4, claim.owners, winner, other));
        }
        if let Some(name) = &want.name
            && let Some((winner, other)) = wants.before_for_name(node, name, fleet)
            && let Some(claim) = self.name.take()
        {
            lost.push((Field::Name, claim.owners, winner, other));
        }
        for (field, losers, winner, other) in lost {
            let conflicts = losers.into_iter().map(|loser| {
                let told = tells(&loser, other);
                Conflict {
                    field: field.clone(),
                    winner: winner.clone(),
                    is_named: told || winner.namespace == loser.namespace,
                    dispute: Dispute::Device(around.called_where(told, other)),
                    loser,
                }
            });
            self.conflicts.extend(conflicts);
        }
    }
}
