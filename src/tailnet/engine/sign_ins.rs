//! Fleets that lose a device because someone has signed in on it again: see [`crate::tailnet::sign_ins`].

use super::notify::notify;
use crate::{
    model::NodeId,
    plan::{Binding, PolicyKey},
    tailnet::{
        Notification, gate::Gate, observed::Observed, outbox::Outbox, policy_entry::PolicyEntry,
        policy_set::PolicySet,
    },
};

/// Suspects a sign-in for managed devices that the selector of a policy does not match when its devices are
/// found first: it may have happened while no process compared the device with what it was before.
pub(super) fn suspect_sign_ins(
    observed: &mut Observed,
    policies: &PolicySet,
    gate: &Gate,
    outbox: &mut Outbox,
    key: &PolicyKey,
    binding: Option<&Binding>,
) {
    let Some(entry) = policies
        .get(key)
        .filter(|it| it.targets().binding().is_none())
    else {
        return;
    };
    let Some(binding) = binding.filter(|it| matches!(it, Binding::Selector(_))) else {
        return;
    };
    let managed = entry.needed_record().managed.nodes.iter();
    let lost: Vec<NodeId> = managed
        .filter(|id| !binding.holds(id) && may_be_lost(observed, entry, id))
        .cloned()
        .collect();
    for id in lost {
        if !observed.sign_ins().is_noted(&id) {
            observed.sign_ins_mut().suspect(&id);
            notify_sign_in(observed, policies, gate, outbox, &id, key);
        }
    }
}

/// Whether a device that a policy no longer matches may have left because of a sign-in that is not
/// confirmed. `is_new`: it matched until now, so that this is reported.
pub(super) fn awaits_confirmation(
    observed: &mut Observed,
    policies: &PolicySet,
    gate: &Gate,
    outbox: &mut Outbox,
    id: &NodeId,
    key: &PolicyKey,
    is_new: bool,
) -> bool {
    let Some(entry) = policies.get(key) else {
        return false;
    };
    let may_be_lost = may_be_lost(observed, entry, id);
    // What the device was before may be unknown: its owner could not be read, or another process saw it.
    if may_be_lost && !observed.sign_ins().is_noted(id) {
        observed.sign_ins_mut().suspect(id);
    }
    let waits = observed.sign_ins().is_unconfirmed(id);
    if is_new && (waits || may_be_lost) {
        notify_sign_in(observed, policies, gate, outbox, id, key);
    }
    waits
}

fn may_be_lost(observed: &Observed, entry: &PolicyEntry, id: &NodeId) -> bool {
    let selector = entry.selector().map(|(selector, _)| selector);
    let device = observed.index().get(id);
    selector
        .zip(device)
        .is_some_and(|(selector, device)| selector.may_lose_by_sign_in(device))
}

/// Emits the Event that a device has left because of a sign-in.
pub(super) fn notify_sign_in(
    observed: &Observed,
    policies: &PolicySet,
    gate: &Gate,
    outbox: &mut Outbox,
    id: &NodeId,
    key: &PolicyKey,
) {
    let Some(device) = observed.index().get(id) else {
        return;
    };
    let managed = policies
        .get(key)
        .map(|entry| &entry.needed_record().managed.nodes);
    let notification = Notification::SignedIn {
        node: id.clone(),
        label: device.label().to_string(),
        is_cleared: managed.is_some_and(|nodes| nodes.contains(id)),
    };
    notify(gate, outbox, key, notification);
}
