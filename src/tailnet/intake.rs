//! Applies the answers of the API to the snapshot.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Answer, Engine, Failure, Now, Request, Retry, Ticket, deadline::Progress,
    device_state::DeviceState, device_state::Reading, failure::Backoff, polling::Asked,
    read_shares::ReadShares,
};
use crate::{
    model::{Attributes, Device, NodeId, Reason, RouteSet},
    plan::{ConflictKind, DeviceIndex, Difference, Field, Hold, PolicyKey},
};

impl Engine {
    pub(super) fn answered(&mut self, ticket: Ticket, result: Result<Answer, Failure>, now: Now) {
        let Some(in_flight) = self.outbox.take(ticket) else {
            return;
        };
        if let Request::Write(call) = &in_flight.request {
            let changed = result
                .as_ref()
                .map_or_else(|failure| failure.unknown_outcome, |_| true);
            for id in call.nodes() {
                self.change_budget.end(id, changed, now);
            }
            if changed {
                self.note_sent(call);
            }
        }
        if self.take_lookup(ticket, &result, now) {
            return;
        }
        if let (Request::Device(id) | Request::Routes(id) | Request::Attributes(id), Ok(_)) =
            (&in_flight.request, &result)
        {
            let step = Progress::Read(id.clone(), in_flight.request.name());
            self.note_progress(&step, now);
        }
        match (in_flight.request, result) {
            (Request::Devices, result) => {
                if let Some(asked) = self.observed.poll_answered(ticket) {
                    self.take_list(asked, result, now);
                }
            }
            (Request::Write(call), result) if in_flight.epoch < self.observed.epoch() => {
                let made = result.map_or_else(|failure| failure.unknown_outcome, |_| true);
                self.take_outdated(&call, &in_flight.differences, made);
            }
            (Request::Write(call), Ok(_)) => self.take_written(&call, &in_flight.differences, now),
            (Request::Write(call), Err(failure)) => {
                self.take_refused(&call, &in_flight.differences, &failure, now);
            }
            (Request::Device(id) | Request::Routes(id) | Request::Attributes(id), _)
                if in_flight.epoch < self.observed.epoch() =>
            {
                self.request_finished(&id);
            }
            (Request::Device(id), Ok(Answer::Device(device))) if device.node_id == id => {
                self.take_device(*device, in_flight.sent_at);
            }
            (Request::Routes(id), Ok(Answer::Routes(routes))) => {
                self.take_routes(&id, routes, in_flight.sent_at, now);
            }
            (Request::Attributes(id), Ok(Answer::Attributes(values))) => {
                self.take_attributes(&id, values, now);
            }
            (request, result) => {
                let failure = result.err().unwrap_or_else(unexpected);
                self.read_failed(&request, failure, now);
            }
        }
    }

    fn take_list(&mut self, asked: Asked, result: Result<Answer, Failure>, now: Now) {
        let before = self.observed.polling().outage().cloned();
        match result {
            Ok(Answer::Devices { devices, lacks, .. }) => {
                self.gate.note_missing_scopes(lacks);
                self.observed.poll_succeeded(
                    now.monotonic,
                    self.settings.poll_interval,
                    &mut self.rng,
                );
                self.take_devices(devices, asked.at);
                self.complete_reconcile_requests(asked.ticket);
            }
            result => {
                let failure = result.err().unwrap_or_else(unexpected);
                self.observed
                    .poll_failed(now.monotonic, failure, &mut self.rng);
            }
        }
        // The second list shows which devices the first one lacked.
        if self.observed.polling().outage() != before.as_ref() || self.observed.lists() <= 2 {
            self.report_all();
        }
    }

    /// Polls at once for a policy, and reads the attributes of its devices. The next poll answers policies
    /// that request too often, and policies that are not allowed.
    pub(super) fn request_reconcile(&mut self, key: &PolicyKey, now: Now) {
        self.policies
            .request_reconcile(key, self.outbox.last_ticket());
        let Some(entry) = self.policies.get(key).filter(|entry| entry.policy.is_ok()) else {
            return;
        };
        let needs_reads = |id: &&NodeId| {
            let node = self.devices.get(id);
            node.is_some_and(|node| node.plan.owners.need_attributes())
        };
        let to_read: Vec<NodeId> = entry.nodes().filter(needs_reads).cloned().collect();
        let reads = ReadShares::share_of(to_read.len(), self.settings.requests_per_second);
        let is_due = self.observed.polling().comes_at_once(now.monotonic);
        let given = (self.settings.poll_interval, reads, is_due);
        if !self.policies.grant_reconcile(key, given, now.monotonic) {
            return;
        }
        for id in to_read {
            if let Some(node) = self.devices.get_mut(&id) {
                node.read_attributes = true;
                self.dirty.step(&id);
            }
        }
        // While the list fails, its own backoff counts.
        if self.observed.polling().failure().is_none() {
            self.observed.poll_now(now.monotonic);
        }
    }

