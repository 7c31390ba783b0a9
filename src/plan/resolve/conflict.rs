use std::fmt;

use crate::plan::{AttributeType, Field, PolicyKey};

/// A field in which one policy is overridden by another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Conflict {
    /// The field.
    pub field: Field,
    /// The policy that is overridden.
    pub overridden: PolicyKey,
    /// The value that it declares.
    pub declared: String,
    /// The policy that takes precedence.
    pub owner: PolicyKey,
    /// Whether the message for the overridden policy may name the owner: both may change the field of one
    /// device, both are in one namespace, or the overridden policy may change every device.
    pub is_named: bool,
    /// Why both policies cannot have what they declare.
    pub kind: ConflictKind,
}

/// `tags to network/first`
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.field, self.by())
    }
}

impl Conflict {
    /// The policy that takes precedence, as the author of the overridden one may see it, and why: `network/first`.
    #[must_use]
    pub fn by(&self) -> String {
        let kind = &self.kind;
        if self.is_named {
            format!("{}{kind}", self.owner)
        } else {
            format!("a policy of another namespace{kind}")
        }
    }
}

/// Why two policies cannot both have what they declare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum ConflictKind {
    /// A field of one device.
    #[default]
    Field,
    /// An attribute key has one spelling and one type in the whole tailnet: that of the owner.
    Type(AttributeType),
    /// Only one device can have the setting: the owner declares it for this one.
    Device(String),
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field => Ok(()),
            Self::Type(attribute_type) => write!(
                f,
                ", which declares {attribute_type} (a key has one spelling and one type in the whole tailnet)"
            ),
            Self::Device(device) => write!(f, ", which declares it for {device}"),
        }
    }
}
