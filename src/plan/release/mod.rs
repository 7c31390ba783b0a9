//! What a policy manages on its devices, and clears on those that it releases.

mod clears;
pub(super) mod declared_keys;
mod key_expiries;
mod managed_devices;
mod managed_routes;
mod owned;
mod partly_managed;

pub use key_expiries::KeyExpiries;
pub use managed_devices::{MAX_MANAGED, ManagedDevices, ManagedSettings, Released};
pub use owned::{Capacity, Digest, OwnedGroup, OwnedKeys, OwnedRecord};
pub use partly_managed::PartlyManaged;
