//! Which attribute keys each policy manages on a device.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, Field, FieldOwners, Mode, PolicyKey};
use crate::model::AttributeKey;

/// The attribute keys that each policy manages: what differs is changed for it, and what does not
/// differ would be.
pub(super) fn keys<'a>(
    claims: &FieldOwners,
    acting: Vec<(AttributeKey, PolicyKey)>,
    differences: &(impl Iterator<Item = &'a Difference> + Clone),
) -> BTreeMap<PolicyKey, BTreeSet<AttributeKey>> {
    let differs = |key: &AttributeKey| {
        let field = Field::Attribute(key.clone());
        let mut differences = differences.clone();
        differences.find(|difference| difference.change.field() == field)
    };
    let acting = acting
        .into_iter()
        .filter(|(key, _)| differs(key).is_some_and(|difference| difference.hold.is_none()));
    let in_sync = claims
        .attributes
        .iter()
        .filter(|(key, _)| differs(key).is_none());
    let in_sync = in_sync.flat_map(|(key, claim)| {
        let field = Field::Attribute(key.clone());
        let owners = claim.owners.iter();
        let owners = owners.filter(move |owner| claims.acts_on(owner, &field));
        owners.map(|owner| (key.clone(), owner.clone()))
    });
    let mut managed: BTreeMap<PolicyKey, BTreeSet<AttributeKey>> = BTreeMap::new();
    for (key, policy) in acting.chain(in_sync) {
        managed.entry(policy).or_default().insert(key);
    }
    managed
}

impl FieldOwners {
    /// The attribute keys that each policy decides and is not suspended for, whether or not they differ.
    #[must_use]
    pub fn declared_keys(&self) -> BTreeMap<PolicyKey, BTreeSet<AttributeKey>> {
        let mut declared: BTreeMap<PolicyKey, BTreeSet<AttributeKey>> = BTreeMap::new();
        for (key, claim) in &self.attributes {
            let owners = claim.owners.iter();
            for owner in owners.filter(|it| !matches!(self.mode(it), Mode::Suspended(_))) {
                declared
                    .entry(owner.clone())
                    .or_default()
                    .insert(key.clone());
            }
        }
        declared
    }
}
