//! `deletionPolicy: Clear`: the record of the devices that a policy manages, and of those that it has
//! released.
//!
//! The finalizer of a policy under `Clear` stays as long as its record has managed devices. When the policy
//! is being deleted, all its devices are released. Each is dropped from the record once it is cleared or gone
//! from the tailnet. `deleting.rs` decides when to give up instead.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Engine, Now, deadline::Progress, device_state::DeviceState, policy_entry::PolicyEntry,
};
use crate::{
    model::{AttributeKey, Device, NodeId, Route},
    plan::{
        Binding, Deletion, Difference, Field, MAX_MANAGED, ManagedDevices, ManagedSettings, Policy,
        PolicyKey, Released, Why,
    },
    tailnet::DETAILS,
};

/// The progress of clearing the devices that a policy has released.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClearReport {
    /// The devices that are not cleared yet.
    pub left: usize,
    /// Some of the differences that remain on them.
    pub differences: Vec<Difference>,
    /// The number of known differences.
    pub different: usize,
    /// Why clearing does not proceed, if so.
    pub blocker: Option<String>,
}

impl PolicyEntry {
    fn managed_devices(&mut self) -> &mut ManagedDevices {
        Arc::make_mut(&mut self.needed_record.managed)
    }

    /// Whether requests may be sent for the devices that it has released.
    fn clears(&self) -> bool {
        self.policy.as_ref().is_ok_and(Policy::clears)
    }

    pub fn retains(&self) -> bool {
        let policy = self.policy.as_ref();
        policy.is_ok_and(|policy| policy.deletion == Deletion::Retain) && !self.is_invalid()
    }

