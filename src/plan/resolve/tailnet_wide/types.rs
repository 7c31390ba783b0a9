use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::AttributeType;
use crate::{
    model::{AttributeKey, DesiredAttribute, NodeId},
    plan::{Mode, Policy, PolicyKey, Rank},
};

/// A policy's claim on the type of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeClaim {
    /// The claimed type.
    pub attribute_type: AttributeType,
    /// When the desired attribute expires, and the claim with it.
    pub expiry: Option<Timestamp>,
}

/// The types of all attribute keys that policies may set on any device, or that devices have, by the key in
/// lower case.
#[derive(Debug, Clone, Default)]
pub struct AttributeTypes {
    /// On how many devices each policy may set attributes: a policy without any claims nothing.
    setting: BTreeMap<PolicyKey, usize>,
    desired: BTreeMap<String, BTreeMap<Rank, TypeClaim>>,
    present: BTreeMap<String, BTreeMap<AttributeType, BTreeSet<NodeId>>>,
    /// The types that the API refuses permanently, on these devices.
    refused: BTreeMap<AttributeType, BTreeSet<NodeId>>,
}

impl AttributeTypes {
    /// Whether a policy, with its allowed settings on a device, sets attributes.
    #[must_use]
    pub fn is_set_by(policy: &Policy) -> bool {
        policy.mode != Mode::Observe && policy.desired.attributes.is_some()
    }

    /// Adds a device on which a policy may set attributes. Returns the policies that this may affect.
    pub fn gain_device(&mut self, policy: &Policy) -> BTreeSet<PolicyKey> {
        let devices = self.setting.entry(policy.key.clone()).or_default();
        *devices += 1;
        // A claim counts once for the tailnet, on however many devices.
        if *devices > 1 {
            return BTreeSet::new();
        }
        self.replace(None, Some(policy))
    }

    /// Removes such a device. The claims of a deleted policy (`None`) are already removed.
    pub fn lose_device(&mut self, key: &PolicyKey, policy: Option<&Policy>) -> BTreeSet<PolicyKey> {
        let Some(devices) = self.setting.get_mut(key) else {
            return BTreeSet::new();
        };
        *devices = devices.saturating_sub(1);
        if *devices > 0 {
            return BTreeSet::new();
        }
        self.setting.remove(key);
        self.replace(policy, None)
    }

    /// Replaces a policy by its new version. Returns the policies that this may affect.
    pub fn declare(
        &mut self,
        before: Option<&Policy>,
        after: Option<&Policy>,
    ) -> BTreeSet<PolicyKey> {
        // A policy that may set attributes nowhere claims nothing: it could take keys from all others.
        let sets = |policy: &&Policy| self.setting.contains_key(&policy.key);
        let (before, after) = (before.filter(sets), after.filter(sets));
        self.replace(before, after)
    }

    fn replace(&mut self, before: Option<&Policy>, after: Option<&Policy>) -> BTreeSet<PolicyKey> {
        let (before, after) = (claims_of(before), claims_of(after));
        let mut affected = BTreeSet::new();
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for folded in keys {
            let (old, new) = (before.get(folded), after.get(folded));
            if old == new {
                continue;
            }
            let claims = self.desired.entry(folded.clone()).or_default();
            let had_conflict = has_conflict(claims);
            if let Some((rank, _)) = old {
                claims.remove(rank);
            }
            if let Some((rank, claim)) = new {
                claims.insert(rank.clone(), claim.clone());
            }
            if had_conflict || has_conflict(claims) {
                affected.extend(claims.keys().map(|rank| rank.policy().clone()));
            }
            if claims.is_empty() {
                self.desired.remove(folded);
            }
        }
        affected
    }

    /// The policy that owns the type of a key, with its claim: the first in rank whose type does not conflict
    /// with the observed one, and which the API does not refuse.
    #[must_use]
    pub fn deciding(&self, key: &AttributeKey, now: Timestamp) -> Option<(&Rank, &TypeClaim)> {
        let claims = self.desired.get(&key.folded())?;
        let mut ranked = claims.iter();
        ranked.find(|(_, claim)| {
            claim.expiry.is_none_or(|expiry| expiry > now)
                // A claim that cannot be met would only keep others from a type that the tailnet can have.
                && self.against(&claim.attribute_type).is_none()
                && !self.refused.contains_key(&claim.attribute_type)
        })
    }

