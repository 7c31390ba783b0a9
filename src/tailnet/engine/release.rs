//! Keeps the record of the devices that a policy manages under `deletionPolicy: Clear`, and of those that it
//! has released: see [`crate::tailnet::release`].

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    model::{ListSetting, NodeId},
    plan::{Binding, Field, ManagedDevices, ManagedSettings, PolicyKey, Released},
    tailnet::{
        Now, deadline::Progress, device_state::DeviceState, devices::Devices, dirty::Dirty,
        observed::Observed, policy_entry::PolicyEntry, policy_set::PolicySet,
    },
};

/// Notes progress for the policies that clear a device.
pub(super) fn note_progress(
    policies: &mut PolicySet,
    devices: &Devices,
    step: &Progress,
    now: Now,
) {
    let (Progress::Read(id, _) | Progress::Changed(id, _) | Progress::Cleared(id)) = step;
    let Some(node) = devices.get(id) else {
        return;
    };
    for key in node.clearing() {
        if let Some(entry) = policies.get_mut(key) {
            entry
                .cleanup_mut()
                .note_progress(step.clone(), now.monotonic);
        }
    }
}

/// Under `Retain`, nothing is recorded for clearing.
pub(super) fn retain(
    policies: &mut PolicySet,
    devices: &mut Devices,
    dirty: &mut Dirty,
    key: &PolicyKey,
) {
    let entry = policies.get_mut(key).filter(|entry| entry.retains());
    // After an edit from Clear to Retain, what was still to be cleared stays.
    let managed = entry.map(PolicyEntry::take_managed);
    if let Some(managed) = managed.filter(|managed| !managed.is_empty()) {
        forget_released(devices, dirty, key, &managed);
        dirty.report(key);
    }
}

/// Records a device that the selector matches now as managed.
pub(super) fn hold_one(
    policies: &mut PolicySet,
    observed: &Observed,
    dirty: &mut Dirty,
    id: &NodeId,
    key: &PolicyKey,
) {
    let Some(entry) = policies
        .get_mut(key)
        .filter(|entry| !entry.targets().has_too_many())
    else {
        return;
    };
    // An edit may not have been rebound yet, and this device replaces the recorded routes.
    if entry.release_fields_of_targets() {
        dirty.report(key);
    }
    let too_many = entry.hold(Some(&Binding::Device(id.clone())), observed.index());
    refuse_many(policies, dirty, key, too_many);
}

/// Releases a device that the selector no longer matches.
pub(super) fn release_device(
    policies: &mut PolicySet,
    devices: &mut Devices,
    dirty: &mut Dirty,
    id: &NodeId,
    key: &PolicyKey,
) {
    let entry = policies.get_mut(key);
    // An invalid policy hands nothing over (docs/decisions/0018), so it keeps the device too.
    if let Some(entry) = entry.filter(|entry| !entry.is_invalid()) {
        entry.release_device(id);
        track_device(devices, dirty, id, key);
        dirty.report(key);
    }
}

/// Nothing is sent for a policy under `Clear` that targets more devices than its status can record.
pub(super) fn refuse_many(
    policies: &mut PolicySet,
    dirty: &mut Dirty,
    key: &PolicyKey,
    too_many: bool,
) {
    let Some(entry) = policies.get_mut(key) else {
        return;
    };
    // Each matched device ends here, so an unchanged result must not plan all the others again.
    if !entry.targets_mut().set_too_many(too_many) {
        return;
    }
    dirty.plan_all(entry.nodes().cloned());
    dirty.report(key);
}

/// With one device less, there may no longer be too many.
pub(super) fn recount(policies: &PolicySet, dirty: &mut Dirty, key: &PolicyKey) {
    if policies
        .get(key)
        .is_some_and(|entry| entry.targets().has_too_many())
    {
        // Bound again as a whole, as no other device was recorded while they were too many.
        dirty.rebind(key);
    }
}

/// Tracks the devices that a policy has released.
pub(super) fn track_released(
    policies: &PolicySet,
    devices: &mut Devices,
    dirty: &mut Dirty,
    key: &PolicyKey,
) {
    let Some(entry) = policies.get(key) else {
        return;
    };
    let managed = Arc::clone(&entry.needed_record().managed);
    for id in managed.released_devices() {
        track_device(devices, dirty, id, key);
    }
}

