//! The records of a policy: what must survive a crash, and how much of it does by now.

use std::sync::Arc;

use crate::{
    model::NodeId,
    plan::{DeviceIndex, PolicyRecord},
};

/// The record of a policy, as it is needed and as it is stored.
#[derive(Debug)]
pub(in crate::tailnet) struct PolicyRecords {
    /// In the last watched status; a term starts with it.
    watched: PolicyRecord,
    /// A crash does not lose it.
    durable: PolicyRecord,
    /// What the next report stores.
    needed: PolicyRecord,
}

impl PolicyRecords {
    /// The record that a status has.
    pub fn new(stored: PolicyRecord) -> Self {
        Self {
            watched: stored.clone(),
            durable: stored.clone(),
            needed: stored,
        }
    }

    /// The record that is needed.
    pub const fn needed(&self) -> &PolicyRecord {
        &self.needed
    }

    pub const fn needed_mut(&mut self) -> &mut PolicyRecord {
        &mut self.needed
    }

    /// Notes the record of another watched status. The process knows better what is needed and durable: the
    /// watch may lag behind its own reports.
    pub fn watch(&mut self, watched: PolicyRecord) {
        self.watched = watched;
    }

    /// A report with this record is stored.
    pub fn confirm(&mut self, durable: PolicyRecord) {
        self.durable = durable;
    }

    /// Another leader may have written the status since: only what is stored counts.
    pub fn start_term(&mut self) {
        // What this process needed in its last term may be decided by another leader by now.
        self.needed = self.watched.clone();
        self.durable = self.watched.clone();
    }

    /// Without the finalizer, the status does not survive a deletion: its record of managed devices counts as
    /// not durable. Returns whether it had any.
    pub fn lose_managed(&mut self) -> bool {
        let had = !self.durable.managed.is_empty();
        self.durable.managed = Arc::default();
        had
    }

    /// Restores the owned keys for the devices of a list. They are what the status says, so they are durable.
    pub fn meet_all(&mut self, index: &DeviceIndex) {
        Arc::make_mut(&mut self.needed.owned).meet_all(index);
        // Or requests would wait for a record that is stored already.
        self.durable.owned = Arc::clone(&self.needed.owned);
    }

    /// Whether the released fields are stored as they are needed.
    pub fn have_reported_fields(&self) -> bool {
        self.durable.fields.released == self.needed.fields.released
    }

    /// Whether everything is durable.
    pub fn are_durable(&self) -> bool {
        self.durable.covers(&self.needed)
    }

    /// Whether everything but the owned keys is durable.
    pub fn are_durable_but_keys(&self) -> bool {
        self.durable.covers_all_but_keys(&self.needed)
    }

    /// Whether everything about a device is durable, so that a request for it may be sent.
    pub fn are_durable_at(&self, id: &NodeId) -> bool {
        self.durable.covers_at(id, &self.needed)
    }
}