    /// Completes the requests that were made before this list was requested.
    fn complete_reconcile_requests(&mut self, list: Ticket) {
        let granted = self.policies.complete_reconcile_requests(list);
        self.dirty.report_all(granted);
    }

    fn take_devices(&mut self, devices: Vec<Device>, asked_at: u64) {
        // The list may still have devices that were deleted after it was requested.
        self.observed.forget_deleted(asked_at);
        if self.observed.lists() == 1 {
            self.leave_other_tailnet(&devices);
            self.await_policies();
        }
        let (devices, contradicted) = listed_once(devices);
        let mut fleet = DeviceIndex::default();
        let mut changed: BTreeSet<NodeId> = BTreeSet::new();
        for device in devices {
            let id = device.node_id.clone();
            let is_contradicted = contradicted.contains(&id);
            if self.take_listed(device, is_contradicted, asked_at, &mut fleet) {
                changed.insert(id);
            }
        }
        let dropped = self.keep_missing(&mut fleet);
        self.dirty.rematch_all(dropped);
        self.observed.replace(fleet);
        self.find_inactive();
        self.reconsider_taken();
        // A policy whose device is unchanged in the list stays bound as it was.
        let lost = self.devices.ids();
        let lost = lost.filter(|id| self.observed.index().get(id).is_none());
        changed.extend(lost.cloned());
        self.mark_bindings(|id| id.is_some_and(|id| changed.contains(id)));
    }

    /// If the first list after a new connection has none of the known devices, it is of another tailnet: no
    /// proof is needed that those are gone.
    fn leave_other_tailnet(&mut self, devices: &[Device]) {
        let mut own = devices.iter().filter(|device| !device.external);
        if devices.is_empty()
            || own.any(|device| self.observed.index().get(&device.node_id).is_some())
        {
            return;
        }
        let previous = self.observed.replace(DeviceIndex::default());
        let previous = previous.devices().map(|device| device.node_id.clone());
        self.dirty.rematch_all(previous);
    }

    /// Takes a device of a list. `contradicted`: the list has it twice, with different values. Returns whether
    /// that may change what a policy does on the device.
    fn take_listed(
        &mut self,
        device: Device,
        contradicted: bool,
        asked_at: u64,
        fleet: &mut DeviceIndex,
    ) -> bool {
        let id = device.node_id.clone();
        let was_own = self.observed.index().get(&id);
        let was_own = was_own.is_some_and(|known| !known.external);
        if self.observed.is_deleted(&id) || (device.external && was_own) {
            return false;
        }
        let is_back = !device.external && self.observed.absence_mut().note_present(&id);
        if is_back {
            self.dirty.plan(&id);
        }
        let known = self.observed.index().get(&id);
        let Some(node) = self.devices.get_mut(&id) else {
            match known {
                Some(ours) if contradicted => fleet.insert(ours.clone()),
                None if contradicted => {}
                known => {
                    if known.is_none_or(|known| known.facts_differ(&device)) {
                        self.dirty.rematch(&id);
                    }
                    fleet.insert(device);
                }
            }
            return is_back;
        };
        match known {
            // The list may be older than the last write or read of this device.
            Some(ours) if node.busy > 0 || node.changed_at_revision > asked_at => {
                fleet.insert(ours.clone());
                is_back
            }
            // Only a read of the device itself can tell.
            Some(ours) if contradicted => {
                node.read = true;
                self.dirty.step(&id);
                fleet.insert(ours.clone());
                is_back
            }
            known => {
                let device = with_known_routes(device, node);
                let differs = known != Some(&device);
                let has_changed = mark_read(node) || differs;
                if has_changed {
                    self.dirty.plan(&id);
                }
                if known.is_none_or(|known| known.facts_differ(&device)) {
                    self.dirty.rematch(&id);
                }
                fleet.insert(device);
                is_back || has_changed
            }
        }
    }

    /// Plans again the devices that wait for an address or a name: it may be free now.
    pub(super) fn reconsider_taken(&mut self) {
        let taken =
            |d: &Difference| matches!(d.hold, Some(Hold::AddressInUse(_) | Hold::NameTaken(_)));
        let waits = |node: &DeviceState| {
            let mut all = node.plan.differences.iter().chain(&node.plan.shown);
            let mut lost = node.plan.owners.conflicts.iter();
            all.any(taken) || lost.any(|lost| matches!(lost.kind, ConflictKind::Device(_)))
        };
        let waiting = self.devices.iter().filter(|(_, node)| waits(node));
        self.dirty.plan_all(waiting.map(|(id, _)| id.clone()));
    }

