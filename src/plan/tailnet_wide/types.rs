use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

use crate::{
    model::{AttributeKey, Attributes, DesiredAttribute, NodeId, ValueKind},
    plan::{Mode, Policy, PolicyKey, Rank},
};

/// How an attribute key is written, and the type of its values. A tailnet has one form of each key:
/// the type is fixed by the first write, and keys that differ only in case are one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttributeType {
    /// As it is written.
    pub key: AttributeKey,
    /// The type of its values.
    pub kind: ValueKind,
}

impl AttributeType {
    /// The form that a wish asks for.
    #[must_use]
    pub fn of(key: &AttributeKey, desired: &DesiredAttribute) -> Self {
        Self {
            key: key.clone(),
            kind: desired.value.kind(),
        }
    }

    /// The forms of a device's attributes.
    #[must_use]
    pub fn all(attributes: &Attributes) -> BTreeSet<Self> {
        let types = attributes.iter().filter_map(|(key, reported)| {
            Some(Self {
                key: key.clone(),
                kind: reported.kind()?,
            })
        });
        types.collect()
    }
}

impl fmt::Display for AttributeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.key, self.kind)
    }
}

/// A policy's claim on the form of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeClaim {
    /// Its form.
    pub attribute_type: AttributeType,
    /// When the wish ends, and the claim with it.
    pub expiry: Option<Timestamp>,
}

/// The forms of all attribute keys that policies may set somewhere or devices have, by the key without
/// regard to case.
#[derive(Debug, Clone, Default)]
pub struct AttributeTypes {
    /// On how many devices each policy may set attributes: one that may on none claims nothing.
    setting: BTreeMap<PolicyKey, usize>,
    desired: BTreeMap<String, BTreeMap<Rank, TypeClaim>>,
    present: BTreeMap<String, BTreeMap<AttributeType, BTreeSet<NodeId>>>,
    /// What the API has refused for good, on these devices.
    refused: BTreeMap<AttributeType, BTreeSet<NodeId>>,
}

impl AttributeTypes {
    /// Whether a policy sets attributes, as it counts on a device.
    #[must_use]
    pub fn is_set_by(policy: &Policy) -> bool {
        policy.mode != Mode::Observe && policy.desired.attributes.is_some()
    }

    /// There is one device more on which a policy may set attributes. Gives the policies for which that
    /// may change something.
    pub fn gain_device(&mut self, policy: &Policy) -> BTreeSet<PolicyKey> {
        let devices = self.setting.entry(policy.key.clone()).or_default();
        *devices += 1;
        if *devices > 1 {
            return BTreeSet::new();
        }
        self.replace(None, Some(policy))
    }

    /// There is one device less. A policy that is gone has taken its claims back already.
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

    /// Puts a policy as it is now in the place of the same policy as it was before. Gives the policies
    /// for which that may change something.
    pub fn declare(
        &mut self,
        before: Option<&Policy>,
        after: Option<&Policy>,
    ) -> BTreeSet<PolicyKey> {
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
            let clashed = conflict(claims);
            if let Some((rank, _)) = old {
                claims.remove(rank);
            }
            if let Some((rank, claim)) = new {
                claims.insert(rank.clone(), claim.clone());
            }
            if clashed || conflict(claims) {
                affected.extend(claims.keys().map(|rank| rank.policy().clone()));
            }
            if claims.is_empty() {
                self.desired.remove(folded);
            }
        }
        affected
    }

    /// The policy that decides the form of a key, with its claim: the first of which the tailnet does not
    /// have the key in another form.
    #[must_use]
    pub fn deciding(&self, key: &AttributeKey, now: Timestamp) -> Option<(&Rank, &TypeClaim)> {
        let claims = self.desired.get(&key.folded())?;
        let live = |claim: &TypeClaim| claim.expiry.is_none_or(|expiry| expiry > now);
        let can_hold = |claim: &TypeClaim| {
            self.against(&claim.attribute_type).is_none()
                && !self.refused.contains_key(&claim.attribute_type)
        };
        let mut ranked = claims.iter();
        ranked.find(|(_, claim)| live(claim) && can_hold(claim))
    }

    /// Notes the forms that a device has now, in the place of those that it had before. Gives the
    /// policies for which that may change something.
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
            if was_there != is_there {
                let claims = self.desired.get(&folded);
                let differs = |claims: &&BTreeMap<Rank, TypeClaim>| {
                    claims
                        .values()
                        .any(|claim| claim.attribute_type != *attribute_type)
                };
                // Whose claim cannot hold makes room for the others.
                let claims = claims.filter(differs).into_iter().flatten();
                affected.extend(claims.map(|(rank, _)| rank.policy().clone()));
            }
        }
        affected
    }

    /// Notes the forms that the API refuses on a device now, in the place of those that it refused before.
    /// Gives the policies for which that may change something.
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
            let claims = self
                .desired
                .get(&attribute_type.key.folded())
                .into_iter()
                .flatten();
            affected.extend(claims.map(|(rank, _)| rank.policy().clone()));
        }
        affected
    }

    /// A form of the same key that is there already and differs from this one, and a device that has it.
    #[must_use]
    pub fn against(&self, attribute_type: &AttributeType) -> Option<(&AttributeType, &NodeId)> {
        let present = self.present.get(&attribute_type.key.folded())?;
        let (other, nodes) = present.iter().find(|(other, _)| *other != attribute_type)?;
        Some((other, nodes.first()?))
    }
}

fn conflict(claims: &BTreeMap<Rank, TypeClaim>) -> bool {
    let mut types = claims.values().map(|claim| &claim.attribute_type);
    let first = types.next();
    types.any(|attribute_type| Some(attribute_type) != first)
}

/// What a policy claims, by the key without regard to case. One that observes claims nothing.
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

/// Puts a device into a set, or takes it out.
fn mark(nodes: &mut BTreeSet<NodeId>, node: &NodeId, is_there: bool) {
    if is_there {
        nodes.insert(node.clone());
    } else {
        nodes.remove(node);
    }
}
