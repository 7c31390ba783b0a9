//! When policies come to own attribute keys and to manage routes, and when they no longer do: see
//! [`crate::tailnet::owned`].

use std::collections::BTreeSet;

use super::release::track_device;
use crate::{
    model::{AttributeKey, Device, ListSetting, NodeId, PolicyField},
    plan::{AttributeType, Call, DevicePlan, Field, Mode, PolicyKey, TailnetWide},
    tailnet::{
        Now, change_budget::ChangeBudget, device_state::DeviceState, devices::Devices,
        dirty::Dirty, observed::Observed, policy_set::PolicySet, records::Records,
    },
};

/// Finds the keys that the policies of a device no longer own there. A deleted key is owned until a read
/// shows that it is gone. A key that another policy declares belongs to that policy. A value whose expiry
/// has passed is no longer desired.
pub(super) fn update_ownership(
    policies: &mut PolicySet,
    devices: &mut Devices,
    observed: &Observed,
    tailnet_wide: &TailnetWide,
    dirty: &mut Dirty,
    id: &NodeId,
    now: Now,
) {
    let Some(node) = devices.get(id) else {
        return;
    };
    let device = observed.index().get(id);
    let declared = declared_keys(policies, tailnet_wide, node, device, now);
    let mut clearing = Vec::new();
    for key in node.policies() {
        if let Some(entry) = policies.get_mut(key) {
            // A request in flight may be setting the key.
            if !node.is_busy() {
                entry.drop_never_set(id);
            }
            if entry.clear_late_keys(id) {
                clearing.push(key.clone());
            }
            entry.drop_keys(
                id,
                |policy, key| {
                    let own = policy.desired.attributes.as_ref();
                    own.is_some_and(|own| own.contains_key(key))
                        || (!declared.contains(key) && !is_gone(node, key))
                },
                |policy, key| policy.has_expired(key, now.wall),
            );
        }
    }
    for key in &clearing {
        track_device(devices, dirty, id, key);
    }
}

/// The keys that policies declare on a device in a way that protects them from deletion.
fn declared_keys(
    policies: &PolicySet,
    tailnet_wide: &TailnetWide,
    node: &DeviceState,
    device: Option<&Device>,
    now: Now,
) -> BTreeSet<AttributeKey> {
    let (guardrails, types) = (policies.guardrails(), &tailnet_wide.types);
    node.policies()
        .iter()
        .filter_map(|key| policies.get(key)?.policy().as_deref().ok())
        // A declaration that a guardrail denies protects no key.
        .filter(|policy| {
            let field = PolicyField::PostureAttributes;
            let denied = device.and_then(|device| guardrails.denies(policy, field, device));
            denied.is_none() && policy.mode != Mode::Observe
        })
        .filter_map(|policy| policy.desired.attributes.as_ref())
        .flatten()
        // Nor does one whose type conflicts with that of the tailnet, as it is never sent.
        .filter(|(key, desired)| {
            !desired.has_expired(now.wall)
                && types.against(&AttributeType::of(key, desired)).is_none()
        })
        .map(|(key, _)| key.clone())
        .collect()
}

/// Whether a read shows that an attribute is not set, and no write of it is unverified.
fn is_gone(node: &DeviceState, key: &AttributeKey) -> bool {
    let read = node.attributes();
    read.is_some_and(|values| !values.contains_key(key))
        && !node
            .progress()
            .is_unverified(&Field::Attribute(key.clone()))
}

