//! Guards are filters over the plan: what they refuse stays in it with the reason.

use jiff::Timestamp;

use super::{Change, Claims, Difference, Disruption, Fleet, Hold};
use crate::model::Device;

/// Marks what must not be done now.
pub(super) fn hold(
    differences: &mut [Difference],
    device: &Device,
    claims: &Claims,
    fleet: &Fleet,
    now: Timestamp,
) {
    for difference in differences {
        difference.hold = disruption(&difference.change, device, now)
            .filter(|disruption| !claims.allows(&difference.owner, *disruption))
            .map(Hold::Disruption)
            .or_else(|| taken(&difference.change, device, fleet));
    }
}

fn disruption(change: &Change, device: &Device, now: Timestamp) -> Option<Disruption> {
    match change {
        Change::Authorized { after: false, .. } => Some(Disruption::Deauthorize),
        Change::KeyExpiryDisabled { after: false, .. } => device
            .expires
            .is_some_and(|expires| expires <= now)
            .then_some(Disruption::ExpiredKey),
        _ => None,
    }
}

/// The API refuses an address or a name that another device has; so the call is not made, and the
/// message can say who has it.
fn taken(change: &Change, device: &Device, fleet: &Fleet) -> Option<Hold> {
    let called = |other: &Device| format!("{} ({})", other.label(), other.node_id);
    match change {
        Change::Ipv4 { after, .. } => fleet
            .holder_of(after.addr())
            .map(called)
            .map(Hold::AddressInUse),
        Change::Name { after, .. } => fleet
            .bearers_of(after)
            .find(|other| other.node_id != device.node_id)
            .map(called)
            .map(Hold::NameTaken),
        _ => None,
    }
}
