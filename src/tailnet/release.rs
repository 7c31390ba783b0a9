//! `deletionPolicy: Clear`: what is kept of the devices that a policy holds, and of those that it
//! releases.
//!
//! A policy under `Clear` is *held up* (by whoever keeps the reports) as long as its memory has
//! managedDevices. When it is being deleted, all its devices are released; each is forgotten once it is
//! cleared or no longer in the list. When it is given up instead is decided in `deleting.rs`.

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

/// How far a policy is with the devices that it has let go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClearReport {
    /// The devices that are not cleared yet.
    pub left: usize,
    /// What is still to be taken away, of some of them.
    pub differences: Vec<Difference>,
    /// How many such differences are known.
    pub different: usize,
    /// Why it does not go on, if it does not.
    pub blocker: Option<String>,
}

impl PolicyEntry {
    fn managed_devices(&mut self) -> &mut ManagedDevices {
        Arc::make_mut(&mut self.needed_record.managed)
    }

    /// Whether something may be sent for the devices that it has let go.
    fn clears(&self) -> bool {
        self.policy.as_ref().is_ok_and(Policy::clears)
    }

    pub fn retains(&self) -> bool {
        let policy = self.policy.as_ref();
        policy.is_ok_and(|policy| policy.deletion == Deletion::Retain) && !self.is_invalid()
    }

