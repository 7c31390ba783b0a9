//! Whether a policy or a device still has something in progress, so that its report can wait.

use crate::{
    model::NodeId,
    plan::PolicyKey,
    tailnet::{
        device_state::DeviceState, devices::Devices, dirty::Dirty, lanes::Queues,
        policy_set::PolicySet, records::Records,
    },
};

/// A policy with more devices than this records what it owns for many of them together.
const FEW: usize = 20;

/// Whether a record must be written now.
pub(super) fn must_record(policies: &PolicySet, records: &Records, key: &PolicyKey) -> bool {
    let Some(entry) = policies.get(key) else {
        return false;
    };
    if !entry.records().are_durable_but_keys() {
        return true;
    }
    // Each record is a write of the status, so many devices of one policy share one.
    let is_due = records.is_due() || entry.nodes().nth(FEW).is_none();
    is_due && !entry.records().are_durable()
}

/// Whether a device has work in progress; a regular read is none.
pub(super) fn is_working(devices: &Devices, queues: &Queues, dirty: &Dirty, id: &NodeId) -> bool {
    let retries = devices.get(id).is_some_and(DeviceState::retries_quietly);
    let busy = !queues.is_idle(id) || dirty.awaits_step(id) || retries;
    // A device that is done may still be in a lane, for a regular read.
    busy && !devices
        .get(id)
        .is_some_and(|node| node.is_done() && !node.progress().has_unverified())
}