/// The policies of a device come to own the keys that they manage there, according to the plan.
pub(super) fn adopt_keys(
    policies: &mut PolicySet,
    devices: &Devices,
    records: &mut Records,
    id: &NodeId,
    now: Now,
) {
    let Some(node) = devices.get(id) else {
        return;
    };
    // A request in flight may have been sent: its answer tells whether the key is owned.
    if node.plan().attributes_unread || !node.plan().owners.need_attributes() || node.is_busy() {
        return;
    }
    let open: BTreeSet<AttributeKey> = node
        .plan()
        .differences
        .iter()
        .filter(|it| it.hold.is_none())
        .filter_map(|difference| match difference.change.field() {
            Field::Attribute(key) => Some(key),
            _ => None,
        })
        .collect();
    let nothing = BTreeSet::new();
    let mut is_new = false;
    for key in node.policies() {
        let managed = node.plan().managed.get(key).unwrap_or(&nothing);
        if let Some(entry) = policies.get_mut(key) {
            is_new |= entry.adopt(id, managed, &open);
        }
    }
    if is_new && !open.is_empty() {
        records.await_record(now.monotonic);
    }
}

/// Attributes that were sent, and may have taken effect, are owned.
pub(super) fn note_sent(policies: &mut PolicySet, devices: &Devices, call: &Call) {
    let Call::WriteAttributes(nodes) = call else {
        return;
    };
    for id in nodes.keys() {
        let keys = devices.get(id).map(DeviceState::policies);
        for key in keys.into_iter().flatten() {
            if let Some(entry) = policies.get_mut(key) {
                entry.attributes_sent(id);
            }
        }
    }
}

/// Releases devices that are proven gone, once for each list.
pub(super) fn release_absent(
    policies: &mut PolicySet,
    observed: &Observed,
    records: &mut Records,
    dirty: &mut Dirty,
) {
    let list = observed.lists();
    if !records.take_list(list) {
        return;
    }
    for (key, entry) in policies.iter_mut() {
        if entry.release_absent(observed.index(), observed.absence(), list) {
            dirty.report(key);
        }
    }
}

/// Policies start to manage the fields that they set on a device, or would set if they differed. Runs after
/// the change limit has been applied, as a policy does not manage the fields of a held change.
pub(super) fn manage_fields(
    policies: &mut PolicySet,
    devices: &Devices,
    observed: &Observed,
    change_budget: &ChangeBudget,
    dirty: &mut Dirty,
) {
    for id in dirty.take_managed_fields() {
        manage_fields_of(policies, devices, observed, change_budget, dirty, &id);
    }
}

fn manage_fields_of(
    policies: &mut PolicySet,
    devices: &Devices,
    observed: &Observed,
    change_budget: &ChangeBudget,
    dirty: &mut Dirty,
    id: &NodeId,
) {
    let (Some(node), Some(device)) = (devices.get(id), observed.index().get(id)) else {
        return;
    };
    // Routes that were not reported are unknown: nothing is recorded on a guess.
    let knows_routes = device.enabled_routes.is_some();
    for key in node.policies() {
        // The limit holds a whole policy, also on devices where nothing differs.
        let entry = policies
            .get_mut(key)
            .filter(|entry| !entry.targets().has_too_many());
        let Some(entry) = entry.filter(|_| !change_budget.held().contains(key)) else {
            continue;
        };
        let new = entry.new_fields(|field| {
            let is_known = match field {
                Field::List(list) => knows_routes || !list.is_of_routes(),
                _ => true,
            };
            is_known && node.plan().acts_on(key, field)
        });
        let routes = knows_routes
            && entry.manage_routes(id, |route| {
                let field = Field::List(ListSetting::of_route(route));
                node.plan().acts_on(key, &field)
            });
        entry.manage_fields(&new);
        if routes || !new.is_empty() {
            dirty.report(key);
        }
    }
}

impl DevicePlan {
    /// Whether a policy owns a field of the device and would change it if it differed.
    fn acts_on(&self, policy: &PolicyKey, field: &Field) -> bool {
        let mut differences = self.of(policy).filter(|it| it.change.field() == *field);
        let mut conflicts = self.conflicts_of(policy);
        // A difference that is sent for others may be one of a suspended policy too.
        let is_suspended = matches!(self.owners.mode(policy), Mode::Suspended(_));
        if is_suspended || conflicts.any(|conflict| conflict.field == *field) {
            return false;
        }
        match differences.next() {
            Some(difference) => difference.hold.is_none(),
            None => self.owners.acts_on(policy, field),
        }
    }
}