    /// Releases the devices that the policy no longer targets, with the settings that it put there. A policy
    /// for a single device releases it only for another one: if no device has the name, that is more likely
    /// an error. A policy with a selector keeps devices on which the expression fails, and missing devices
    /// that are not proven gone.
    pub fn release_unmatched_devices(
        &mut self,
        binding: Option<&Binding>,
        may_return: impl Fn(&NodeId) -> bool,
    ) {
        let deleting = self.deleting.is_some();
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

    /// Records the devices that the policy targets now, so that they can be cleared later. Returns whether
    /// they are too many.
    pub fn hold(&mut self, binding: Option<&Binding>) -> bool {
        let (Ok(policy), Some(binding)) = (&self.policy, binding) else {
            return false;
        };
        if !policy.clears() || self.is_invalid() {
            return false;
        }
        let (routes, puts) = (
            policy.named_routes(),
            policy.has_managed_settings(&self.needed_record),
        );
        let new = |id: &&NodeId| !self.needed_record.managed.nodes.contains(*id);
        let new: Vec<NodeId> = binding.nodes().filter(new).cloned().collect();
        if puts && self.needed_record.managed.count() + new.len() > MAX_MANAGED {
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

impl Engine {
    /// Under `Retain`, nothing is recorded for clearing.
    pub(super) fn retain(&mut self, key: &PolicyKey) {
        let entry = self.policies.get_mut(key).filter(|entry| entry.retains());
        let managed = entry.map(|entry| std::mem::take(&mut entry.needed_record.managed));
        if let Some(managed) = managed.filter(|managed| !managed.is_empty()) {
            self.forget_released(key, &managed);
            self.dirty.report(key);
        }
    }

    /// Records a device that the selector matches now as managed.
    pub(super) fn hold_one(&mut self, id: &NodeId, key: &PolicyKey) {
        let Some(entry) = self.policies.get_mut(key).filter(|entry| !entry.too_many) else {
            return;
        };
        let too_many = entry.hold(Some(&Binding::Device(id.clone())));
        self.refuse_many(key, too_many);
    }

    /// Releases a device that the selector no longer matches.
    pub(super) fn release_device(&mut self, id: &NodeId, key: &PolicyKey) {
        let entry = self.policies.get_mut(key);
        if let Some(entry) = entry.filter(|entry| !entry.is_invalid()) {
            let owned = Arc::clone(&entry.needed_record.owned);
            entry.managed_devices().release([id.clone()].into(), &owned);
            self.track_device(id, key);
            self.dirty.report(key);
        }
    }

    /// Nothing is sent for a policy under `Clear` that targets more devices than its status can record.
    pub(super) fn refuse_many(&mut self, key: &PolicyKey, too_many: bool) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        if entry.too_many == too_many {
            return;
        }
        entry.too_many = too_many;
        self.dirty.plan_all(entry.nodes().cloned());
        self.dirty.report(key);
    }

    /// With one device less, there may no longer be too many.
    pub(super) fn recount(&mut self, key: &PolicyKey) {
        if self.policies.get(key).is_some_and(|entry| entry.too_many) {
            self.dirty.rebind(key);
        }
    }

    /// Tracks the devices that a policy has released.
    pub(super) fn track_released(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get(key) else {
            return;
        };
        let managed = Arc::clone(&entry.needed_record.managed);
        for id in managed.released_devices() {
            self.track_device(id, key);
        }
    }

    fn track_device(&mut self, id: &NodeId, key: &PolicyKey) {
        let node = self.devices.get_or_add(id);
        if node.clearing.insert(key.clone()) {
            self.dirty.plan(id);
        }
    }

    /// Stops clearing these devices for a policy.
    pub(super) fn forget_released(&mut self, key: &PolicyKey, managed: &ManagedDevices) {
        for id in managed.released_devices() {
            if let Some(node) = self.devices.get_mut(id) {
                node.clearing.remove(key);
                self.dirty.plan(id);
            }
        }
    }

    /// The settings that policies that have released a device must clear there.
    pub(super) fn due(&self, node: &DeviceState, id: &NodeId) -> Vec<Released> {
        let due = node.clearing.iter().filter_map(|key| {
            let entry = self.policies.get(key).filter(|entry| entry.clears())?;
            let policy = entry.policy.as_ref().ok()?;
            Some(Released {
                policy: key.clone(),
                settings: entry.needed_record.managed.due(id),
                allowance: policy.allowance.clone(),
                mode: policy.mode,
            })
        });
        due.collect()
    }

    /// Drops cleared settings of a device from the records: they are gone, another policy declares them, or
    /// the device is gone. Returns whether that changes the plan.
    pub(super) fn drop_cleared(&mut self, id: &NodeId, now: Now) -> bool {
        if self
            .devices
            .get(id)
            .is_none_or(|node| node.clearing.is_empty())
        {
            return false;
        }
        let unknown = self
            .observed
            .index()
            .get(id)
            .is_none_or(|device| device.external);
        let gone = unknown && self.observed.absence().is_gone(id);
        let Some(node) = self.devices.get(id) else {
            return false;
        };
        let cleared = |key: &&PolicyKey| {
            let Some(entry) = self.policies.get(key) else {
                return true;
            };
            let due = entry.needed_record.managed.due(id);
            due.is_empty() || gone || (entry.clears() && !unknown && is_cleared(node, key, &due))
        };
        let cleared: Vec<PolicyKey> = node.clearing.iter().filter(cleared).cloned().collect();
        if !cleared.is_empty() {
            self.note_progress(&Progress::Cleared(id.clone()), now);
        }
        for key in &cleared {
            if let Some(node) = self.devices.get_mut(id) {
                node.clearing.remove(key);
            }
            if let Some(entry) = self.policies.get_mut(key) {
                entry.managed_devices().cleared(id);
            }
            self.dirty.report(key);
            self.recount(key);
        }
        self.disown_gone(id);
        !cleared.is_empty()
    }

    /// Some settings on a released device may be gone before the rest can be cleared. A value that somebody
    /// sets there later is theirs.
    fn disown_gone(&mut self, id: &NodeId) {
        let (Some(node), Some(device)) = (self.devices.get(id), self.observed.index().get(id))
        else {
            return;
        };
        for key in &node.clearing {
            let Some(entry) = self.policies.get_mut(key) else {
                continue;
            };
            let gone = node.gone(device, entry.needed_record.managed.due(id));
            if !gone.is_empty() {
                entry.managed_devices().forget(id, &gone);
                self.dirty.report(key);
            }
        }
    }

    /// The progress of clearing the released devices; `None` if there are none.
    pub(super) fn clear_report(&self, key: &PolicyKey) -> Option<ClearReport> {
        let entry = self.policies.get(key)?;
        let mut nodes = entry.needed_record.managed.released_devices();
        if entry.deleting.is_some() {
            nodes.extend(&entry.needed_record.managed.nodes);
        }
        if nodes.is_empty() {
            return None;
        }
        let mut report = ClearReport {
            left: nodes.len(),
            blocker: self
                .gate
                .outage(&self.observed)
                .map(|failure| failure.message.clone()),
            ..ClearReport::default()
        };
        for node in nodes.into_iter().filter_map(|id| self.devices.get(id)) {
            let own = || node.plan.of(key).filter(|d| d.why == Why::Released);
            let room = DETAILS - report.differences.len();
            let reported = own().map(|difference| node.plan.disclosed_as(difference, key));
            report.differences.extend(reported.take(room));
            report.different += own().count();
            if report.blocker.is_none() {
                report.blocker = own().next().and_then(|first| blocker(node, key, first));
            }
        }
        self.name_frozen_plan(key, &mut report.differences);
        Some(report)
    }

    /// Whether the report of a policy that is clearing devices can wait, as no record depends on it. Like for
    /// selectors, a report is made once for each list, and when the devices are idle.
    pub(super) fn clearing_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(entry) = self.policies.get(key) else {
            return false;
        };
        let managed = &entry.needed_record.managed;
        if managed.released.is_empty() || !entry.clears() {
            return false;
        }
        let mut at_work = self.queues.at_work().chain(self.dirty.awaiting_step());
        self.statuses.covers(self.observed.lists())
            && !self.gate.is_stopping()
            && self.gate.outage(&self.observed).is_none()
            && !self.must_record(key)
            && at_work.any(|id| {
                let node = self.devices.get(id);
                node.is_some_and(|node| node.clearing.contains(key))
            })
    }
}

impl DeviceState {
    /// The settings that are known to be gone.
    fn gone(&self, device: &Device, of: ManagedSettings) -> ManagedSettings {
        let written = |field: &Field| {
            self.unverified.contains_key(field) || self.verified.contains_key(field)
        };
        let attributes = self.attributes.as_ref().map(|reading| &reading.values);
        let is_gone = |key: &AttributeKey| {
            attributes.is_some_and(|values| !values.contains_key(key))
                && !written(&Field::Attribute(key.clone()))
        };
        let enabled = device.enabled_routes.as_ref();
        let is_disabled = |route: &Route| {
            let field = if route.is_exit_node() {
                Field::ExitNode
            } else {
                Field::EnabledRoutes
            };
            enabled.is_some_and(|enabled| !enabled.contains(route)) && !written(&field)
        };
        if self.busy > 0 || self.read || self.read_attributes {
            return ManagedSettings::default();
        }
        ManagedSettings {
            keys: of.keys.into_iter().filter(is_gone).collect(),
            routes: of.routes.into_iter().filter(is_disabled).collect(),
        }
    }
}

/// Whether all settings that a policy put on a device are cleared, as far as a read has verified.
fn is_cleared(node: &DeviceState, key: &PolicyKey, due: &ManagedSettings) -> bool {
    let (mut exit, mut subnets) = (false, false);
    for route in &due.routes {
        *(if route.is_exit_node() {
            &mut exit
        } else {
            &mut subnets
        }) = true;
    }
    let concerned = |field: &Field| match field {
        Field::Attribute(attribute) => due.keys.contains(attribute),
        Field::EnabledRoutes => subnets,
        Field::ExitNode => exit,
        _ => false,
    };
    let mut open = node
        .plan
        .of(key)
        .map(|difference| difference.change.field());
    node.plan.complete()
        && node.busy == 0
        && !node.read
        && !node.read_attributes
        && !open.any(|field| concerned(&field))
        && !node.unverified.keys().any(concerned)
        && !node.verified.keys().any(concerned)
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
    let change = node.plan.disclosed_as(difference, key).change;
    Some(format!("{label}: {change} is held: {hold}"))
}
