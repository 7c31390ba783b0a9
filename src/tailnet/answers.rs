//! What the answers of the API make of the snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::{Announcement, Answer, Engine, Failure, Now, Request, Retry, Ticket, node::Reading};
use crate::{
    api::Reason,
    model::{Attributes, Device, NodeId, RouteSet},
    plan::{AttributeWrites, Call, Difference, Field, Fleet, PolicyKey, apply, apply_attributes},
};

impl Engine {
    pub(super) fn answered(&mut self, ticket: Ticket, result: Result<Answer, Failure>, now: Now) {
        let Some(flight) = self.flights.remove(&ticket) else {
            return;
        };
        match (flight.request, result) {
            (Request::Devices, Ok(Answer::Devices(devices))) => self.take_list(devices, now),
            (Request::Devices, Err(failure)) => {
                self.polling.failed(now.monotonic, failure, &mut self.rng);
                self.tell_all();
            }
            (Request::Device(id), Ok(Answer::Device(device))) => {
                self.take_device(&id, &device, now);
            }
            (Request::Routes(id), Ok(Answer::Routes(routes))) => self.take_routes(&id, routes),
            (Request::Attributes(id), Ok(Answer::Attributes(values))) => {
                self.take_attributes(&id, values, now);
            }
            (Request::Write(call), Ok(_)) => self.take_written(&call, &flight.differences, now),
            (Request::Write(call), Err(failure)) => {
                self.take_refused(&call, &flight.differences, &failure, now);
            }
            (request, Err(failure)) => self.look_failed(&request, failure, now),
            // A driver that hands in the answer to another question has told us nothing.
            (request, Ok(_)) => self.look_failed(&request, unexpected(), now),
        }
    }

    fn take_list(&mut self, devices: Vec<Device>, now: Now) {
        let asked_at = self.polling.in_flight.unwrap_or(self.writes);
        self.polling
            .succeeded(now.monotonic, self.settings.poll_interval, &mut self.rng);
        // What was written since the list was asked for may not be in it.
        let newer = |id: &NodeId, nodes: &BTreeMap<NodeId, super::node::Node>| {
            nodes
                .get(id)
                .is_some_and(|node| node.busy > 0 || node.touched > asked_at)
        };
        let mut fleet = Fleet::default();
        for device in devices {
            let id = device.node_id.clone();
            match self.fleet.get(&id) {
                Some(ours) if newer(&id, &self.nodes) => fleet.insert(ours),
                known => {
                    if self.nodes.contains_key(&id) && known != Some(&device) {
                        self.stale.insert(id.clone());
                    }
                    fleet.insert(&device);
                    self.confirm(&id, |field| !matches!(field, Field::Attribute(_)));
                }
            }
        }
        self.fleet = fleet;
        // A held device may be gone, an address or a name may be free now.
        let held = self.nodes.iter().filter(|(id, node)| {
            self.fleet.get(id).is_none() || node.plan.differences.iter().any(|d| d.hold.is_some())
        });
        self.stale.extend(held.map(|(id, _)| id.clone()));
        self.unbound.extend(self.policies.keys().cloned());
        self.tell_all();
    }

    fn take_device(&mut self, id: &NodeId, device: &Device, now: Now) {
        if device.node_id != *id {
            self.look_failed(&Request::Device(id.clone()), unexpected(), now);
            return;
        }
        self.fleet.insert(device);
        if let Some(node) = self.nodes.get_mut(id) {
            node.busy = node.busy.saturating_sub(1);
            node.look = false;
            node.look_setback = None;
        }
        self.confirm(id, |field| !matches!(field, Field::Attribute(_)));
        self.stale.insert(id.clone());
    }

    fn take_routes(&mut self, id: &NodeId, routes: RouteSet) {
        if let Some(mut device) = self.fleet.get(id).cloned() {
            device.enabled_routes = Some(routes);
            self.fleet.insert(&device);
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.busy = node.busy.saturating_sub(1);
            node.look_setback = None;
            node.routes_fresh = true;
        }
        self.stale.insert(id.clone());
    }

