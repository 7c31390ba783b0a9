//! What a policy manages on its devices, and clears on those that it releases.

mod clears;
pub(super) mod declared_keys;
mod key_expiries;
mod managed_devices;
mod managed_fields;
mod managed_routes;
mod owned;
mod partly_managed;
mod released_settings;
mod removed_fields;

pub use key_expiries::KeyExpiries;
pub use managed_devices::{MAX_MANAGED, ManagedDevices, ManagedSettings, Released};
pub use managed_fields::{Edit, ManagedFields, ReleasedFields};
pub use owned::{Capacity, Digest, OwnedGroup, OwnedKeys, OwnedRecord};
pub use partly_managed::PartlyManaged;
pub use released_settings::ReleasedSetting;
pub(in crate::plan) use released_settings::released_settings;
