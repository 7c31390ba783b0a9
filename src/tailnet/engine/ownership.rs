//! When policies come to own attribute keys and to manage routes, and when they no longer do: see
//! [`crate::tailnet::owned`].

use std::collections::BTreeSet;

use super::Engine;
use crate::{
    model::{AttributeKey, DesiredAttribute, ListSetting, NodeId, PolicyField, Route},
    plan::{AttributeType, Call, DevicePlan, Field, Mode, Policy, PolicyKey},
    tailnet::{Now, device_state::DeviceState},
};

impl Engine {
    /// Finds the keys that the policies of a device no longer own there. A deleted key is owned until a read
    /// shows that it is gone. A key that another policy declares belongs to that policy. A value whose expiry
    /// has passed is no longer desired.
    pub(super) fn update_ownership(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.devices.get(id) else {
            return;
        };
        let device = self.observed.index().get(id);
        // A declaration that a guardrail denies, or whose type conflicts with the tailnet's, does not protect
        // a key from deletion.
        let guardrails = self.policies.guardrails();
        let counts = |policy: &Policy| {
            let field = PolicyField::PostureAttributes;
            let denied = device.and_then(|device| guardrails.denies(policy, field, device));
            denied.is_none() && policy.mode != Mode::Observe
        };
        let types = &self.tailnet_wide.types;
        let can_hold = |key: &AttributeKey, desired: &DesiredAttribute| {
            types.against(&AttributeType::of(key, desired)).is_none()
        };
        let declared: BTreeSet<AttributeKey> = node
            .policies()
            .iter()
            .filter_map(|key| self.policies.get(key)?.policy().as_ref().ok())
            .filter(|policy| counts(policy))
            .filter_map(|policy| policy.desired.attributes.as_ref())
            .flatten()
            .filter(|(key, desired)| !desired.has_expired(now.wall) && can_hold(key, desired))
            .map(|(key, _)| key.clone())
            .collect();
        let gone = |key: &AttributeKey| {
            let read = node.attributes();
            read.is_some_and(|values| !values.contains_key(key))
                && !node
                    .progress()
                    .is_unverified(&Field::Attribute(key.clone()))
        };
        let kept = |policy: &Policy, key: &AttributeKey| {
            let own = policy.desired.attributes.as_ref();
            own.is_some_and(|own| own.contains_key(key)) || (!declared.contains(key) && !gone(key))
        };
        let expired = |policy: &Policy, key: &AttributeKey| policy.has_expired(key, now.wall);
        let mut clearing = Vec::new();
        for key in node.policies() {
            if let Some(entry) = self.policies.get_mut(key) {
                // A request in flight may be setting the key.
                if !node.is_busy() {
                    entry.drop_never_set(id);
                }
                if entry.clear_late_keys(id) {
                    clearing.push(key.clone());
                }
                entry.drop_keys(id, kept, expired);
            }
        }
        for key in &clearing {
            self.track_device(id, key);
        }
    }

    /// The policies of a device come to own the keys that they manage there, according to the plan.
    pub(super) fn adopt_keys(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.devices.get(id) else {
            return;
        };
        // A request in flight may have been sent: its answer tells whether the key is owned.
        if node.plan().attributes_unread || !node.plan().owners.need_attributes() || node.is_busy()
        {
            return;
        }
        let open = node
            .plan()
            .differences
            .iter()
            .filter(|it| it.hold.is_none());
        let open = open.filter_map(|difference| match difference.change.field() {
            Field::Attribute(key) => Some(key),
            _ => None,
        });
        let open: BTreeSet<AttributeKey> = open.collect();
        let nothing = BTreeSet::new();
        let mut is_new = false;
        for key in node.policies() {
            let managed = node.plan().managed.get(key).unwrap_or(&nothing);
            if let Some(entry) = self.policies.get_mut(key) {
                is_new |= entry.adopt(id, managed, &open);
            }
        }
        if is_new && !open.is_empty() {
            self.records.await_record(now.monotonic);
        }
    }

    /// Attributes that were sent, and may have taken effect, are owned.
    pub(super) fn note_sent(&mut self, call: &Call) {
        let Call::WriteAttributes(nodes) = call else {
            return;
        };
        for id in nodes.keys() {
            let policies = self.devices.get(id).map(DeviceState::policies);
            for key in policies.into_iter().flatten() {
                if let Some(entry) = self.policies.get_mut(key) {
                    entry.attributes_sent(id);
                }
            }
        }
    }

    /// Releases devices that are proven gone, once for each list.
    pub(super) fn release_absent(&mut self) {
        let list = self.observed.lists();
        if !self.records.take_list(list) {
            return;
        }
        for (key, entry) in self.policies.iter_mut() {
            if entry.release_absent(self.observed.index(), self.observed.absence(), list) {
                self.dirty.report(key);
            }
        }
    }

    /// Policies start to manage the fields that they set on a device, or would set if they differed. Runs after
    /// the change limit has been applied, as a policy does not manage the fields of a held change.
    pub(super) fn manage_fields(&mut self) {
        for id in self.dirty.take_managed_fields() {
            self.manage_fields_of(&id);
        }
    }

    fn manage_fields_of(&mut self, id: &NodeId) {
        let (Some(node), Some(device)) = (self.devices.get(id), self.observed.index().get(id))
        else {
            return;
        };
        // Routes that were not reported are unknown: nothing is recorded on a guess.
        let knows_routes = device.enabled_routes.is_some();
        for key in node.policies() {
            // The limit holds a whole policy, also on devices where nothing differs.
            let entry = self
                .policies
                .get_mut(key)
                .filter(|entry| !entry.targets().has_too_many());
            let Some(entry) = entry.filter(|_| !self.change_budget.held().contains(key)) else {
                continue;
            };
            let new = entry.new_fields(|field| {
                let is_known = match field {
                    Field::List(list) => knows_routes || !list.is_of_routes(),
                    _ => true,
                };
                is_known && node.plan().acts_on(key, field)
            });
            let sends = |route: &Route| {
                let field = Field::List(ListSetting::of_route(route));
                node.plan().acts_on(key, &field)
            };
            let routes = knows_routes && entry.manage_routes(id, sends);
            entry.manage_fields(&new);
            if routes || !new.is_empty() {
                self.dirty.report(key);
            }
        }
    }
}

impl DevicePlan {
    /// Whether a policy owns a field of the device and would change it if it differed.
    fn acts_on(&self, policy: &PolicyKey, field: &Field) -> bool {
        let mut differences = self.of(policy).filter(|it| it.change.field() == *field);
        let mut conflicts = self.owners.conflicts.iter();
        if conflicts.any(|conflict| conflict.overridden == *policy && conflict.field == *field) {
            return false;
        }
        match differences.next() {
            Some(difference) => difference.hold.is_none(),
            None => self.owners.acts_on(policy, field),
        }
    }
}
