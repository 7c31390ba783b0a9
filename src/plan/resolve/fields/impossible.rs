//! Attributes that the API would refuse, because the tailnet has the key with another spelling or type.

use super::FieldOwners;
use crate::{
    model::{AttributeKey, DesiredAttribute},
    plan::{Policy, PolicyKey},
};

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
        // The conflict ends with the desired attribute, and the device must be planned again then.
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
