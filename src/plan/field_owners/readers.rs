//! For whom the attributes of a device are read.

use std::collections::BTreeSet;

use super::{FieldOwners, PolicyKey};
use crate::plan::{ConflictKind, Field};

impl FieldOwners {
    /// The policies for which the attributes of the device must be known.
    #[must_use]
    pub fn attribute_readers(&self) -> BTreeSet<&PolicyKey> {
        let declaring = self.attributes.values().flat_map(|claim| &claim.owners);
        let deleting = self
            .removed_keys
            .values()
            .chain(self.released_keys.values())
            .flatten();
        let of_a_type = self.conflicts.iter().filter_map(|lost| {
            let is_attribute = matches!(lost.field, Field::Attribute(_));
            let is_type = matches!(lost.kind, ConflictKind::Type(_));
            (is_attribute && is_type).then_some(&lost.overridden)
        });
        let in_vain = self.impossible.iter().map(|(policy, ..)| policy);
        let aside = self.aside().flat_map(Self::attribute_readers);
        declaring
            .chain(deleting)
            .chain(of_a_type)
            .chain(&self.exact_attribute_owners)
            .chain(in_vain)
            .chain(aside)
            .collect()
    }
}
