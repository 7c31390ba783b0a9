//! The record of owned keys in a status, and how the next process reads it.

use std::sync::Arc;

use super::World;
use crate::{
    convert::fixtures,
    plan::{Capacity, DeviceIndex, OwnedKeys, PolicyKey, PolicyRecord},
    tailnet::PolicyReport,
};

impl World {
    /// Forces records of owned keys into digests, however few the devices are.
    pub fn record_digests(&mut self) {
        self.record_capacity = Capacity {
            lists: 0,
            few: 0,
            ..Capacity::default()
        };
        self.engine.set_record_capacity(self.record_capacity);
    }

    /// The keys that a policy owns, as its status records them.
    pub fn owned(&self, key: &PolicyKey) -> OwnedKeys {
        let fleet = DeviceIndex::new(self.model.devices.values().cloned());
        let record = self.policies[key].record.met(&fleet);
        Arc::unwrap_or_clone(record.owned)
    }
}

/// The record as the next process reads it from the status.
pub fn through_status(report: &PolicyReport) -> PolicyRecord {
    let owned = fixtures::through_status(&report.owned, &report.uid, report.unrecorded);
    PolicyRecord {
        owned: Arc::new(owned),
        ..PolicyRecord::clone(&report.record)
    }
}
