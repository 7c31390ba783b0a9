//! Differences that are shown with the reason but never sent, and that override no other policy.

use std::collections::BTreeMap;

use super::compare;
use crate::{
    model::{Attributes, Device, DeviceField, NodeId, Setting, SettingValue},
    plan::{
        Change, Difference, Field, FieldOwners, Hold, PlanContext, Policy, PolicyKey,
        PolicyPermissions, PolicyRecord, SplitPolicies, Why, actions::Actions, hold,
    },
};

/// The differences of policies that only observe.
pub(in crate::plan) fn observed(
    device: &Device,
    owners: &FieldOwners,
    attributes: Option<&Attributes>,
    actions: &Actions,
    context: &PlanContext<'_>,
) -> Vec<Difference> {
    let alone = owners.observed.values();
    held_as(&Hold::Observed, alone, device, attributes, actions, context)
}

/// The differences on a protected device.
pub(in crate::plan) fn protected(
    device: &Device,
    owners: &FieldOwners,
    attributes: Option<&Attributes>,
    actions: &Actions,
    context: &PlanContext<'_>,
) -> Vec<Difference> {
    let alone = owners.protected.values();
    held_as(
        &Hold::Protected,
        alone,
        device,
        attributes,
        actions,
        context,
    )
}

/// What each of these owners alone would send, held for one reason.
fn held_as<'a>(
    hold: &Hold,
    alone: impl Iterator<Item = &'a FieldOwners>,
    device: &Device,
    attributes: Option<&Attributes>,
    actions: &Actions,
    context: &PlanContext<'_>,
) -> Vec<Difference> {
    let mut shown = Vec::new();
    for owners in alone {
        let found = compare(device, attributes, owners, actions, context.approvals);
        shown.extend(found.differences.into_iter().map(|difference| Difference {
            hold: Some(hold.clone()),
            ..difference
        }));
        // What cannot be read is not compared, so that it neither differs nor is in sync.
        let unread = found.shown.into_iter();
        shown.extend(unread.filter(|it| matches!(it.hold, Some(Hold::Unreadable(_)))));
    }
    shown
}

/// The attributes that the API would refuse because the tailnet has the key with another spelling or type.
pub(in crate::plan) fn impossible(
    device: &Device,
    field_owners: &FieldOwners,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &PolicyRecord)],
    context: &PlanContext<'_>,
) -> Vec<Difference> {
    let Some(attributes) = attributes else {
        return Vec::new();
    };
    let impossible = field_owners.impossible.iter();
    let differing = impossible.filter_map(|(policy, key, desired)| {
        let before = attributes.get(key);
        // The device has what is declared. Another device has the key with the other type.
        if before.is_some_and(|reported| desired.is_met_by(reported)) {
            return None;
        }
        let change = Change::Attribute {
            key: key.clone(),
            before: before.cloned(),
            after: Some(desired.clone()),
        };
        Some(Difference {
            node: device.node_id.clone(),
            device: device.label().to_string(),
            hold: hold::conflict(&change, context, |id: &NodeId| {
                let policies = policies.iter().map(|(policy, _)| *policy);
                let of = policies.filter(|other| other.key == *policy);
                context.disclosed_name(context.discloses(id, of), id)
            }),
            change,
            why: Why::Declared,
            cause: None,
            owner: policy.clone(),
            others: Vec::new(),
        })
    });
    differing.collect()
}

/// A device that is authorized as declared, and that tailnet lock keeps out of the tailnet, or may keep out: an
/// unreadable error does not mean that there is none.
pub(in crate::plan) fn locked_out(device: &Device, owners: &FieldOwners) -> Option<Difference> {
    let authorized = SettingValue::Authorized(true);
    let claim = owners.settings.get(&Setting::Authorized)?;
    if claim.desired != authorized || !device.authorized {
        return None;
    }
    let unknown = device.unreadable.among(&[DeviceField::TailnetLockError]);
    let hold = if !unknown.is_empty() {
        Hold::Unreadable(unknown)
    } else if device.lock_error.is_empty() {
        return None;
    } else {
        Hold::LockedOut(device.lock_error.clone())
    };
    let mut owners = claim.owners.iter().cloned();
    Some(Difference {
        node: device.node_id.clone(),
        device: device.label().to_string(),
        change: Change::NotCompared {
            field: Field::Setting(Setting::Authorized),
            after: authorized.to_string(),
        },
        why: Why::Declared,
        cause: None,
        owner: owners.next()?,
        others: owners.collect(),
        hold: Some(hold),
    })
}

/// The settings that no rule allows the policies on this device: shown as declared, and not compared.
pub(in crate::plan) fn denied(
    device: &Device,
    permissions: &PolicyPermissions,
    split: &SplitPolicies,
    policies: &[(&Policy, &PolicyRecord)],
    replaced: &[Option<Policy>],
) -> Vec<Difference> {
    let mut shown = Vec::new();
    let by_policy: BTreeMap<&PolicyKey, Vec<Change>> = split.denied(policies).collect();
    for (policy, changes) in by_policy {
        // What an invalid policy declares is unknown.
        let mut invalid = replaced.iter().flatten();
        if invalid.any(|invalid| invalid.key == *policy) {
            continue;
        }
        shown.extend(changes.into_iter().map(|change| Difference {
            node: device.node_id.clone(),
            device: device.label().to_string(),
            change,
            why: Why::Declared,
            cause: None,
            owner: policy.clone(),
            others: Vec::new(),
            hold: Some(Hold::NotAllowed(permissions.suggested_rule(policy))),
        }));
    }
    shown
}
