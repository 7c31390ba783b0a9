//! Plans requests from policies and observed devices: pure functions on plain data.
//!
//! | stage       | what it does                                                                           |
//! |-------------|----------------------------------------------------------------------------------------|
//! | [`types`]   | the values that the stages pass on: policies, devices, changes                         |
//! | [`select`]  | whether a selector matches a device                                                    |
//! | [`permit`]  | what the tailnet lets a policy change on a device                                      |
//! | [`resolve`] | which devices a policy targets, and which policy owns each field of a device           |
//! | [`actions`] | which one-shot actions are due                                                         |
//! | [`diff`]    | where a device differs from what the owners of its fields declare                      |
//! | [`release`] | what a policy manages, and clears on devices that it releases                          |
//! | [`hold`]    | which changes are not sent: disruptions, conflicts, approvals, the limit               |
//! | [`order`]   | which request is next                                                                  |
//! | [`effect`]  | what an accepted request changes on the observed device                                |
//! | [`impact`]  | what a change disrupts, for people                                                     |
//! | [`tailnet`] | all of it for a whole tailnet, without the engine                                      |
//!
//! No async, no clock, no randomness, no I/O: the time is an argument. The order in which policies arrive does
//! not matter. A held change stays in the plan with its reason.

mod actions;
mod diff;
mod effect;
mod hold;
mod impact;
mod order;
mod permit;
mod release;
mod resolve;
mod select;
mod tailnet;
#[cfg(test)]
pub(crate) mod tests;
mod types;

pub use types::{
    AttributesOwnership, Change, Deletion, DesiredSettings, DeviceIndex, DeviceTarget, Difference,
    Disruption, Field, Hold, Identity, ListOwnership, Mode, Ownership, PlanContext, Policy,
    PolicyInput, PolicyKey, PolicyRecord, Rank, ReconcileRequest, StatusState, Suspender, Target,
    Why,
};

pub use select::{Expression, ExpressionError, Glob, Selector};

pub use permit::{
    Admission, AllowedEntries, AllowedRules, DevicePermissions, DeviceRule, Entry, Forbidden,
    Guardrails, Labels, PolicyPermissions, Refusal, Rule, SplitPolicies, yaml_list, yaml_string,
};

pub use resolve::{
    AttributeType, AttributeTypes, Binding, Bound, Conflict, ConflictKind, FieldOwners, ListOwners,
    Owner, TailnetWide, UniqueSetting, bind, bind_policy, may_change, recorded,
};

pub use actions::{
    Action, ActionRecords, ClockSkew, DeleteInactive, DeletionRecord, ExpiryRecord, Inactivity,
    MAX_EXPIRIES, Missed, Stage, expiry, inactivity,
};

pub use diff::{DevicePlan, plan_device};

pub use release::{
    Capacity, Digest, MAX_MANAGED, ManagedDevices, ManagedSettings, OwnedGroup, OwnedKeys,
    OwnedRecord, PartlyManaged, Released,
};

pub use hold::{
    ApprovalState, ApprovalStates, Approvals, ApprovedOn, Changes, FrozenPlan, PlanHash,
    WantedChanges,
};

pub use effect::{apply, apply_attributes};
pub use impact::Impact;
pub use order::{AttributeWrites, Call, next_call, still_planned};
pub use tailnet::{TailnetPlan, plan_tailnet, plan_tailnet_within};
