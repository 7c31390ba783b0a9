//! Notes a change that was made.

use super::notify::notify;
use crate::{
    plan::{Difference, PolicyKey},
    tailnet::{
        Notification, Now, devices::Devices, gate::Gate, outbox::Outbox, policy_set::PolicySet,
    },
};

/// Notes a change for the policies that own the field, and emits its Event.
pub(super) fn note_change(
    gate: &Gate,
    policies: &mut PolicySet,
    devices: &mut Devices,
    outbox: &mut Outbox,
    difference: &Difference,
    now: Now,
) {
    // A one-shot action cannot be reversed.
    let node = devices.get_mut(&difference.node);
    if let Some(node) = node.filter(|_| !difference.is_action()) {
        node.progress_mut().made(difference, now.monotonic);
    }
    for owner in difference.owners() {
        if let Some(entry) = policies.get_mut(owner) {
            entry.note_change(now.wall);
        }
        let reported = reported_as(devices, difference, owner);
        notify(
            gate,
            outbox,
            owner,
            Notification::Changed(Box::new(reported)),
        );
    }
}

/// A difference as one of its owners may see it.
fn reported_as(devices: &Devices, difference: &Difference, policy: &PolicyKey) -> Difference {
    match devices.get(&difference.node) {
        Some(node) => node.plan().disclosed_as(difference, policy),
        None => difference.clone(),
    }
}