pub(super) fn track_device(devices: &mut Devices, dirty: &mut Dirty, id: &NodeId, key: &PolicyKey) {
    let node = devices.get_or_add(id);
    if node.begin_clearing(key) {
        dirty.plan(id);
    }
}

/// Stops clearing these devices for a policy.
pub(super) fn forget_released(
    devices: &mut Devices,
    dirty: &mut Dirty,
    key: &PolicyKey,
    managed: &ManagedDevices,
) {
    for id in managed.released_devices() {
        if let Some(node) = devices.get_mut(id) {
            node.end_clearing(key);
            dirty.plan(id);
        }
    }
}

/// The settings that policies that have released a device must clear there.
pub(super) fn due(policies: &PolicySet, node: &DeviceState, id: &NodeId) -> Vec<Released> {
    let due = node.clearing().iter().filter_map(|key| {
        let entry = policies.get(key).filter(|entry| entry.clears())?;
        let policy = entry.policy().as_deref().ok()?;
        Some(Released {
            policy: key.clone(),
            settings: entry.needed_record().managed.due(id),
            allowance: policy.allowance.clone(),
            mode: policy.mode,
        })
    });
    due.collect()
}

/// Drops cleared settings of a device from the records: they are gone, another policy declares them, or
/// the device is gone. Returns whether that changes the plan.
pub(super) fn drop_cleared(
    policies: &mut PolicySet,
    devices: &mut Devices,
    observed: &Observed,
    dirty: &mut Dirty,
    id: &NodeId,
    now: Now,
) -> bool {
    if devices
        .get(id)
        .is_none_or(|node| node.clearing().is_empty())
    {
        return false;
    }
    let unknown = observed
        .index()
        .get(id)
        .is_none_or(|device| device.external);
    let gone = unknown && observed.absence().is_gone(id);
    let Some(node) = devices.get(id) else {
        return false;
    };
    let cleared = |key: &&PolicyKey| {
        let Some(entry) = policies.get(key) else {
            // The record went with the policy, so nothing tells what to clear.
            return true;
        };
        let due = entry.needed_record().managed.due(id);
        // A device that a list lacks may come back with the settings, so only a proof ends the clearing
        // (docs/decisions/0013).
        due.is_empty() || gone || (entry.clears() && !unknown && is_cleared(node, key, &due))
    };
    let cleared: Vec<PolicyKey> = node.clearing().iter().filter(cleared).cloned().collect();
    if !cleared.is_empty() {
        note_progress(policies, devices, &Progress::Cleared(id.clone()), now);
    }
    for key in &cleared {
        if let Some(node) = devices.get_mut(id) {
            node.end_clearing(key);
        }
        if let Some(entry) = policies.get_mut(key) {
            entry.note_cleared(id);
        }
        dirty.report(key);
        recount(policies, dirty, key);
    }
    disown_gone(policies, devices, observed, dirty, id);
    !cleared.is_empty()
}

/// Some settings on a released device may be gone before the rest can be cleared. A value that someone
/// sets there later is theirs.
fn disown_gone(
    policies: &mut PolicySet,
    devices: &Devices,
    observed: &Observed,
    dirty: &mut Dirty,
    id: &NodeId,
) {
    let (Some(node), Some(device)) = (devices.get(id), observed.index().get(id)) else {
        return;
    };
    for key in node.clearing() {
        let Some(entry) = policies.get_mut(key) else {
            continue;
        };
        let gone = node.gone(device, entry.needed_record().managed.due(id));
        if !gone.is_empty() {
            entry.forget_gone(id, &gone);
            dirty.report(key);
        }
    }
}

/// Whether all settings that a policy put on a device are cleared, as far as a read has verified.
fn is_cleared(node: &DeviceState, key: &PolicyKey, due: &ManagedSettings) -> bool {
    let routes: BTreeSet<ListSetting> = due.routes.iter().map(ListSetting::of_route).collect();
    let concerned = |field: &Field| match field {
        Field::Attribute(attribute) => due.keys.contains(attribute),
        Field::List(list) => routes.contains(list),
        Field::Setting(_) | Field::ExpireKeyAt | Field::DeleteInactive => false,
    };
    let mut open = node
        .plan()
        .of(key)
        .map(|difference| difference.change.field());
    // A plan from before a read, or beside a request in flight, shows nothing about the result.
    node.plan().complete()
        && !node.is_busy()
        && !node.is_in_question()
        && !open.any(|field| concerned(&field))
        && !node.progress().written().any(concerned)
}
