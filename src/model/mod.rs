//! The domain as types: a device, and the values that can be desired for it.
//!
//! Values are parsed at the boundary (a manifest, an answer of the API) and trusted from there on. The two
//! boundaries differ in strictness: `FromStr` is for desired values and refuses what the API would refuse;
//! `reported` is for what the API reports, which is kept as it is. Knows nothing of Kubernetes, HTTP or
//! timeouts.

mod address;
mod attribute;
mod brief;
mod causes;
mod change_limit;
mod counted;
mod device;
mod disruption;
mod field_kind;
mod folded;
mod invite;
mod list_setting;
mod name;
mod near;
mod node_id;
mod ownership;
mod printable;
mod reason;
mod route;
mod setting;
mod tag;
mod tag_set;
mod time;
mod unreadable;

pub use address::TailnetIpv4;
pub use attribute::{
    AttributeKey, AttributeString, AttributeValue, Attributes, DesiredAttribute, ReportedAttribute,
    SafeInteger, ValueKind,
};
pub use brief::brief;
pub use causes::causes;
pub use change_limit::{ChangeLimit, share_of_one_namespace};
pub use counted::counted;
pub use device::Device;
pub use disruption::Disruption;
pub use field_kind::FieldKind;
pub use folded::{folded, is_same_name};
pub use invite::{DesiredInvite, Invite};
pub use list_setting::{ListSetting, ListValue};
pub use name::DeviceLabel;
pub use near::nearest;
pub use node_id::NodeId;
pub use ownership::{AttributesOwnership, ListOwnership};
pub(crate) use printable::is_unprintable;
pub use printable::printable;
pub use reason::Reason;
pub use route::{Route, RouteSet};
pub use setting::{PolicyField, Setting, SettingValue, Step, UniqueValue};
pub use tag::Tag;
pub use tag_set::TagSet;
pub use time::parse_time;
pub use unreadable::{DeviceField, UnreadableDevice, UnreadableDevices, UnreadableFields};

/// Why a value was refused: what was found and what was expected.
///
/// The message is complete in itself; the caller adds the place (file, line, field).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// The annotation that approves a held plan or a device: `plan:HASH` and `node:ID`, separated by
/// commas.
pub const APPROVE: &str = "tailnet.dev/approve";
