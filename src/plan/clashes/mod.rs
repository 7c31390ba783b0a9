//! What no single device shows: where policies of different devices get in each other's way.
//!
//! | what the tailnet has once    | between policies                | with what is there already        |
//! |------------------------------|---------------------------------|-----------------------------------|
//! | the form of an attribute key | [`Dispute::Form`], a conflict   | [`super::Hold::AttributeClash`]   |
//! | an IPv4 address              | [`Dispute::Device`], a conflict | `AddressInUse`, and `AddressSwap` |
//! | a name                       | [`Dispute::Device`], a conflict | `NameTaken`                       |
//!
//! Kept up to date one policy and one device at a time; each change says what is to be compared anew.

mod forms;
#[cfg(test)]
mod tests;
mod wants;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

pub use forms::{Form, Forms};
pub use wants::{Want, Wants};

use super::{Claims, Memory, Permits, Policy, Reaches};
use crate::model::{Attributes, NodeId};

/// What the policies of a tailnet claim of what it has only once.
#[derive(Debug, Clone, Default)]
pub struct Clashes {
    /// How the keys of attributes are written and typed.
    pub forms: Forms,
    /// Addresses and names.
    pub wants: Wants,
}

impl Clashes {
    /// All at once, for a whole tailnet: `held` has the policies of each device, as they count there.
    /// Counts the attributes of those devices whose policies name some, as nobody reads those of others.
    #[must_use]
    pub fn among<'a>(
        held: &BTreeMap<NodeId, Vec<(&'a Policy, &'a Memory)>>,
        attributes: &BTreeMap<NodeId, Attributes>,
        now: Timestamp,
    ) -> Self {
        let mut clashes = Self::default();
        for (policy, _) in held.values().flatten() {
            if Forms::is_set_by(policy) {
                clashes.forms.gain_device(policy);
            }
        }
        for (node, policies) in held {
            let claims = Claims::settle(
                policies,
                &[],
                &clashes.forms,
                &Permits::default(),
                Reaches::default(),
                node,
                now,
            );
            let read = attributes.get(node).filter(|_| claims.need_attributes());
            let forms = read.map(Form::all).unwrap_or_default();
            clashes.forms.note(node, &BTreeSet::new(), &forms);
            clashes.wants.put(node, Want::of(&claims, policies));
        }
        clashes
    }
}

/// What two policies cannot both have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dispute {
    /// A field of one device.
    #[default]
    Field,
    /// An attribute key, which has one spelling and one type in the whole tailnet: the winner's.
    Form(Form),
    /// What only one device can have: the winner wishes it for this one.
    Device(String),
}

impl fmt::Display for Dispute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field => Ok(()),
            Self::Form(form) => write!(
                f,
                ", which wishes for {form} (a key has one spelling and one type in the whole tailnet)"
            ),
            Self::Device(device) => write!(f, ", which wishes for it on {device}"),
        }
    }
}
