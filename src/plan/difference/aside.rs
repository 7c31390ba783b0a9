//! What policies desire in vain: it takes precedence over nothing, and is shown with the reason.

use std::collections::BTreeMap;

use super::Found;
use crate::{
    model::{Attributes, Device, NodeId},
    plan::{
        Change, Claims, Difference, Hold, Memory, Parted, Policy, PolicyKey, Reaches, Surroundings,
        Why, acts::Acts, guard,
    },
};

/// What differs on a device that is protected.
pub(super) fn protected(
    device: &Device,
    claims: &Claims,
    attributes: Option<&Attributes>,
    acts: &Acts,
    around: &Surroundings<'_>,
) -> Vec<Difference> {
    let mut shown = Vec::new();
    for protected in claims.protected.values() {
        let mut found = Found::of(device, protected, around.permits);
        found.compare(attributes);
        found.acts(acts);
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
    claims: &Claims,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &Memory)],
    around: &Surroundings<'_>,
) -> Vec<Difference> {
    let Some(attributes) = attributes else {
        return Vec::new();
    };
    let impossible = claims.impossible.iter();
    let differing = impossible.filter_map(|(policy, key, wish)| {
        let before = attributes.get(key);
        if before.is_some_and(|reported| wish.is_met_by(reported)) {
            return None;
        }
        let change = Change::Attribute {
            key: key.clone(),
            before: before.cloned(),
            after: Some(wish.clone()),
        };
        Some(Difference {
            node: device.node_id.clone(),
            device: device.label().to_string(),
            hold: guard::clash(&change, around, |id: &NodeId| {
                let mut owners = policies.iter().filter(|(owner, _)| owner.key == *policy);
                let other = around.fleet.get(id);
                let told = owners.all(|(owner, _)| owner.allowance.tells_of(other));
                around.called_where(told, id)
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
    reaches: &Reaches,
    parted: &Parted,
    policies: &[(&Policy, &Memory)],
    replaced: &[Option<Policy>],
) -> Vec<Difference> {
    let mut shown = Vec::new();
    let by_policy: BTreeMap<&PolicyKey, Vec<Change>> = parted.denied(policies).collect();
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
            hold: Some(Hold::NotAllowed(reaches.line(policy))),
        }));
    }
    shown
}
