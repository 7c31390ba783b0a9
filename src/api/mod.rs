//! The custom resources: their schemas, their rules, and the constants of conditions and reasons.
//!
//! Plain data as a manifest has it: the planner parses the values into those of [`crate::model`].
//! This module knows nothing of HTTP.

mod actions;
mod attribute_record;
pub mod conditions;
mod duration;
mod rules;
pub mod schema;

mod device;
mod guardrails;
mod invite;
mod policy;
mod policy_status;
mod settings;
mod tailnet;
mod unreadable;

pub use actions::{
    ActionStatus, ActionTotals, DeleteInactiveSpec, DeletedDevice, KeyExpiries, RecordedActions,
    StartedExpiry,
};
pub use attribute_record::{AttributeRecord, DeviceDigest, DigestGroup, ListedDevices};
pub use device::{DeviceReference, DeviceSelector};
pub use guardrails::{AllowedNamespaces, AllowedPolicies, GuardedDevices};
pub use invite::{
    InviteDeletionPolicy, TailscaleDeviceInvite, TailscaleDeviceInviteSpec,
    TailscaleDeviceInviteStatus,
};
pub use policy::{
    RECONCILE_ANNOTATIONS, TailnetReference, TailscaleDevicePolicy, TailscaleDevicePolicySpec,
};
pub use policy_status::{
    AmbiguousDevices, DeviceStatus, HeldChanges, HeldPlan, PendingChange, RecordedDevices,
    RecordedPart, RecordedRelease, ReleasedFields, TailscaleDevicePolicyStatus,
};
pub use tailnet::{
    HeldPolicy, RecentChanges, RecentDeletions, RequestBudget, SecretReference, TailscaleTailnet,
    TailscaleTailnetSpec, TailscaleTailnetStatus, UnreadableDevice,
};

pub use crate::model::{
    APPROVE, AttributesOwnership, Disruption, ListOwnership, PolicyField, Reason,
};
pub use rules::RuleCode;
pub(crate) use rules::{KEY_NEVER_EXPIRES, Remedy};
pub use settings::{DeletionPolicy, Enforcement, KeyExpiry, OwnershipSpec, PostureAttribute};
pub use unreadable::{DeserializeGuard, Unreadable};

/// The API group of the custom resources.
pub const GROUP: &str = "tailnet.dev";

/// Their version.
pub const VERSION: &str = "v1alpha1";
