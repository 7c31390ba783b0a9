//! Guards are filters over the plan: what they refuse stays in it with the reason.

use jiff::Timestamp;

use super::{
    AttributeType, Change, DeviceTarget, Difference, Disruption, Field, FieldOwners, Hold,
    PlanContext, Policy, PolicyKey, PolicyRecord, Target, actions,
};
use crate::model::{Device, NodeId, TagSet};

/// Marks what must not be done now.
pub(super) fn hold<'a>(
    differences: impl IntoIterator<Item = &'a mut Difference>,
    device: &Device,
    claims: &FieldOwners,
    policies: &[(&Policy, &PolicyRecord)],
    context: &PlanContext<'_>,
) {
    // What the tailnet forbids anyway needs no other word.
    let forbidden =
        |hold: &Option<Hold>| matches!(hold, Some(Hold::Protected | Hold::NotAllowed(_)));
    for difference in differences {
        if forbidden(&difference.hold) {
            continue;
        }
        let sees = |id: &NodeId| {
            let owners = policies.iter().map(|(policy, _)| policy);
            let mut owners = owners.filter(|policy| difference.concerns(&policy.key));
            owners.all(|policy| policy.allowance.discloses(context.index.get(id)))
        };
        let called = |id: &NodeId| context.called_where(sees(id), id);
        difference.hold = disruption(difference, device, policies, context.now)
            .filter(|disruption| !claims.allows(&difference.owner, *disruption))
            .map(Hold::Disruption)
            .or_else(|| conflict(&difference.change, context, called))
            .or_else(|| taken(&difference.change, device, context, called))
            .or_else(|| would_unselect(difference, device, claims, policies))
            .or_else(|| actions::hold(difference, device, policies, context.approvals.clock_skew()))
            // What the policy waits for anyway.
            .or_else(|| difference.hold.take())
            .or_else(|| not_in_approved_plan(difference, context));
    }
}

/// What came up after somebody has agreed to a plan, or is another change by now.
fn not_in_approved_plan(difference: &Difference, context: &PlanContext<'_>) -> Option<Hold> {
    let excluded = context
        .approvals
        .exclude(&difference.node, &difference.change);
    excluded.then_some(Hold::NotInApprovedPlan)
}

/// Tags decide which device some policies target. A change of tags that makes a policy release its device
/// could begin a circle: what that policy desires for the tags would be gone, another one would change
/// them back, and so on for ever. As this is the only way to release a device by our own requests, there
/// is no circle without it.
///
/// A device may leave a policy by the tags that others give it: those who decide them target it still, so
/// that only one that takes precedence over them can decide after. So a change is held where it comes
/// about only by policies that it would take the device from, and nobody can hold up another one's change
/// by targeting the device in a way that the change ends.
fn would_unselect(
    difference: &Difference,
    device: &Device,
    claims: &FieldOwners,
    policies: &[(&Policy, &PolicyRecord)],
) -> Option<Hold> {
    if !matches!(difference.change, Change::Tags { .. }) {
        return None;
    }
    let actions =
        |policy: &PolicyKey| claims.acts_on(policy, &Field::Tags) || difference.concerns(policy);
    // As it would be sent, whatever of it the policy is told.
    let after = claims.tags.settled(&device.tags, actions);
    let changed = tagged(device, &after);
    let mut deleting: Vec<&Policy> = policies
        .iter()
        .map(|(policy, _)| *policy)
        .filter(|policy| {
            let keeps = || policy.allowance.keeps_tags(device, &changed);
            policy.desired.tags.is_some() && !(policy.still_targets(&changed) && keeps())
        })
        .collect();
    deleting.sort_by_key(|policy| policy.rank());
    let stays = |policy: &PolicyKey| deleting.iter().all(|deleting| deleting.key != *policy);
    let without = claims.tags.among(stays).settled(&device.tags, actions);
    let first = deleting.first().filter(|_| without != after)?;
    Some(Hold::WouldUnselect(first.key.clone()))
}

fn tagged(device: &Device, tags: &TagSet) -> Device {
    Device {
        tags: tags.clone(),
        ..device.clone()
    }
}

impl Policy {
    /// Whether a device that it targets would still be one of those if it were so. The identity of a device
    /// stays.
    fn still_targets(&self, changed: &Device) -> bool {
        self.allowance.is_about(changed)
            && match &self.target {
                Target::Device(target) => target.still_selects(&changed.tags),
                Target::Selector(selector) => selector.matches(changed),
            }
    }
}

impl DeviceTarget {
    /// Whether a device with these tags could still be the one that is meant. With tags it has no
    /// user any more.
    fn still_selects(&self, tags: &TagSet) -> bool {
        self.tags.is_subset(tags) && (self.users.is_empty() || tags.is_empty())
    }
}

fn disruption(
    difference: &Difference,
    device: &Device,
    policies: &[(&Policy, &PolicyRecord)],
    now: Timestamp,
) -> Option<Disruption> {
    let of_fleet = || {
        let mut policies = policies.iter().map(|(policy, _)| *policy);
        policies.any(|policy| {
            policy.key == difference.owner && matches!(policy.target, Target::Selector(_))
        })
    };
    match &difference.change {
        Change::Tags { before, .. } if before.is_empty() && of_fleet() => {
            Some(Disruption::FirstTag)
        }
        Change::Authorized { after: false, .. } => Some(Disruption::Deauthorize),
        Change::KeyExpiryDisabled { after: false, .. } => device
            .expires
            .is_some_and(|expires| expires <= now)
            .then_some(Disruption::ExpiredKey),
        _ => None,
    }
}

/// The API refuses a value of another type than the key has anywhere, and a key that differs from a
/// present one only in case.
pub(super) fn conflict(
    change: &Change,
    context: &PlanContext<'_>,
    called: impl Fn(&NodeId) -> String,
) -> Option<Hold> {
    let Change::Attribute {
        key,
        after: Some(desired),
        ..
    } = change
    else {
        return None;
    };
    let (attribute_type, node) = context
        .tailnet_wide
        .types
        .against(&AttributeType::of(key, desired))?;
    Some(Hold::AttributeConflict {
        attribute_type: attribute_type.clone(),
        same_key: attribute_type.key == *key,
        device: called(node),
    })
}

/// The API refuses an address or a name that another device has; so the call is not made, and the
/// message can say who has it.
fn taken(
    change: &Change,
    device: &Device,
    context: &PlanContext<'_>,
    called: impl Fn(&NodeId) -> String,
) -> Option<Hold> {
    let index = context.index;
    let called = |other: &Device| called(&other.node_id);
    match change {
        Change::Ipv4 { after, .. } => {
            let holder = index.holder_of(after.addr())?;
            let unique = &context.tailnet_wide.unique;
            let circle = unique.circle(&device.node_id, after.addr(), index);
            if circle.is_empty() {
                return Some(Hold::AddressInUse(called(holder)));
            }
            let others = circle.iter().filter_map(|id| index.get(id)).map(called);
            Some(Hold::AddressSwap(others.collect()))
        }
        Change::Name { after, .. } => index
            .devices_named(after)
            .find(|other| other.node_id != device.node_id)
            .map(called)
            .map(Hold::NameTaken),
        _ => None,
    }
}
