//! What policies desire in vain: it takes precedence over nothing, and is shown with the reason.

use std::collections::BTreeMap;

use super::DiffBuilder;
use crate::{
    model::{Attributes, Device, NodeId},
    plan::{
        Change, Difference, FieldOwners, Hold, PlanContext, Policy, PolicyKey, PolicyPermissions,
        PolicyRecord, SplitPolicies, Why, actions::Actions, hold,
    },
};

/// What differs on a device that is protected.
pub(super) fn protected(
    device: &Device,
    claims: &FieldOwners,
    attributes: Option<&Attributes>,
    actions: &Actions,
    context: &PlanContext<'_>,
) -> Vec<Difference> {
    let mut shown = Vec::new();
    for protected in claims.protected.values() {
        let mut found = DiffBuilder::of(device, protected, context.approvals);
        found.compare(attributes);
        found.actions(actions);
        shown.extend(found.differences.into_iter().map(|difference| Difference {
            hold: Some(Hold::Protected),
            ..difference
        }));
    }
    shown
}

/// What the API would refuse, as the tailnet has the key in another form.
pub(super) fn impossible(
    device: &Device,
    claims: &FieldOwners,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &PolicyRecord)],
    context: &PlanContext<'_>,
) -> Vec<Difference> {
    let Some(attributes) = attributes else {
        return Vec::new();
    };
    let impossible = claims.impossible.iter();
    let differing = impossible.filter_map(|(policy, key, desired)| {
        let before = attributes.get(key);
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
                let mut owners = policies.iter().filter(|(owner, _)| owner.key == *policy);
                let other = context.index.get(id);
                let reported = owners.all(|(owner, _)| owner.allowance.discloses(other));
                context.called_where(reported, id)
            }),
            change,
            why: Why::Declared,
            owner: policy.clone(),
            others: Vec::new(),
        })
    });
    differing.collect()
}

/// What no rule allows policies here: shown as it is declared, and not compared.
pub(super) fn denied(
    device: &Device,
    permissions: &PolicyPermissions,
    split: &SplitPolicies,
    policies: &[(&Policy, &PolicyRecord)],
    replaced: &[Option<Policy>],
) -> Vec<Difference> {
    let mut shown = Vec::new();
    let by_policy: BTreeMap<&PolicyKey, Vec<Change>> = split.denied(policies).collect();
    for (policy, changes) in by_policy {
        // Of an invalid one nobody knows what it declares.
        let mut invalid = replaced.iter().flatten();
        if invalid.any(|invalid| invalid.key == *policy) {
            continue;
        }
        shown.extend(changes.into_iter().map(|change| Difference {
            node: device.node_id.clone(),
            device: device.label().to_string(),
            change,
            why: Why::Declared,
            owner: policy.clone(),
            others: Vec::new(),
            hold: Some(Hold::NotAllowed(permissions.line(policy))),
        }));
    }
    shown
}
