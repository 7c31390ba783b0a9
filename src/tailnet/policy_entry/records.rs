//! The records of a policy: what must survive a crash, and how much of it does by now.

use std::sync::Arc;

use crate::{
    model::NodeId,
    plan::{DeviceIndex, PolicyRecord},
};

/// The record of a policy, as it is needed and as it is stored: most of the time one record, which is shared.
#[derive(Debug)]
pub(in crate::tailnet) struct PolicyRecords {
    /// In the last watched status; a term starts with it.
    watched: Arc<PolicyRecord>,
    /// A crash does not lose it.
    durable: Arc<PolicyRecord>,
    /// What the next report stores.
    needed: Arc<PolicyRecord>,
}

impl PolicyRecords {
    /// The record that a status has.
    pub fn new(stored: PolicyRecord) -> Self {
        let stored = Arc::new(stored);
        Self {
            watched: Arc::clone(&stored),
            durable: Arc::clone(&stored),
            needed: stored,
        }
    }

    /// The record that is needed.
    pub const fn needed(&self) -> &Arc<PolicyRecord> {
        &self.needed
    }

    pub fn needed_mut(&mut self) -> &mut PolicyRecord {
        Arc::make_mut(&mut self.needed)
    }

    /// Notes the record of another watched status. The process knows better what is needed and durable: the
    /// watch may lag behind its own reports.
    pub fn watch(&mut self, watched: PolicyRecord) {
        self.watched = if watched == *self.needed {
            Arc::clone(&self.needed)
        } else {
            Arc::new(watched)
        };
    }

    /// Holds equal records once: a step may have copied the record and changed nothing.
    pub fn share(&mut self) {
        for other in [&self.durable, &self.watched] {
            if !Arc::ptr_eq(&self.needed, other) && self.needed == *other {
                self.needed = Arc::clone(other);
            }
        }
        for other in [&mut self.durable, &mut self.watched] {
            if *other == self.needed {
                *other = Arc::clone(&self.needed);
            }
        }
    }

    /// A report with this record is stored.
    pub fn confirm(&mut self, durable: Arc<PolicyRecord>) {
        self.durable = durable;
    }

    /// Another leader may have written the status since: only what is stored counts.
    pub fn start_term(&mut self) {
        // What this process needed in its last term may be decided by another leader by now.
        self.needed = Arc::clone(&self.watched);
        self.durable = Arc::clone(&self.watched);
    }

    /// Without the finalizer, the status does not survive a deletion: its record of managed devices counts as
    /// not durable. Returns whether it had any.
    pub fn lose_managed(&mut self) -> bool {
        let had = !self.durable.managed.is_empty();
        if had {
            Arc::make_mut(&mut self.durable).managed = Arc::default();
        }
        had
    }

    /// Restores the owned keys for the devices of a list. They are what the status says, so they are durable.
    pub fn meet_all(&mut self, index: &DeviceIndex) {
        Arc::make_mut(&mut self.needed_mut().owned).meet_all(index);
        // Or requests would wait for a record that is stored already.
        Arc::make_mut(&mut self.durable).owned = Arc::clone(&self.needed.owned);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_records_are_held_once_and_different_ones_stay() {
        let mut records = PolicyRecords::new(PolicyRecord::default());
        // A copy without a change.
        records.needed_mut();
        assert!(!Arc::ptr_eq(&records.needed, &records.durable));
        records.share();
        assert!(Arc::ptr_eq(&records.needed, &records.durable));
        assert!(Arc::ptr_eq(&records.needed, &records.watched));
        records.needed_mut().approvals_used = 1;
        records.confirm(Arc::new(records.needed().as_ref().clone()));
        records.share();
        assert!(Arc::ptr_eq(&records.needed, &records.durable));
        assert_eq!(records.watched.approvals_used, 0);
    }
}
