//! `deletionPolicy: Clear`: the record of the devices that a policy manages, and of those that it has
//! released.
//!
//! The finalizer of a policy under `Clear` stays as long as its record has managed devices. When the policy
//! is being deleted, all its devices are released. Each is dropped from the record once it is cleared or gone
//! from the tailnet. `deleting.rs` decides when to give up instead.

use std::{collections::BTreeSet, sync::Arc};

use super::{device_state::DeviceState, policy_entry::PolicyEntry};
use crate::{
    model::{AttributeKey, Device, ListSetting, NodeId, Route},
    plan::{
        Binding, Deletion, DeviceIndex, Difference, Edit, Field, ManagedDevices, ManagedSettings,
        Policy, PolicyKey,
    },
};

/// The progress of clearing the devices that a policy has released.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClearReport {
    /// The released devices that are not cleared yet.
    pub left: usize,
    /// The targeted devices on which released fields are not cleared yet.
    pub fields: usize,
    /// Some of the differences that remain on them.
    pub differences: Vec<Difference>,
    /// The number of known differences.
    pub different: usize,
    /// Why clearing does not proceed, if so.
    pub blocker: Option<String>,
}

impl PolicyEntry {
    pub fn managed_devices(&mut self) -> &mut ManagedDevices {
        Arc::make_mut(&mut self.needed_record.managed)
    }

    /// Whether requests may be sent for the devices that it has released.
    pub fn clears(&self) -> bool {
        self.policy.as_ref().is_ok_and(Policy::clears)
    }

    pub fn retains(&self) -> bool {
        let policy = self.policy.as_ref();
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
        let deleting = self.deleting.is_some();
        // An invalid policy releases nothing, but its deletion must not wait for a correction.
        if self.is_invalid() && !deleting {
            return;
        }
        let released = |id: &NodeId| match binding {
            _ if deleting => true,
            Some(Binding::Device(now)) => id != now,
            Some(Binding::Selector(nodes)) => {
                !nodes.contains(id) && !self.selector_errors.contains(id) && !may_return(id)
            }
            _ => false,
        };
        let nodes = self.needed_record.managed.nodes.iter();
        let released: BTreeSet<NodeId> = nodes.filter(|id| released(id)).cloned().collect();
        if !released.is_empty() {
            let owned = Arc::clone(&self.needed_record.owned);
            self.managed_devices().release(released, &owned);
        }
    }

    /// Releases the fields that the spec no longer declares. Returns whether that must be reported.
    pub fn release_fields(&mut self, binding: Option<&Binding>) -> bool {
        let (Ok(policy), Some(binding)) = (&self.policy, binding) else {
            return false;
        };
        // While an edited selector is evaluated, the policy in force is still the one before.
        if self.is_invalid() || policy.is_invalid() || self.deleting.is_some() {
            return false;
        }
        let released = &self.needed_record.fields.released;
        let edit = Edit {
            generation: self.generation,
            devices: binding.nodes().count(),
            is_certain: is_certain(binding),
            is_reported: self.durable_record.fields.released == *released,
        };
        let owned = Arc::clone(&self.needed_record.owned);
        let has_changed = self.needed_record.release_fields(policy, edit);
        if !Arc::ptr_eq(&owned, &self.needed_record.owned) {
            self.keys.forget_unsent();
        }
        has_changed
    }

    /// Records the devices that the policy targets now, so that they can be cleared later. Returns whether
    /// they are too many. A device that it only may target, as a field cannot be read, is not recorded:
    /// nothing is sent to it.
    pub fn hold(&mut self, binding: Option<&Binding>, index: &DeviceIndex) -> bool {
        let (Ok(policy), Some(binding)) = (&self.policy, binding) else {
            return false;
        };
        // While it is in doubt which device the policy targets, nothing is released either.
        if !policy.clears() || self.is_invalid() || !is_certain(binding) {
            return false;
        }
        let (routes, puts) = (
            policy.named_routes(),
            policy.has_managed_settings(&self.needed_record),
        );
        let new = |id: &&NodeId| !self.needed_record.managed.nodes.contains(*id);
        // A device that may match because of an unreadable field is not managed (docs/decisions/0027).
        let is_decided = |id: &&NodeId| {
            let device = index.get(id);
            device.is_none_or(|device| policy.undecided_by(device).is_empty())
        };
        let new = binding.nodes().filter(new).filter(is_decided);
        let new: Vec<NodeId> = new.cloned().collect();
        if puts && !self.needed_record.managed.has_room_for(new.len()) {
            return true;
        }
        let managed = &self.needed_record.managed;
        if puts && (!new.is_empty() || managed.routes != routes) {
            let managed = self.managed_devices();
            managed.name_routes(routes);
            managed.hold(new);
        } else if !puts && !managed.nodes.is_empty() {
            self.managed_devices().forget_devices();
        }
        false
    }
}

/// Whether it is certain which devices the policy targets.
const fn is_certain(binding: &Binding) -> bool {
    matches!(binding, Binding::Device(_) | Binding::Selector(_))
}

impl DeviceState {
    /// The settings that are known to be gone.
    pub fn gone(&self, device: &Device, of: ManagedSettings) -> ManagedSettings {
        let written = |field: &Field| {
            let mut written = self.progress().written();
            written.any(|it| it == field)
        };
        let attributes = self.attributes();
        let is_gone = |key: &AttributeKey| {
            attributes.is_some_and(|values| !values.contains_key(key))
                && !written(&Field::Attribute(key.clone()))
        };
        let enabled = device.enabled_routes.as_ref();
        let is_disabled = |route: &Route| {
            let field = Field::List(ListSetting::of_route(route));
            enabled.is_some_and(|enabled| !enabled.contains(route)) && !written(&field)
        };
        // The snapshot may be older than a request whose outcome is unknown.
        if self.is_busy() || self.is_in_question() {
            return ManagedSettings::default();
        }
        ManagedSettings {
            keys: of.keys.into_iter().filter(is_gone).collect(),
            routes: of.routes.into_iter().filter(is_disabled).collect(),
        }
    }
}

pub(super) fn blocker(
    node: &DeviceState,
    key: &PolicyKey,
    difference: &Difference,
) -> Option<String> {
    let label = format!("{} ({})", difference.device, difference.node);
    if let Some((field, failure)) = node.failures(key).next() {
        let field = field.map_or(String::new(), |field| format!(" {field}:"));
        return Some(format!("{label}:{field} {}", failure.message));
    }
    let hold = difference.hold.as_ref()?;
    let change = node.plan().disclosed_as(difference, key).change;
    Some(format!("{label}: {change} is held: {hold}"))
}