    /// Lets the devices go that the policy means no more, with what it put there until now. A single
    /// one is let go only for another one: a name that nobody bears is more likely a mistake. One of
    /// many of which the selector's expression cannot tell is kept too, and so is one that lists lack
    /// without a proof that it is gone.
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
            self.managed_devices().released_on(released, &owned);
        }
    }

    /// Keeps the devices that the policy holds now, so that they can be cleared one day. Says whether
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
    /// Under `Retain` nothing is kept for clearing.
    pub(super) fn retain(&mut self, key: &PolicyKey) {
        let held = self.policies.get_mut(key).filter(|held| held.retains());
        let managed = held.map(|held| std::mem::take(&mut held.needed_record.managed));
        if let Some(managed) = managed.filter(|managed| !managed.is_empty()) {
            self.forget_released(key, &managed);
            self.dirty_statuses.insert(key.clone());
        }
    }

    /// Takes a device that joins a fleet into its managedDevices.
    pub(super) fn hold_one(&mut self, id: &NodeId, key: &PolicyKey) {
        let Some(held) = self.policies.get_mut(key).filter(|held| !held.too_many) else {
            return;
        };
        let too_many = held.hold(Some(&Binding::Device(id.clone())));
        self.refuse_many(key, too_many);
    }

    /// Lets a device go that has left a fleet.
    pub(super) fn release_device(&mut self, id: &NodeId, key: &PolicyKey) {
        let held = self.policies.get_mut(key);
        if let Some(held) = held.filter(|held| !held.is_invalid()) {
            let owned = Arc::clone(&held.needed_record.owned);
            held.managed_devices()
                .released_on([id.clone()].into(), &owned);
            self.track_device(id, key);
            self.dirty_statuses.insert(key.clone());
        }
    }

    /// Nothing is sent for a policy under `Clear` that is about more devices than can be kept.
    pub(super) fn refuse_many(&mut self, key: &PolicyKey, too_many: bool) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        if held.too_many == too_many {
            return;
        }
        held.too_many = too_many;
        self.dirty_plans.extend(held.nodes().cloned());
        self.dirty_statuses.insert(key.clone());
    }

    /// One device less: maybe there are not too many any more.
    pub(super) fn recount(&mut self, key: &PolicyKey) {
        if self.policies.get(key).is_some_and(|held| held.too_many) {
            self.dirty_targets.insert(key.clone());
        }
    }

    /// Looks after the devices that a policy has let go.
    pub(super) fn track_released(&mut self, key: &PolicyKey) {
        let Some(held) = self.policies.get(key) else {
            return;
        };
        let managed = Arc::clone(&held.needed_record.managed);
        for id in managed.release() {
            self.track_device(id, key);
        }
    }

    fn track_device(&mut self, id: &NodeId, key: &PolicyKey) {
        let node = self.devices.entry(id.clone()).or_default();
        if node.clearing.insert(key.clone()) {
            self.dirty_plans.insert(id.clone());
        }
    }

    /// Nobody clears these any more for a policy.
    pub(super) fn forget_released(&mut self, key: &PolicyKey, managed: &ManagedDevices) {
        for id in managed.release() {
            if let Some(node) = self.devices.get_mut(id) {
                node.clearing.remove(key);
                self.dirty_plans.insert(id.clone());
            }
        }
    }

    /// What is to be taken from a device by policies that have let it go.
    pub(super) fn due(&self, node: &DeviceState, id: &NodeId) -> Vec<Released> {
        let due = node.clearing.iter().filter_map(|key| {
            let held = self.policies.get(key).filter(|held| held.clears())?;
            let policy = held.policy.as_ref().ok()?;
            Some(Released {
                policy: key.clone(),
                settings: held.needed_record.managed.due(id),
                allowance: policy.allowance.clone(),
                mode: policy.mode,
            })
        });
        due.collect()
    }

    /// Forgets what is cleared of a device: none of it is there any more, or somebody else wishes it;
    /// or the device is gone. Says whether that changes what is to be done.
    pub(super) fn drop_cleared(&mut self, id: &NodeId, now: Now) -> bool {
        if self
            .devices
            .get(id)
            .is_none_or(|node| node.clearing.is_empty())
        {
            return false;
        }
        let unknown = self.index.get(id).is_none_or(|device| device.external);
        let gone = unknown && self.absence.is_gone(id);
        let Some(node) = self.devices.get(id) else {
            return false;
        };
        let cleared = |key: &&PolicyKey| {
            let Some(held) = self.policies.get(*key) else {
                return true;
            };
            let due = held.needed_record.managed.due(id);
            due.is_empty() || gone || (held.clears() && !unknown && is_cleared(node, key, &due))
        };
        let cleared: Vec<PolicyKey> = node.clearing.iter().filter(cleared).cloned().collect();
        if !cleared.is_empty() {
            self.note_progress(&Progress::Cleared(id.clone()), now);
        }
        for key in &cleared {
            if let Some(node) = self.devices.get_mut(id) {
                node.clearing.remove(key);
            }
            if let Some(held) = self.policies.get_mut(key) {
                held.managed_devices().cleared(id);
            }
            self.dirty_statuses.insert(key.clone());
            self.recount(key);
        }
        self.disown_gone(id);
        !cleared.is_empty()
    }

    /// Part of what a policy put on a device that it has released may be gone before the rest can be
    /// cleared: what somebody sets there later is theirs.
    fn disown_gone(&mut self, id: &NodeId) {
        let (Some(node), Some(device)) = (self.devices.get(id), self.index.get(id)) else {
            return;
        };
        for key in &node.clearing {
            let Some(held) = self.policies.get_mut(key) else {
                continue;
            };
            let gone = node.gone(device, held.needed_record.managed.due(id));
            if !gone.is_empty() {
                held.managed_devices().forget(id, &gone);
                self.dirty_statuses.insert(key.clone());
            }
        }
    }

    /// How far a policy is with what it has let go; `None` where there is nothing.
    pub(super) fn clear_report(&self, key: &PolicyKey) -> Option<ClearReport> {
        let held = self.policies.get(key)?;
        let mut nodes = held.needed_record.managed.release();
        if held.deleting.is_some() {
            nodes.extend(&held.needed_record.managed.nodes);
        }
        if nodes.is_empty() {
            return None;
        }
        let mut report = ClearReport {
            left: nodes.len(),
            blocker: self.outage().map(|failure| failure.message.clone()),
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

    /// Whether the report of a policy need not be made yet, as it is clearing devices and nothing
    /// would be lost. As for fleets: once for each list, and when they rest.
    pub(super) fn clearing_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(held) = self.policies.get(key) else {
            return false;
        };
        let managed = &held.needed_record.managed;
        if managed.released.is_empty() || !held.clears() {
            return false;
        }
        let mut at_work = self.queues.at_work().chain(&self.dirty_steps);
        self.reported_at == self.polling.seen
            && !self.stopping
            && self.outage().is_none()
            && !self.must_record(key)
            && at_work.any(|id| {
                let node = self.devices.get(id);
                node.is_some_and(|node| node.clearing.contains(key))
            })
    }
}

impl DeviceState {
    /// What of this is known not to be there.
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

/// Whether nothing is left of what a policy put on a device, as far as it was asked for and seen.
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
    let called = format!("{} ({})", difference.device, difference.node);
    if let Some((field, failure)) = node.failures(key).next() {
        let field = field.map_or(String::new(), |field| format!(" {field}:"));
        return Some(format!("{called}:{field} {}", failure.message));
    }
    let hold = difference.hold.as_ref()?;
    let change = node.plan.disclosed_as(difference, key).change;
    Some(format!("{called}: {change} is held: {hold}"))
}
