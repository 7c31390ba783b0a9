//! Guards are filters over the plan: what they refuse stays in it with the reason.

use jiff::Timestamp;

use super::{
    Change, Claims, DeviceTarget, Difference, Disruption, Form, Hold, Memory, Mode, Policy,
    Surroundings, Target, acts,
};
use crate::model::{Device, TagSet};

/// Marks what must not be done now.
pub(super) fn hold<'a>(
    differences: impl IntoIterator<Item = &'a mut Difference>,
    device: &Device,
    claims: &Claims,
    policies: &[(&Policy, &Memory)],
    around: &Surroundings<'_>,
) {
    // What the tailnet forbids anyway needs no other word.
    let forbidden =
        |hold: &Option<Hold>| matches!(hold, Some(Hold::Protected(_) | Hold::NotAllowed(_)));
    for difference in differences {
        if forbidden(&difference.hold) {
            continue;
        }
        difference.hold = disruption(difference, device, policies, around.now)
            .filter(|disruption| !claims.allows(&difference.owner, *disruption))
            .map(Hold::Disruption)
            .or_else(|| clash(&difference.change, around))
            .or_else(|| taken(&difference.change, device, around))
            .or_else(|| feedback(&difference.change, device, policies))
            .or_else(|| acts::hold(difference, device, policies, around.permits.clock_skew()))
            // What the policy waits for anyway.
            .or_else(|| difference.hold.take())
            .or_else(|| not_agreed(difference, around));
    }
}

/// What came up after somebody has agreed to a plan, or is another change by now.
fn not_agreed(difference: &Difference, around: &Surroundings<'_>) -> Option<Hold> {
    let excluded = around.permits.exclude(&difference.node, &difference.change);
    excluded.then_some(Hold::NotAgreed)
}

/// Tags decide which device some policies mean. A change of tags that makes a policy let its device
/// go could begin a circle: that policy's own wish for the tags would be gone, another one would
/// change them back, and so on for ever. As this is the only way to leave a device by our own
/// calls, there is no circle without it.
///
/// A device may leave a fleet by the tags that somebody else gives it: whoever decides them means
/// it still, so that only one that ranks before can decide after. But a fleet whose own wish for
/// the tags makes the device leave could not keep what it wishes.
fn feedback(change: &Change, device: &Device, policies: &[(&Policy, &Memory)]) -> Option<Hold> {
    let Change::Tags { after, .. } = change else {
        return None;
    };
    // What only observes sends nothing, so that it has no part in a circle.
    let mut policies: Vec<&Policy> = policies
        .iter()
        .map(|(policy, _)| *policy)
        .filter(|policy| policy.mode != Mode::Observe)
        .collect();
    policies.sort_by_key(|policy| policy.rank());
    policies
        .into_iter()
        .find(|policy| match &policy.target {
            Target::Device(target) => !target.still_means(after),
            Target::Fleet(selector) => {
                let wished = policy.wishes.tags.as_ref();
                wished.is_some_and(|wished| wished.is_subset(after))
                    && !selector.fits(&tagged(device, after))
            }
        })
        .map(|policy| Hold::Feedback(policy.key.clone()))
}

fn tagged(device: &Device, tags: &TagSet) -> Device {
    Device {
        tags: tags.clone(),
        ..device.clone()
    }
}

impl DeviceTarget {
    /// Whether a device with these tags could still be the one that is meant. With tags it has no
    /// user any more.
    fn still_means(&self, tags: &TagSet) -> bool {
        self.tags.is_subset(tags) && (self.users.is_empty() || tags.is_empty())
    }
}

fn disruption(
    difference: &Difference,
    device: &Device,
    policies: &[(&Policy, &Memory)],
    now: Timestamp,
) -> Option<Disruption> {
    let of_fleet = || {
        let mut policies = policies.iter().map(|(policy, _)| *policy);
        policies.any(|policy| {
            policy.key == difference.owner && matches!(policy.target, Target::Fleet(_))
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
fn clash(change: &Change, around: &Surroundings<'_>) -> Option<Hold> {
    let Change::Attribute {
        key,
        after: Some(wish),
        ..
    } = change
    else {
        return None;
    };
    let (form, node) = around.clashes.forms.against(&Form::of(key, wish))?;
    Some(Hold::AttributeClash {
        form: form.clone(),
        same_key: form.key == *key,
        device: around.fleet.called(node),
    })
}

/// The API refuses an address or a name that another device has; so the call is not made, and the
/// message can say who has it.
fn taken(change: &Change, device: &Device, around: &Surroundings<'_>) -> Option<Hold> {
    let fleet = around.fleet;
    let called = |other: &Device| fleet.called(&other.node_id);
    match change {
        Change::Ipv4 { after, .. } => {
            let holder = fleet.holder_of(after.addr())?;
            let wants = &around.clashes.wants;
            let circle = wants.circle(&device.node_id, after.addr(), fleet);
            if circle.is_empty() {
                return Some(Hold::AddressInUse(called(holder)));
            }
            let others = circle.iter().map(|id| fleet.called(id));
            Some(Hold::AddressSwap(others.collect()))
        }
        Change::Name { after, .. } => fleet
            .bearers_of(after)
            .find(|other| other.node_id != device.node_id)
            .map(called)
            .map(Hold::NameTaken),
        _ => None,
    }
}
