//! Attributes that the API would refuse, because the tailnet has the key with another spelling or type.

use jiff::Timestamp;

use super::FieldOwners;
use crate::{
    model::{AttributeKey, DesiredAttribute},
    plan::{AttributeType, AttributeTypes, Policy, PolicyKey},
};

/// Whether the API would refuse an attribute because the tailnet has the key with another spelling or type. If
/// a policy that takes precedence declares that type, there is a conflict with that policy instead.
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
    /// Records an attribute that the tailnet cannot have. It overrides no other policy.
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

    /// Whether a policy declares an attribute that the API would refuse.
    pub(in crate::plan) fn is_impossible_for(
        &self,
        key: &AttributeKey,
        policy: &PolicyKey,
    ) -> bool {
        let mut impossible = self.impossible.iter();
        impossible.any(|(of, desired, _)| of == policy && desired == key)
    }
}
