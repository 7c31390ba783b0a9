use std::{collections::BTreeSet, fmt};

use crate::model::{AttributeKey, Attributes, DesiredAttribute, ValueKind};

/// The spelling of an attribute key, and the type of its values. A tailnet has one of each for a key: the first
/// write fixes the type, and keys that differ only in case are one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeType {
    /// The key, as it is spelled.
    pub key: AttributeKey,
    /// The type of its values.
    pub kind: ValueKind,
}

impl AttributeType {
    /// The type of a desired attribute.
    #[must_use]
    pub fn of(key: &AttributeKey, desired: &DesiredAttribute) -> Self {
        Self {
            key: key.clone(),
            kind: desired.value.kind(),
        }
    }

    /// The types of a device's attributes.
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
