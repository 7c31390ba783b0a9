//! The custom resources: their schema, their rules, the constants of conditions and reasons.
//!
//! Plain data as it stands in a manifest: values are parsed into those of [`crate::model`] where a
//! plan is made. Knows nothing of HTTP.

mod acts;
mod attribute_record;
pub mod conditions;
mod duration;
mod rules;
pub mod schema;

mod device;
mod guards;
mod invite;
mod policy;
mod policy_status;
mod tailnet;
mod unreadable;
mod wishes;

pub use acts::{ActRecords, ActStatus, ActTotals, DeletedDevice, KeyExpiries, Reap, StartedExpiry};
pub use attribute_record::{AttributeRecord, DeviceDigest, DigestGroup, ListedDevices};
pub use conditions::Reason;
pub use device::{DeviceReference, DeviceSelector};
pub use guards::{AllowedNamespaces, AllowedPolicies, GuardedDevices, PolicyField};
pub use invite::{
    InviteDeletionPolicy, TailscaleDeviceInvite, TailscaleDeviceInviteSpec,
    TailscaleDeviceInviteStatus,
};
pub use policy::{
    APPROVE, LOOK_REQUESTS, TailnetReference, TailscaleDevicePolicy, TailscaleDevicePolicySpec,
};
pub use policy_status::{
    DeviceStatus, HeldPlan, Holdings, LetGo, PartlyManaged, PendingChange,
    TailscaleDevicePolicyStatus,
};
pub use tailnet::{
    HeldPolicy, RecentChanges, RecentDeletions, RequestBudget, SecretReference, TailscaleTailnet,
    TailscaleTailnetSpec, TailscaleTailnetStatus,
};

pub use unreadable::{DeserializeGuard, Unreadable};
pub use wishes::{
    AttributesOwnership, DeletionPolicy, Disruption, Enforcement, KeyExpiry, ListOwnership,
    Ownership, PostureAttribute,
};

/// The API group of the custom resources.
pub const GROUP: &str = "tailnet.dev";

/// Their version.
pub const VERSION: &str = "v1alpha1";
