//! The guards of a plan: a change that they hold stays in the plan with the reason.

mod approval;
mod limit;
mod plan_hash;
mod summary;

use jiff::Timestamp;

pub use approval::{ApprovalState, ApprovalStates, Approvals, ApprovedOn, Changes, FrozenPlan};
pub use limit::WantedChanges;
pub use plan_hash::PlanHash;
pub use summary::{ChangeKind, Summary, Tally};

use super::{
    AttributeType, Change, DeviceTarget, Difference, Disruption, Field, FieldOwners, Hold, Impact,
    ListChange, PlanContext, Policy, PolicyKey, PolicyRecord, Target, actions,
};
use crate::model::{Device, DeviceField, ListSetting, NodeId, SettingValue, TagSet};

/// Sets the reason on each change that must not be sent now.
pub(super) fn hold<'a>(
    differences: impl IntoIterator<Item = &'a mut Difference>,
    device: &Device,
    field_owners: &FieldOwners,
    policies: &[(&Policy, &PolicyRecord)],
    context: &PlanContext<'_>,
) {
    for difference in differences {
        // It is denied or unknown already, and a second reason would not help.
        if matches!(
            difference.hold,
            Some(Hold::Protected | Hold::NotAllowed(_) | Hold::Unreadable(_))
        ) {
            continue;
        }
        let called = |id: &NodeId| {
            let policies = policies.iter().map(|(policy, _)| *policy);
            let owners = policies.filter(|policy| difference.concerns(&policy.key));
            context.disclosed_name(context.discloses(id, owners), id)
        };
        // The owner must allow it: no policy may allow a disruption in the name of one that ranks before it.
        let disruption = disruption(difference, device, policies, context.now)
            .filter(|disruption| !field_owners.allows(&difference.owner, *disruption));
        // An unknown expiry comes first, because it decides whether there is a disruption.
        difference.hold = unknown_expiry(difference, device, field_owners)
            .or_else(|| disruption.map(Hold::Disruption))
            .or_else(|| conflict(&difference.change, context, called))
            .or_else(|| taken(&difference.change, device, context, called))
            .or_else(|| would_unselect(difference, device, field_owners, policies))
            .or_else(|| actions::hold(difference, device, policies, context.approvals.clock_skew()))
            // An approval or the limit comes after the guards: it must not ask for a change that they hold.
            .or_else(|| difference.hold.take())
            // Last, because every other reason says what to do, and another plan would not help against it.
            .or_else(|| not_in_approved_plan(difference, context));
    }
}

/// Holds a change that is not part of the approved plan: it came up later, or differs from the approved one.
fn not_in_approved_plan(difference: &Difference, context: &PlanContext<'_>) -> Option<Hold> {
    let excluded = context
        .approvals
        .exclude(&difference.node, &difference.change);
    excluded.then_some(Hold::NotInApprovedPlan)
}

/// Holds a change of tags that only comes about by policies that would no longer match the device after it.
///
/// Such a change could begin an endless loop: the policy releases the device, what it declared for the tags is
/// gone, another policy changes them back, the first one matches again, and so on. Our own requests can
/// release a device in no other way, so there is no loop without such a change.
///
/// A change that other policies want too is not held, although it releases the device from one policy: the
/// others still match, so only a policy that takes precedence over them can change the tags afterward. So no
/// policy can block the change of another by a selector that the change ends.
fn would_unselect(
    difference: &Difference,
    device: &Device,
    field_owners: &FieldOwners,
    policies: &[(&Policy, &PolicyRecord)],
) -> Option<Hold> {
    let tags = Field::List(ListSetting::Tags);
    if difference.change.field() != tags {
        return None;
    }
    // The policies of the difference count even while they wait: an approval must not lead into a loop.
    let acts =
        |policy: &PolicyKey| field_owners.acts_on(policy, &tags) || difference.concerns(policy);
    // The whole list as it would be sent, including the entries that the policy's author may not see.
    let after: TagSet = field_owners.tags.settled(&device.tags, acts).into();
    let changed = tagged(device, &after);
    let mut releasing: Vec<&Policy> = policies
        .iter()
        .map(|(policy, _)| *policy)
        .filter(|policy| {
            // A policy without tags brings about no change of tags, so that it cannot be part of a loop.
            policy.desired.tags.is_some()
                && !(policy.still_targets(&changed)
                    && policy.allowance.keeps_tags(device, &changed))
        })
        .collect();
    releasing.sort_by_key(|policy| policy.rank());
    // The tags as they become once the policies that release the device count no longer.
    let without = field_owners
        .tags
        .among(|policy| releasing.iter().all(|it| it.key != *policy))
        .settled(&device.tags, acts);
    let first = releasing.first().filter(|_| without != *after)?;
    Some(Hold::WouldUnselect(first.key.clone()))
}

