//! `deletionPolicy: Clear`: which devices a policy records, and which it releases.

use std::{collections::BTreeSet, sync::Arc};

use super::PolicyEntry;
use crate::{
    model::NodeId,
    plan::{Binding, Deletion, DeviceIndex, ManagedDevices, ManagedSettings, Policy},
};

impl PolicyEntry {
    pub(super) fn managed_devices(&mut self) -> &mut ManagedDevices {
        Arc::make_mut(&mut self.records.needed_mut().managed)
    }

    /// Forgets the record of managed devices, and returns it.
    pub fn take_managed(&mut self) -> Arc<ManagedDevices> {
        std::mem::take(&mut self.records.needed_mut().managed)
    }

    /// Releases a device that the selector no longer matches.
    pub fn release_device(&mut self, id: &NodeId) {
        let owned = Arc::clone(&self.needed_record().owned);
        self.managed_devices().release([id.clone()].into(), &owned);
    }

    /// Nothing is left to clear on a released device.
    pub fn note_cleared(&mut self, id: &NodeId) {
        self.managed_devices().cleared(id);
    }

    /// Some settings on a released device are gone: a value that someone sets there later is theirs.
    pub fn forget_gone(&mut self, id: &NodeId, gone: &ManagedSettings) {
        self.managed_devices().forget(id, gone);
    }

    /// Whether requests may be sent for the devices that it has released.
    pub fn clears(&self) -> bool {
        self.policy.as_deref().is_ok_and(Policy::clears)
    }

    pub fn retains(&self) -> bool {
        let policy = self.policy.as_deref();
        policy.is_ok_and(|policy| policy.deletion == Deletion::Retain) && !self.is_invalid()
    }

    /// Releases the devices that the policy no longer targets, with the settings that it put there. A policy
    /// for a single device releases it only for another one: if no device has the name, that is more likely
    /// an error. A policy with a selector keeps devices on which the expression fails, missing devices that are
    /// not proven gone, and devices whose new owner is not confirmed.
    pub fn release_unmatched_devices(
        &mut self,
        binding: Option<&Binding>,
        may_return: impl Fn(&NodeId) -> bool,
    ) {
        let deleting = self.is_deleting();
        // An invalid policy releases nothing, but its deletion must not wait for a correction.
        if self.is_invalid() && !deleting {
            return;
        }
        let released = |id: &NodeId| match binding {
            _ if deleting => true,
            Some(Binding::Device(now)) => id != now,
            Some(Binding::Selector(nodes)) => {
                !nodes.contains(id) && !self.targets.has_error(id) && !may_return(id)
            }
            _ => false,
        };
        let nodes = self.needed_record().managed.nodes.iter();
        let released: BTreeSet<NodeId> = nodes.filter(|id| released(id)).cloned().collect();
        if !released.is_empty() {
            let owned = Arc::clone(&self.needed_record().owned);
            self.managed_devices().release(released, &owned);
        }
    }

    /// Records the devices that the policy targets now, so that they can be cleared later. Returns whether
    /// they are too many. A device that it only may target, as a field cannot be read, is not recorded:
    /// nothing is sent to it.
    pub fn hold(&mut self, binding: Option<&Binding>, index: &DeviceIndex) -> bool {
        let (Ok(policy), Some(binding)) = (&self.policy, binding) else {
            return false;
        };
        // While it is in doubt which device the policy targets, nothing is released either.
        if !policy.clears() || self.is_invalid() || !binding.is_certain() {
            return false;
        }
        let (routes, puts) = (
            policy.named_routes(),
            policy.has_managed_settings(self.needed_record()),
        );
        let new: Vec<NodeId> = binding
            .nodes()
            .filter(|id| !self.needed_record().managed.nodes.contains(*id))
            // A device that may match because of an unreadable field is not managed (docs/decisions/0027).
            .filter(|id| {
                let device = index.get(id);
                device.is_none_or(|device| policy.undecided_by(device).is_empty())
            })
            .cloned()
            .collect();
        if puts && !self.needed_record().managed.has_room_for(new.len()) {
            return true;
        }
        let managed = &self.needed_record().managed;
        let has_other_routes = !managed.nodes.is_empty() && managed.routes != routes;
        if puts && (!new.is_empty() || has_other_routes) {
            let managed = self.managed_devices();
            managed.name_routes(routes);
            managed.hold(new);
        } else if !puts && !managed.nodes.is_empty() {
            self.managed_devices().forget_devices();
        }
        false
    }
}
