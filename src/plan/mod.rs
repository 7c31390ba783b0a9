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

use self::actions::Actions;
use crate::model::{Attributes, Device};

pub use types::{
    AttributesOwnership, Bound, Change, ChangeCause, DeclaredSettings, Deletion, DesiredSettings,
    DeviceIndex, DeviceTarget, Difference, Disruption, Field, History, Hold, Identity, LimitedPlan,
    ListChange, ListOwnership, Mode, Owner, Ownership, PlanContext, Policy, PolicyInput, PolicyKey,
    PolicyRecord, Rank, ReconcileRequest, Rivals, StatusState, Suspender, Target, Why,
};

pub use select::{Expression, ExpressionError, Glob, Selector, Unmatched};

pub use permit::{
    Admission, AllowedEntries, AllowedRules, DevicePermissions, DeviceRule, Entry, Forbidden,
    Guardrails, Labels, PolicyPermissions, Refusal, Rule, SplitPolicies, yaml_list, yaml_string,
};

pub use resolve::{
    AttributeType, AttributeTypes, Binding, Conflict, ConflictKind, FieldOwners, ListOwners,
    TailnetWide, UniqueSetting, bind, bind_policy, may_change, recorded, successor,
};

pub use actions::{
    Action, ActionRecords, ClockSkew, DeleteInactive, DeletionRecord, ExpiryRecord, Inactivity,
    MAX_EXPIRIES, Missed, Stage, expiry, inactivity,
};

pub use diff::{CauseContext, DevicePlan};

pub use release::{
    Capacity, Digest, Edit, KeyExpiries, MAX_MANAGED, ManagedDevices, ManagedFields,
    ManagedSettings, OwnedGroup, OwnedKeys, OwnedRecord, PartlyManaged, Released, ReleasedFields,
    ReleasedSetting,
};

pub use hold::{
    ApprovalState, ApprovalStates, Approvals, ApprovedOn, ChangeKind, Changes, FrozenPlan,
    PlanHash, Summary, Tally, WantedChanges,
};

pub use effect::{apply, apply_attributes};
pub use impact::Impact;
pub use order::{AttributeWrites, Call, next_call, still_planned};
pub use tailnet::{TailnetPlan, plan_tailnet, plan_tailnet_within};

/// Compares one device with what all the policies that target it declare.
///
/// `attributes` is `None` until they have been read: unknown is not empty.
#[must_use]
pub fn plan_device(
    device: &Device,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &PolicyRecord)],
    context: &PlanContext<'_>,
) -> DevicePlan {
    // A field that cannot be read stays as it is.
    let replaced = resolve::with_observed(device, attributes, policies);
    let readable = replace(policies, &replaced);

    // Nothing is sent for a policy to a device that someone else has signed in on.
    let taken_over: Vec<Option<Policy>> = readable
        .iter()
        .map(|(policy, record)| policy.on_taken_over(record, device))
        .collect();
    let all = replace(&readable, &taken_over);

    // What a policy may not change does not exist for it from here on.
    let permissions = PolicyPermissions::on(device, &all, context.released, context.guardrails);
    let split = permissions.split(&all);
    let denied = diff::denied(device, &permissions, &split, &all, &replaced);
    let (policies, protected) = (&split.counting(&all), &split.protected(&all));

    let (owners, unique) = owners(device, policies, protected, permissions, context);
    let actions = Actions::of(device, policies, context);
    let protected_actions = Actions::of(device, protected, context);

    let mut found = diff::compare(device, attributes, &owners, &actions, context.approvals);
    found.show(diff::impossible(
        device, &owners, attributes, policies, context,
    ));

    hold::hold(found.not_suspended(), device, &owners, policies, context);

    let only_shown = [
        diff::observed(device, &owners, attributes, &actions, context),
        diff::protected(device, &owners, attributes, &protected_actions, context),
        denied,
        Vec::from_iter(diff::locked_out(device, &owners)),
    ];
    DevicePlan {
        actions: [actions.stages, protected_actions.stages].concat(),
        wakes: actions
            .wakes
            .into_iter()
            .chain(protected_actions.wakes)
            .min(),
        ..diff::finish(
            found,
            only_shown.concat(),
            device,
            attributes,
            owners,
            unique,
        )
    }
}

/// These policies, those with a replacement replaced by it.
fn replace<'a>(
    policies: &[(&'a Policy, &'a PolicyRecord)],
    replacements: &'a [Option<Policy>],
) -> Vec<(&'a Policy, &'a PolicyRecord)> {
    let pairs = policies.iter().zip(replacements);
    pairs
        .map(|((policy, record), other)| (other.as_ref().unwrap_or(policy), *record))
        .collect()
}

/// The owners of a device's fields among these policies, and their settings that no other device can have.
fn owners(
    device: &Device,
    policies: &[(&Policy, &PolicyRecord)],
    protected: &[(&Policy, &PolicyRecord)],
    permissions: PolicyPermissions,
    context: &PlanContext<'_>,
) -> (FieldOwners, UniqueSetting) {
    let node = &device.node_id;
    let mut owners = FieldOwners::resolve(
        policies,
        context.released,
        &context.tailnet_wide.types,
        context.approvals,
        permissions,
        node,
        context.now,
    );
    owners.add_denied(protected, node, context.now);
    let unique = UniqueSetting::of(&owners, policies);
    owners.drop_overridden_by_other_devices(node, &unique, policies, context);
    (owners, unique)
}