    fn take_attributes(&mut self, id: &NodeId, values: Attributes, now: Now) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.busy = node.busy.saturating_sub(1);
            node.look_attributes = false;
            node.attributes_setback = None;
            node.attributes = Some(Reading {
                values,
                at: now.monotonic,
            });
        }
        self.confirm(id, |field| matches!(field, Field::Attribute(_)));
        self.stale.insert(id.clone());
    }

    /// What was written has been looked at: should it differ still, the plan shows it, and the
    /// field has a setback instead of being written again and again.
    fn confirm(&mut self, id: &NodeId, seen: impl Fn(&Field) -> bool) {
        if let Some(node) = self.nodes.get_mut(id) {
            let (looked_at, rest): (BTreeSet<_>, _) = std::mem::take(&mut node.unconfirmed)
                .into_iter()
                .partition(seen);
            node.unconfirmed = rest;
            node.looked_at.extend(looked_at);
            self.stale.insert(id.clone());
        }
    }

    fn take_written(&mut self, call: &Call, differences: &[Difference], now: Now) {
        self.writes += 1;
        for id in call.nodes() {
            if let Some(mut device) = self.fleet.get(id).cloned() {
                apply(call, &mut device);
                self.fleet.insert(&device);
            }
            if let Some(node) = self.nodes.get_mut(id) {
                node.busy = node.busy.saturating_sub(1);
                node.touched = self.writes;
                node.routes_fresh = false;
                if let (Call::WriteAttributes(writes), Some(reading)) = (call, &mut node.attributes)
                    && let Some(writes) = writes.get(id)
                {
                    apply_attributes(writes, &mut reading.values);
                }
                // Whether new tags change the key expiry is not documented: it is looked at.
                if matches!(call, Call::SetTags(..))
                    && node.plan.claims.key_expiry_disabled.is_some()
                {
                    node.look = true;
                }
            }
            self.stale.insert(id.clone());
        }
        for difference in differences {
            let field = difference.change.field();
            if let Some(node) = self.nodes.get_mut(&difference.node) {
                node.setbacks.remove(&field);
                node.unconfirmed.insert(field);
            }
            self.note_change(&difference.owner, difference, now);
        }
    }

    fn note_change(&mut self, owner: &PolicyKey, difference: &Difference, now: Now) {
        if let Some(held) = self.policies.get_mut(owner) {
            held.changed_at = Some(now.wall);
        }
        self.announce(owner, Announcement::Changed(difference.clone()));
    }

    fn take_refused(
        &mut self,
        call: &Call,
        differences: &[Difference],
        failure: &Failure,
        now: Now,
    ) {
        // One bad entry must not hold up the others: the batch is split until it is found.
        if let Call::WriteAttributes(writes) = call
            && failure.retry == Retry::Never
            && failure.reason != Reason::PlanRefused
            && let Some(halves) = halves(writes)
        {
            self.release(call);
            for half in halves {
                for node in half.keys() {
                    if let Some(node) = self.nodes.get_mut(node) {
                        node.busy += 1;
                    }
                }
                let removed = differences
                    .iter()
                    .filter(|d| concerns(&half, d))
                    .cloned()
                    .collect();
                self.send(Request::Write(Call::WriteAttributes(half)), removed);
            }
            return;
        }
        if matches!(
            failure.reason,
            Reason::CredentialRejected | Reason::DeviceNotFound
        ) {
            self.polling.hasten(now.monotonic);
        }
        self.writes += 1;
        for id in call.nodes() {
            if let Some(node) = self.nodes.get_mut(id) {
                node.busy = node.busy.saturating_sub(1);
                node.touched = self.writes;
                node.routes_fresh = false;
                if failure.unknown_outcome {
                    match call {
                        Call::WriteAttributes(_) => node.look_attributes = true,
                        _ => node.look = true,
                    }
                }
            }
            self.stale.insert(id.clone());
        }
        for difference in differences {
            self.field_failed(difference, failure, now);
        }
    }

    fn release(&mut self, call: &Call) {
        for id in call.nodes() {
            if let Some(node) = self.nodes.get_mut(id) {
                node.busy = node.busy.saturating_sub(1);
            }
        }
    }

    fn field_failed(&mut self, difference: &Difference, failure: &Failure, now: Now) {
        let field = difference.change.field();
        let before = self
            .nodes
            .get(&difference.node)
            .and_then(|node| node.setbacks.get(&field));
        let before = before.cloned();
        let setback = self.setback(failure.clone(), before.as_ref(), now);
        let told = before.is_some_and(|before| before.failure.reason == failure.reason);
        if let Some(node) = self.nodes.get_mut(&difference.node) {
            node.setbacks.insert(field.clone(), setback);
        }
        if !told {
            let device = difference.device.clone();
            let failure = failure.clone();
            self.announce(
                &difference.owner,
                Announcement::Failed {
                    device,
                    field,
                    failure,
                },
            );
        }
    }

    fn look_failed(&mut self, request: &Request, failure: Failure, now: Now) {
        let (id, attributes) = match request {
            Request::Device(id) | Request::Routes(id) => (id, false),
            Request::Attributes(id) => (id, true),
            Request::Devices | Request::Write(_) => return,
        };
        if failure.reason == Reason::CredentialRejected || failure.reason == Reason::DeviceNotFound
        {
            self.polling.hasten(now.monotonic);
        }
        let slot = |node: &super::node::Node| {
            if attributes {
                node.attributes_setback.clone()
            } else {
                node.look_setback.clone()
            }
        };
        let before = self.nodes.get(id).and_then(slot);
        let setback = Some(self.setback(failure, before.as_ref(), now));
        if let Some(node) = self.nodes.get_mut(id) {
            node.busy = node.busy.saturating_sub(1);
            if attributes {
                node.attributes_setback = setback;
            } else {
                node.look_setback = setback;
            }
        }
        self.stale.insert(id.clone());
    }

    /// A field that was written, looked at and still differs.
    pub(super) fn check_effect(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let looked_at = std::mem::take(&mut node.looked_at);
        let open: BTreeSet<Field> = node
            .plan
            .differences
            .iter()
            .map(|d| d.change.field())
            .collect();
        node.setbacks.retain(|field, _| open.contains(field));
        let undone: Vec<Difference> = node
            .plan
            .differences
            .iter()
            .filter(|difference| looked_at.contains(&difference.change.field()))
            .cloned()
            .collect();
        for difference in undone {
            let failure = Failure {
                reason: Reason::NotEffective,
                message: format!(
                    "The API accepted the change of {}, but the device still has {}. It is tried again later.",
                    difference.change.field(),
                    difference.change.before(),
                ),
                retry: Retry::Later,
                unknown_outcome: false,
            };
            self.field_failed(&difference, &failure, now);
        }
    }

    /// Lets a device go that a policy means no more.
    pub(super) fn let_go(&mut self, id: NodeId, key: &PolicyKey) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.policies.remove(key);
            if node.policies.is_empty() && node.busy == 0 {
                self.nodes.remove(&id);
                self.stale.remove(&id);
                self.active.remove(&id);
            } else {
                self.stale.insert(id);
            }
        }
    }

    /// Whether a bound device is missing in a list for the first time: one short list is no proof
    /// that it is gone.
    pub(super) fn just_missing(&mut self, key: &PolicyKey) -> bool {
        let bound = self
            .policies
            .get(key)
            .and_then(|held| held.memory.bound.as_ref());
        let Some(bound) = bound else { return false };
        if self.fleet.get(&bound.node).is_some() {
            self.missing.remove(&bound.node);
            return false;
        }
        let first_missed = *self
            .missing
            .entry(bound.node.clone())
            .or_insert(self.polling.seen);
        self.polling.seen <= first_missed
    }
}

