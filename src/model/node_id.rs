use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

use super::Refused;

/// The id by which the API knows a device: `nodeId` (such as `n292kg92CNTRL`).
///
/// Every endpoint also accepts the older numeric `id`, but here a device has one `NodeId`: the preferred one.
/// Shared, because each device is named in many places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The id as the API writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = Refused;

    /// Letters and digits only: the id becomes a segment of a URL's path.
    fn from_str(text: &str) -> Result<Self, Refused> {
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(text.into()))
        } else {
            Err(Refused(format!(
                "'{text}' is not a valid device id: write 1 to 64 letters and digits, such as n292kg92CNTRL"
            )))
        }
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
