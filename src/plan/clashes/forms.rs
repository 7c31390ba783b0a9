use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

use crate::{
    model::{AttributeKey, AttributeWish, Attributes, NodeId, ValueKind},
    plan::{Mode, Policy, PolicyKey, Rank},
};

/// How an attribute key is written, and the type of its values. A tailnet has one form of each key:
/// the type is fixed by the first write, and keys that differ only in case are one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// As it is written.
    pub key: AttributeKey,
    /// The type of its values.
    pub kind: ValueKind,
}

impl Form {
    /// The form that a wish asks for.
    #[must_use]
    pub fn of(key: &AttributeKey, wish: &AttributeWish) -> Self {
        Self {
            key: key.clone(),
            kind: wish.value.kind(),
        }
    }

    /// The forms of a device's attributes.
    #[must_use]
    pub fn all(attributes: &Attributes) -> BTreeSet<Self> {
        let forms = attributes.iter().filter_map(|(key, reported)| {
            Some(Self {
                key: key.clone(),
                kind: reported.kind()?,
            })
        });
        forms.collect()
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.key, self.kind)
    }
}

/// A policy's claim on the form of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormClaim {
    /// Its form.
    pub form: Form,
    /// When the wish ends, and the claim with it.
    pub expiry: Option<Timestamp>,
}

/// The forms of all attribute keys that policies may set somewhere or devices have, by the key without
/// regard to case.
#[derive(Debug, Clone, Default)]
pub struct Forms {
    /// On how many devices each policy may set attributes: one that may on none claims nothing.
    setting: BTreeMap<PolicyKey, usize>,
    wished: BTreeMap<String, BTreeMap<Rank, FormClaim>>,
    present: BTreeMap<String, BTreeMap<Form, BTreeSet<NodeId>>>,
    /// What the API has refused for good, on these devices.
    refused: BTreeMap<Form, BTreeSet<NodeId>>,
}

impl Forms {
    /// Whether a policy sets attributes, as it counts on a device.
    #[must_use]
    pub fn is_set_by(policy: &Policy) -> bool {
        policy.mode != Mode::Observe && policy.wishes.attributes.is_some()
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
            let claims = self.wished.entry(folded.clone()).or_default();
            let clashed = clash(claims);
            if let Some((rank, _)) = old {
                claims.remove(rank);
            }
            if let Some((rank, claim)) = new {
                claims.insert(rank.clone(), claim.clone());
            }
            if clashed || clash(claims) {
                affected.extend(claims.keys().map(|rank| rank.policy().clone()));
            }
            if claims.is_empty() {
                self.wished.remove(folded);
            }
        }
        affected
    }

    /// The policy that decides the form of a key, with its claim: the first of which the tailnet does not
    /// have the key in another form.
    #[must_use]
    pub fn deciding(&self, key: &AttributeKey, now: Timestamp) -> Option<(&Rank, &FormClaim)> {
        let claims = self.wished.get(&key.folded())?;
        let live = |claim: &FormClaim| claim.expiry.is_none_or(|expiry| expiry > now);
        let can_hold = |claim: &FormClaim| {
            self.against(&claim.form).is_none() && !self.refused.contains_key(&claim.form)
        };
        let mut ranked = claims.iter();
        ranked.find(|(_, claim)| live(claim) && can_hold(claim))
    }

    /// Notes the forms that a device has now, in the place of those that it had before. Gives the
    /// policies for which that may change something.
    pub fn note(
        &mut self,
        node: &NodeId,
        before: &BTreeSet<Form>,
        after: &BTreeSet<Form>,
    ) -> BTreeSet<PolicyKey> {
        let mut affected = BTreeSet::new();
        for form in before.symmetric_difference(after) {
            let folded = form.key.folded();
            let forms = self.present.entry(folded.clone()).or_default();
            let nodes = forms.entry(form.clone()).or_default();
            let was_there = !nodes.is_empty();
            mark(nodes, node, after.contains(form));
            let is_there = !nodes.is_empty();
            if !is_there {
                forms.remove(form);
            }
            if forms.is_empty() {
                self.present.remove(&folded);
            }
            if was_there != is_there {
                let claims = self.wished.get(&folded);
                let differs = |claims: &&BTreeMap<Rank, FormClaim>| {
                    claims.values().any(|claim| claim.form != *form)
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
        before: &BTreeSet<Form>,
        after: &BTreeSet<Form>,
    ) -> BTreeSet<PolicyKey> {
        let mut affected = BTreeSet::new();
        for form in before.symmetric_difference(after) {
            let nodes = self.refused.entry(form.clone()).or_default();
            mark(nodes, node, after.contains(form));
            if nodes.is_empty() {
                self.refused.remove(form);
            }
            let claims = self.wished.get(&form.key.folded()).into_iter().flatten();
            affected.extend(claims.map(|(rank, _)| rank.policy().clone()));
        }
        affected
    }

    /// A form of the same key that is there already and differs from this one, and a device that has it.
    #[must_use]
    pub fn against(&self, form: &Form) -> Option<(&Form, &NodeId)> {
        let present = self.present.get(&form.key.folded())?;
        let (other, nodes) = present.iter().find(|(other, _)| *other != form)?;
        Some((other, nodes.first()?))
    }
}

fn clash(claims: &BTreeMap<Rank, FormClaim>) -> bool {
    let mut forms = claims.values().map(|claim| &claim.form);
    let first = forms.next();
    forms.any(|form| Some(form) != first)
}

/// What a policy claims, by the key without regard to case. One that observes claims nothing.
fn claims_of(policy: Option<&Policy>) -> BTreeMap<String, (Rank, FormClaim)> {
    let policy = policy.filter(|policy| policy.mode != Mode::Observe);
    let wishes = policy.and_then(|policy| Some((policy, policy.wishes.attributes.as_ref()?)));
    let claims = wishes.into_iter().flat_map(|(policy, wishes)| {
        wishes.iter().map(|(key, wish)| {
            let claim = FormClaim {
                form: Form::of(key, wish),
                expiry: wish.expiry,
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
