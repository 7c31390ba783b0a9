//! The words of the field as types: what a device is, and the values that can be wished for it.
//!
//! Values are parsed at the border (a manifest, an answer of the API) and trusted from there on.
//! Two borders, two degrees of strictness: `FromStr` is for *wishes* and refuses what the API would
//! refuse; `reported` is for what the API itself says, which is kept as it is.
//! Knows nothing of Kubernetes, HTTP or time-outs.

mod address;
mod attribute;
mod change_limit;
mod device;
mod invite;
mod name;
mod node_id;
mod route;
mod tag;

pub use address::TailnetIpv4;
pub use attribute::{
    AttributeKey, AttributeString, AttributeValue, Attributes, DesiredAttribute, ReportedAttribute,
    SafeInteger, ValueKind,
};
pub use change_limit::{ChangeLimit, share_of_one_namespace};
pub use device::Device;
pub use invite::{DesiredInvite, Invite};
pub use name::DeviceLabel;
pub use node_id::NodeId;
pub use route::{Route, RouteSet};
pub use tag::{Tag, TagSet};

/// Why a value was refused: what was expected and what was found.
///
/// The message stands alone; the caller adds where (file, line, field).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);
