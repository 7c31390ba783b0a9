//! What a policy must know after a restart.

use std::sync::Arc;

use super::{Bound, DeviceIndex, Rivals};
use crate::{
    model::NodeId,
    plan::{ActionRecords, KeyExpiries, ManagedDevices, ManagedFields, OwnedKeys, PlanHash},
};

/// What a policy must know after a restart, recorded in its status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PolicyRecord {
    /// The device that it was bound to when last seen.
    pub bound: Option<Bound>,
    /// The devices that had its name when it was last bound to none of several: one of them is bound only
    /// once the others are proven to be gone.
    pub rivals: Option<Arc<Rivals>>,
    /// The attribute keys that it owns on each device: declared, or declared before and not deleted yet.
    /// Shared, because it can have thousands of devices.
    pub owned: Arc<OwnedKeys>,
    /// The fields that it manages, and those that its last edit released.
    pub fields: ManagedFields,
    /// With which expiry it declared its attribute keys.
    pub key_expiries: KeyExpiries,
    /// The last reconcile request that was handled.
    pub handled: Option<String>,
    /// How many approvals of held plans have been used. Part of the hash of the next plan, so that no
    /// approval works twice.
    pub approvals_used: u32,
    /// The plan that was approved last.
    pub approved: Option<PlanHash>,
    /// The plan that was last reported as held.
    pub held: Option<PlanHash>,
    /// The devices that it would have to clear. Shared, because there can be thousands.
    pub managed: Arc<ManagedDevices>,
    /// Its one-shot actions. Shared too.
    pub actions: Arc<ActionRecords>,
}

impl PolicyRecord {
    /// Whether this records everything that `needed` records, so that a crash after the next request would
    /// lose nothing. A changed owner of the bound device need not be recorded before a request: the next
    /// status contains it.
    #[must_use]
    pub fn covers(&self, needed: &Self) -> bool {
        // Most records are shared and unchanged, so that thousands of devices are rarely compared.
        self.covers_all_but_keys(needed)
            && (Arc::ptr_eq(&self.owned, &needed.owned) || self.owned.covers(&needed.owned))
    }

    /// The record, with the keys of a status applied to the devices of a complete list.
    #[must_use]
    pub fn met(&self, index: &DeviceIndex) -> Self {
        let mut met = self.clone();
        if met.owned.unmet().is_some() {
            Arc::make_mut(&mut met.owned).meet_all(index);
        }
        met
    }

    /// As [`Self::covers`], for a request about one device: of the owned keys, only those on this device must
    /// be recorded.
    #[must_use]
    pub fn covers_at(&self, id: &NodeId, needed: &Self) -> bool {
        self.covers_all_but_keys(needed) && self.owned.covers_at(id, &needed.owned)
    }

    /// As [`Self::covers`], for everything but the owned keys.
    #[must_use]
    pub fn covers_all_but_keys(&self, needed: &Self) -> bool {
        let device = |record: &Self| {
            let bound = record.bound.as_ref();
            bound.map(|bound| (bound.node.clone(), bound.named.clone()))
        };
        device(self) == device(needed)
            && self.key_expiries == needed.key_expiries
            && needed.fields.fields.is_subset(&self.fields.fields)
            // A higher count voids every approval that a lower one voids.
            && self.approvals_used >= needed.approvals_used
            && (Arc::ptr_eq(&self.managed, &needed.managed) || self.managed.cover(&needed.managed))
            && (Arc::ptr_eq(&self.actions, &needed.actions) || self.actions.cover(&needed.actions))
    }
}

/// The values of a policy's annotations that request a reconcile.
pub type ReconcileRequest = [Option<String>; 2];
