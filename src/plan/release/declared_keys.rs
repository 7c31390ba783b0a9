//! Which attribute keys each policy manages on a device.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::AttributeKey;
use crate::plan::{Difference, Field, FieldOwners, Mode, PolicyKey};

/// The attribute keys that each policy manages: those that are being changed for it, and those that are in
/// sync.
pub(in crate::plan) fn keys<'a>(
    field_owners: &FieldOwners,
    acting: &[(AttributeKey, PolicyKey)],
    differences: &(impl Iterator<Item = &'a Difference> + Clone),
) -> BTreeMap<PolicyKey, BTreeSet<AttributeKey>> {
    let difference_of = |key: &AttributeKey| {
        let field = Field::Attribute(key.clone());
        let mut differences = differences.clone();
        differences.find(|difference| difference.change.field() == field)
    };
    let acting = acting
        .iter()
        .filter(|(key, _)| difference_of(key).is_some_and(|difference| difference.hold.is_none()));
    // A key in sync is owned too, because the policy would set it if it differed (docs/decisions/0020).
    let in_sync = field_owners
        .attributes
        .iter()
        .filter(|(key, _)| difference_of(key).is_none())
        .flat_map(|(key, claim)| {
            let field = Field::Attribute(key.clone());
            claim
                .owners
                .iter()
                .filter(move |owner| field_owners.acts_on(owner, &field))
                .map(|owner| (key.clone(), owner.clone()))
        });
    let mut managed: BTreeMap<PolicyKey, BTreeSet<AttributeKey>> = BTreeMap::new();
    for (key, policy) in acting.cloned().chain(in_sync) {
        managed.entry(policy).or_default().insert(key);
    }
    managed
}

impl FieldOwners {
    /// The attribute keys that each policy owns, whether or not they differ. Suspended policies are left out.
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
