//! Plans requests from policies and observed devices: pure functions on plain data.
//!
//! ```text
//! spec ─► parse ─► Policy ───────┐           ┌─► FieldOwners ─► Difference ─► hold ─► order ─► Call
//!                                ├─► Binding ┤
//! list of the API ─► DeviceIndex ┘           └─► no device: why
//! ```
//!
//! No async, no clock, no randomness, no I/O: the time is an argument. The order in which policies arrive does
//! not matter. A held change stays in the plan with its reason.

mod actions;
mod approval;
mod bind;
#[cfg(test)]
pub(crate) mod cases;
mod change;
mod context;
mod declared_keys;
mod device_index;
mod diff;
mod effect;
mod expression;
mod field_owners;
mod guardrails;
mod hold;
mod impact;
mod limit;
mod lists;
mod managed_devices;
mod managed_routes;
mod order;
mod owned;
mod partial;
#[cfg(test)]
mod permitted;
mod policy;
mod policy_input;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod scenes;
mod select;
mod table;
mod tailnet_plan;
mod tailnet_wide;
#[cfg(test)]
mod tailnets;
#[cfg(test)]
mod tests;

pub use actions::{
    Action, ActionRecords, ClockSkew, DeleteInactive, DeletionRecord, ExpiryRecord, Inactivity,
    MAX_EXPIRIES, Missed, Stage, expiry, inactivity,
};
pub use approval::{
    ApprovalState, ApprovalStates, Approvals, ApprovedOn, Changes, FrozenPlan, PlanHash,
};
pub use bind::{Binding, Bound, Owner, bind, bind_policy, may_change, recorded};
pub use change::{Change, Difference, Field, Hold, Why};
pub use context::PlanContext;
pub use device_index::DeviceIndex;
pub use diff::{DevicePlan, plan_device};
pub use effect::{apply, apply_attributes};
pub use expression::{Expression, ExpressionError};
pub use field_owners::{Conflict, FieldOwners};
pub use guardrails::{
    Admission, AllowedEntries, AllowedRules, DevicePermissions, DeviceRule, Entry, Forbidden,
    Guardrails, Labels, PolicyPermissions, Refusal, Rule, SplitPolicies, yaml_list, yaml_string,
};
pub use impact::Impact;
pub use limit::WantedChanges;
pub use lists::ListOwners;
pub use managed_devices::{MAX_MANAGED, ManagedDevices, ManagedSettings, Released};
pub use managed_routes::PartlyManaged;
pub use order::{AttributeWrites, Call, next_call, still_planned};
pub use owned::{Capacity, Digest, OwnedGroup, OwnedKeys, OwnedRecord};
pub use policy::{
    AttributesOwnership, Deletion, DesiredSettings, DeviceTarget, Disruption, Identity,
    ListOwnership, Mode, Ownership, Policy, PolicyKey, PolicyRecord, Rank, ReconcileRequest,
    Suspender, Target,
};
pub use policy_input::{PolicyInput, StatusState};
pub use select::{Glob, Selector};
pub use table::{Style, lines, table, why};
pub use tailnet_plan::{TailnetPlan, plan_tailnet, plan_tailnet_within};
pub use tailnet_wide::{AttributeType, AttributeTypes, ConflictKind, TailnetWide, UniqueSetting};