/// A batch in two; `None` where it is a single entry.
fn halves(
    writes: &BTreeMap<NodeId, AttributeWrites>,
) -> Option<[BTreeMap<NodeId, AttributeWrites>; 2]> {
    let entries: Vec<_> = writes
        .iter()
        .flat_map(|(node, writes)| writes.iter().map(move |(key, wish)| (node, key, wish)))
        .collect();
    if entries.len() < 2 {
        return None;
    }
    let (first, second) = entries.split_at(entries.len() / 2);
    Some([first, second].map(|half| {
        let mut writes: BTreeMap<NodeId, AttributeWrites> = BTreeMap::new();
        for (node, key, wish) in half {
            writes
                .entry((*node).clone())
                .or_default()
                .insert((*key).clone(), (*wish).clone());
        }
        writes
    }))
}

fn concerns(writes: &BTreeMap<NodeId, AttributeWrites>, difference: &Difference) -> bool {
    match difference.change.field() {
        Field::Attribute(key) => writes
            .get(&difference.node)
            .is_some_and(|writes| writes.contains_key(&key)),
        _ => false,
    }
}

fn unexpected() -> Failure {
    Failure {
        reason: Reason::ApiError,
        message: "The API answered with another device than the one that was asked for.".to_owned(),
        retry: Retry::Later,
        unknown_outcome: false,
    }
}
