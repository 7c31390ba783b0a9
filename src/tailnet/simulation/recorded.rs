//! What a status records of the keys that a policy owns, and how the next process reads it.

use std::sync::Arc;

use super::World;
use crate::{
    api::TailscaleDevicePolicyStatus,
    plan::{Fleet, Memory, OwnedKeys, PolicyKey, Room},
    tailnet::PolicyReport,
};

impl World {
    /// Has the keys that policies own recorded in digests, be the devices ever so few.
    pub fn record_digests(&mut self) {
        self.record_room = Room {
            lists: 0,
            few: 0,
            ..Room::default()
        };
        self.engine.record_room = self.record_room;
    }

    /// The keys that a policy owns, as its status records them.
    pub fn owned(&self, key: &PolicyKey) -> OwnedKeys {
        let fleet = Fleet::new(self.model.devices.values().cloned());
        let memory = self.policies[key].memory.met(&fleet);
        Arc::unwrap_or_clone(memory.owned)
    }
}

/// What the next process finds in the status.
pub fn through_status(report: &PolicyReport) -> Memory {
    let status = TailscaleDevicePolicyStatus {
        attribute_record: report.owned.to_status(&report.uid, report.unrecorded),
        ..TailscaleDevicePolicyStatus::default()
    };
    Memory {
        owned: Arc::new(OwnedKeys::of_status(&status, &report.uid)),
        ..report.memory.clone()
    }
}
