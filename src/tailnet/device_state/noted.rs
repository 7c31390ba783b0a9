//! What other devices take into account of a device.

use std::collections::BTreeSet;

use crate::plan::{AttributeType, PolicyKey};

/// What a device was last noted with in [`crate::plan::TailnetWide`].
#[derive(Debug, Clone, Default)]
pub(in crate::tailnet) struct Noted {
    /// The policies that may set attributes here.
    pub setting: BTreeSet<PolicyKey>,
    /// The types of its attributes.
    pub types: BTreeSet<AttributeType>,
    /// The types of attributes that the API refuses here.
    pub refused: BTreeSet<AttributeType>,
}
