//! The policies that need the attributes of a device.

use std::collections::BTreeSet;

use super::{FieldOwners, PolicyKey};
use crate::plan::{ConflictKind, Field};

impl FieldOwners {
    /// The policies for which the attributes of the device must be read.
    #[must_use]
    pub fn attribute_readers(&self) -> BTreeSet<&PolicyKey> {
        let declaring = self.attributes.values().flat_map(|claim| &claim.owners);
        let deleting = self
            .removed_keys
            .values()
            .chain(self.released_keys.values())
            .flatten();
        let overridden = self.conflicts.iter().filter_map(|conflict| {
            let is_attribute = matches!(conflict.field, Field::Attribute(_));
            let is_type = matches!(conflict.kind, ConflictKind::Type(_));
            (is_attribute && is_type).then_some(&conflict.overridden)
        });
        let impossible = self.impossible.iter().map(|(policy, ..)| policy);
        let shown = self.only_shown().flat_map(Self::attribute_readers);
        declaring
            .chain(deleting)
            .chain(overridden)
            .chain(&self.exact_attribute_owners)
            .chain(impossible)
            .chain(shown)
            .collect()
    }
}
