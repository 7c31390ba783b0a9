//! Resolves which devices a policy targets, and which policy owns each field of a device.

mod conflict;
mod devices;
mod fields;
mod lists;
mod readable;
mod tailnet_wide;
mod taken_over;

pub use conflict::{Conflict, ConflictKind};
pub use devices::{Binding, bind, bind_policy, may_change, recorded, successor};
pub use fields::FieldOwners;
pub use lists::ListOwners;
pub(super) use readable::with_observed;
pub use tailnet_wide::{AttributeType, AttributeTypes, TailnetWide, UniqueSetting};
