//! Attributes that the API would refuse, as the tailnet has the key in another form.

use jiff::Timestamp;

use super::FieldOwners;
use crate::{
    model::{AttributeKey, DesiredAttribute},
    plan::{AttributeType, AttributeTypes, Policy, PolicyKey},
};

/// Whether the API would refuse an attribute, as the tailnet has the key in another form. Where a policy that
/// takes precedence desires it so, that is a conflict with that one.
pub(super) fn is_impossible(
    policy: &Policy,
    key: &AttributeKey,
    desired: &DesiredAttribute,
    types: &AttributeTypes,
    now: Timestamp,
) -> bool {
    let decided_before = || {
        let deciding = types.deciding(key, now);
        deciding.is_some_and(|(rank, _)| *rank < policy.owned_rank())
    };
    types.against(&AttributeType::of(key, desired)).is_some() && !decided_before()
}

impl FieldOwners {
    /// What cannot hold in the tailnet stands in nobody's way until it can.
    pub(super) fn set_impossible(
        &mut self,
        policy: &Policy,
        key: &AttributeKey,
        desired: &DesiredAttribute,
    ) {
        self.impossible
            .push((policy.key.clone(), key.clone(), desired.clone()));
        let ends = self.conflicts_end.into_iter();
        self.conflicts_end = ends.chain(desired.expiry).min();
    }

    /// Whether a policy desires an attribute in vain, as the tailnet has the key in another form.
    pub(in crate::plan) fn is_impossible_for(
        &self,
        key: &AttributeKey,
        policy: &PolicyKey,
    ) -> bool {
        let mut impossible = self.impossible.iter();
        impossible.any(|(of, desired, _)| of == policy && desired == key)
    }
}
