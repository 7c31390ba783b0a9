use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A change that can cut a device off.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, Hash,
)]
pub enum Disruption {
    /// Remove a device's authorization.
    Deauthorize,
    /// Enable key expiry on a device whose key is past its expiry.
    ExpiredKey,
    /// Give a selected device its first tag.
    FirstTag,
}

/// As in a manifest.
impl fmt::Display for Disruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
