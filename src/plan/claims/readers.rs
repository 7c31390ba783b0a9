//! For whom the attributes of a device are read.

use std::collections::BTreeSet;

use super::{Claims, PolicyKey};
use crate::plan::{Dispute, Field};

impl Claims {
    /// The policies for which the attributes of the device must be known.
    #[must_use]
    pub fn attribute_readers(&self) -> BTreeSet<&PolicyKey> {
        let declaring = self.attributes.values().flat_map(|claim| &claim.owners);
        let deleting = self.prunes.values().chain(self.clears.values()).flatten();
        let of_a_type = self.conflicts.iter().filter_map(|lost| {
            let is_attribute = matches!(lost.field, Field::Attribute(_));
            let is_type = matches!(lost.dispute, Dispute::Form(_));
            (is_attribute && is_type).then_some(&lost.loser)
        });
        let in_vain = self.impossible.iter().map(|(policy, ..)| policy);
        let aside = self.aside().flat_map(Self::attribute_readers);
        declaring
            .chain(deleting)
            .chain(of_a_type)
            .chain(&self.sweepers)
            .chain(in_vain)
            .chain(aside)
            .collect()
    }
}