    fn take_device(&mut self, device: Device, asked_at: Duration) {
        let id = device.node_id.clone();
        self.request_finished(&id);
        let Some(node) = self.devices.get_mut(&id) else {
            return;
        };
        let device = with_known_routes(device, node);
        mark_read(node);
        node.read_backoff = None;
        node.device_read = Some(asked_at);
        self.observed.put(device);
        self.reconsider(&id);
    }

    fn take_routes(&mut self, id: &NodeId, routes: RouteSet, asked_at: Duration, now: Now) {
        self.request_finished(id);
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        node.routes_backoff = None;
        node.routes_read = Some(asked_at);
        if node.plan.routes_unread || node.routes.is_some() {
            node.routes = Some(Reading {
                values: routes.clone(),
                at: now.monotonic,
            });
        }
        if let Some(mut device) = self.observed.index().get(id).cloned() {
            device.enabled_routes = Some(routes);
            self.observed.put(device);
        }
    }

    fn take_attributes(&mut self, id: &NodeId, values: Attributes, now: Now) {
        self.request_finished(id);
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        node.read_attributes = false;
        node.attributes_backoff = None;
        node.attributes = Some(Reading {
            values,
            at: now.monotonic,
        });
        verify(node, |field| matches!(field, Field::Attribute(_)));
    }

    fn read_failed(&mut self, request: &Request, failure: Failure, now: Now) {
        let slot: fn(&mut DeviceState) -> &mut Option<Backoff> = match request {
            Request::Device(_) => |node| &mut node.read_backoff,
            Request::Routes(_) => |node| &mut node.routes_backoff,
            Request::Attributes(_) => |node| &mut node.attributes_backoff,
            Request::Devices | Request::Write(_) => return,
        };
        let (Request::Device(id) | Request::Routes(id) | Request::Attributes(id)) = request else {
            return;
        };
        self.poll_now_after(&failure, now);
        self.request_finished(id);
        let before = self.devices.get_mut(id).and_then(|node| slot(node).take());
        let backoff = self.backoff(failure, before.as_ref(), now);
        if let Some(node) = self.devices.get_mut(id) {
            *slot(node) = Some(backoff);
        }
    }

    /// A request about one device was answered.
    pub(super) fn request_finished(&mut self, id: &NodeId) {
        let revision = self.observed.next_revision();
        if let Some(node) = self.devices.get_mut(id) {
            node.request_finished(revision);
        }
        self.dirty.plan(id);
    }

    /// Polls now: the list tells best whether a device is gone, or the credential is rejected.
    pub(super) fn poll_now_after(&mut self, failure: &Failure, now: Now) {
        if matches!(
            failure.reason,
            Reason::CredentialRejected | Reason::DeviceNotFound
        ) {
            self.observed.poll_now(now.monotonic);
        }
    }
}

/// The devices of a list, each once, and those that the list has twice with different values.
fn listed_once(devices: Vec<Device>) -> (Vec<Device>, BTreeSet<NodeId>) {
    let mut once: BTreeMap<NodeId, Device> = BTreeMap::new();
    let mut contradicted = BTreeSet::new();
    for device in devices {
        match once.get(&device.node_id) {
            Some(before) if *before != device => {
                contradicted.insert(device.node_id);
            }
            Some(_) => {}
            None => {
                once.insert(device.node_id.clone(), device);
            }
        }
    }
    (once.into_values().collect(), contradicted)
}

/// A reported device. If the report lacks its routes, they are taken from the last read.
fn with_known_routes(mut device: Device, node: &mut DeviceState) -> Device {
    match (&device.enabled_routes, &node.routes) {
        (None, Some(reading)) => device.enabled_routes = Some(reading.values.clone()),
        (Some(_), _) => node.routes = None,
        (None, None) => {}
    }
    device
}

/// Notes that the device was read or listed. Returns whether that may change what to do.
///
/// A list ends no backoff of the reads of a single device: otherwise a request for an early list would reset
/// the backoffs of everybody.
fn mark_read(node: &mut DeviceState) -> bool {
    let was_needed = std::mem::take(&mut node.read);
    verify(node, |field| !matches!(field, Field::Attribute(_))) || was_needed
}

/// Moves written fields to the verified ones. If such a field still differs, the plan shows it, and the field
/// gets a backoff instead of being written again and again.
fn verify(node: &mut DeviceState, visible: impl Fn(&Field) -> bool) -> bool {
    let before = node.unverified.len();
    for (field, change) in std::mem::take(&mut node.unverified) {
        if visible(&field) {
            node.verified.insert(field, change);
        } else {
            node.unverified.insert(field, change);
        }
    }
    node.unverified.len() < before
}

fn unexpected() -> Failure {
    Failure {
        reason: Reason::ApiError,
        message: "The API answered a different request: found another kind of answer.".to_owned(),
        retry: Retry::Later,
        unknown_outcome: false,
    }
}