fn tagged(device: &Device, tags: &TagSet) -> Device {
    Device {
        tags: tags.clone(),
        ..device.clone()
    }
}

impl Policy {
    /// Whether the policy would still target one of its devices after this change of tags. The identity of a
    /// device does not change with its tags.
    fn still_targets(&self, changed: &Device) -> bool {
        self.allowance.is_about(changed)
            && match &self.target {
                Target::Device(target) => target.still_selects(&changed.tags),
                Target::Selector(selector) => selector.may_match(changed),
            }
    }
}

impl DeviceTarget {
    /// Whether a targeted device would still be targeted with these tags. A tagged device has no user.
    fn still_selects(&self, tags: &TagSet) -> bool {
        self.tags.is_subset(tags) && (self.users.is_empty() || tags.is_empty())
    }
}

/// Holds key expiry while it is unknown whether the key has expired.
fn unknown_expiry(
    difference: &Difference,
    device: &Device,
    field_owners: &FieldOwners,
) -> Option<Hold> {
    let enables = matches!(
        difference.change,
        Change::Setting {
            after: SettingValue::KeyExpiryDisabled(false),
            ..
        }
    );
    let is_held = enables && !field_owners.allows(&difference.owner, Disruption::ExpiredKey);
    let unknown = device.unreadable.among(&[DeviceField::Expires]);
    (is_held && !unknown.is_empty()).then_some(Hold::Unreadable(unknown))
}

fn disruption(
    difference: &Difference,
    device: &Device,
    policies: &[(&Policy, &PolicyRecord)],
    now: Timestamp,
) -> Option<Disruption> {
    match &difference.change {
        Change::Setting { before, after } => {
            Impact::of_setting(before.as_ref(), after, device, now)?.disruption()
        }
        Change::List(change) => match change {
            ListChange::Tags { before, .. } => {
                let mut policies = policies.iter().map(|(policy, _)| policy);
                let owner = policies.find(|policy| policy.key == difference.owner);
                // A policy that names a device means this one. A selector may match a user's machine by accident.
                let has_selector = owner.is_some_and(|owner| owner.selector().is_some());
                (before.is_empty() && has_selector).then_some(Disruption::FirstTag)
            }
            ListChange::EnabledRoutes { .. } | ListChange::ExitNode { .. } => None,
        },
        Change::Attribute { .. }
        | Change::ExpireKey { .. }
        | Change::Delete { .. }
        | Change::NotCompared { .. } => None,
    }
}

/// Holds an attribute that the API would refuse: its key has another type in the tailnet, or differs from an
/// existing key only in case.
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

/// Holds an address or a name that another device has. The API would refuse it without naming that device.
fn taken(
    change: &Change,
    device: &Device,
    context: &PlanContext<'_>,
    called: impl Fn(&NodeId) -> String,
) -> Option<Hold> {
    let index = context.index;
    let called = |other: &Device| called(&other.node_id);
    let Change::Setting { after, .. } = change else {
        return None;
    };
    match after {
        SettingValue::Ipv4(after) => {
            let holder = index.holder_of(after.addr())?;
            let unique = &context.tailnet_wide.unique;
            // An address that waits for itself never becomes free, so that a person must break the circle.
            let circle = unique.circle(&device.node_id, after.addr(), index);
            if circle.is_empty() {
                return Some(Hold::AddressInUse(called(holder)));
            }
            let others = circle.iter().filter_map(|id| index.get(id)).map(called);
            Some(Hold::AddressSwap(others.collect()))
        }
        SettingValue::Name(after) => index
            .devices_named(after)
            .find(|other| other.node_id != device.node_id)
            .map(called)
            .map(Hold::NameTaken),
        // Several devices can have all others (src/tests/settings.rs).
        _ => None,
    }
}