    /// Replaces the types that a device has. Returns the policies that this may affect.
    pub fn note(
        &mut self,
        node: &NodeId,
        before: &BTreeSet<AttributeType>,
        after: &BTreeSet<AttributeType>,
    ) -> BTreeSet<PolicyKey> {
        let mut affected = BTreeSet::new();
        for attribute_type in before.symmetric_difference(after) {
            let folded = attribute_type.key.folded();
            let types = self.present.entry(folded.clone()).or_default();
            let nodes = types.entry(attribute_type.clone()).or_default();
            let was_there = !nodes.is_empty();
            mark(nodes, node, after.contains(attribute_type));
            let is_there = !nodes.is_empty();
            if !is_there {
                types.remove(attribute_type);
            }
            if types.is_empty() {
                self.present.remove(&folded);
            }
            // Only the first and the last device of a type change something for others.
            if was_there != is_there {
                let claims = self.desired.get(&folded).into_iter().flatten();
                // If a claim becomes impossible, the next one in rank takes precedence.
                if claims
                    .clone()
                    .any(|(_, claim)| claim.attribute_type != *attribute_type)
                {
                    affected.extend(claims.map(|(rank, _)| rank.policy().clone()));
                }
            }
        }
        affected
    }

    /// Replaces the types that the API refuses on a device. Returns the policies that this may affect.
    pub fn note_refused(
        &mut self,
        node: &NodeId,
        before: &BTreeSet<AttributeType>,
        after: &BTreeSet<AttributeType>,
    ) -> BTreeSet<PolicyKey> {
        let mut affected = BTreeSet::new();
        for attribute_type in before.symmetric_difference(after) {
            let nodes = self.refused.entry(attribute_type.clone()).or_default();
            mark(nodes, node, after.contains(attribute_type));
            if nodes.is_empty() {
                self.refused.remove(attribute_type);
            }
            // A refusal passes the type to the claim that ranks next, and its end gives it back.
            let claims = self
                .desired
                .get(&attribute_type.key.folded())
                .into_iter()
                .flatten();
            affected.extend(claims.map(|(rank, _)| rank.policy().clone()));
        }
        affected
    }

    /// The type that the tailnet already has for the key, if it differs from this one, and a device that has
    /// it.
    #[must_use]
    pub fn against(&self, attribute_type: &AttributeType) -> Option<(&AttributeType, &NodeId)> {
        let present = self.present.get(&attribute_type.key.folded())?;
        let (other, nodes) = present.iter().find(|(other, _)| *other != attribute_type)?;
        Some((other, nodes.first()?))
    }
}

impl AttributeTypes {
    /// Whether the API would refuse an attribute because the tailnet has the key with another spelling or type. If
    /// a policy that takes precedence declares that type, there is a conflict with that policy instead.
    pub(in crate::plan::resolve) fn refuse(
        &self,
        policy: &Policy,
        key: &AttributeKey,
        desired: &DesiredAttribute,
        now: Timestamp,
    ) -> bool {
        self.against(&AttributeType::of(key, desired)).is_some()
            && self
                .deciding(key, now)
                .is_none_or(|(rank, _)| *rank >= policy.owned_rank())
    }
}

fn has_conflict(claims: &BTreeMap<Rank, TypeClaim>) -> bool {
    let mut types = claims.values().map(|claim| &claim.attribute_type);
    let first = types.next();
    types.any(|attribute_type| Some(attribute_type) != first)
}

/// The claims of a policy, by the key in lower case. An observing policy claims nothing.
fn claims_of(policy: Option<&Policy>) -> BTreeMap<String, (Rank, TypeClaim)> {
    let policy = policy.filter(|policy| policy.mode != Mode::Observe);
    let desired = policy.and_then(|policy| Some((policy, policy.desired.attributes.as_ref()?)));
    let claims = desired.into_iter().flat_map(|(policy, desired)| {
        desired.iter().map(|(key, desired)| {
            let claim = TypeClaim {
                attribute_type: AttributeType::of(key, desired),
                expiry: desired.expiry,
            };
            (key.folded(), (policy.owned_rank(), claim))
        })
    });
    claims.collect()
}

/// Adds a device to a set, or removes it.
fn mark(nodes: &mut BTreeSet<NodeId>, node: &NodeId, is_there: bool) {
    if is_there {
        nodes.insert(node.clone());
    } else {
        nodes.remove(node);
    }
}
