//! Intake of the answers of reads: of a device, its routes, its attributes, and lookups.

use std::time::Duration;

use super::{
    backoff::next_backoff,
    list::{give_up, mark_bindings},
};
use crate::{
    model::{Attributes, Device, NodeId, Reason, RouteSet},
    tailnet::{
        Answer, Failure, Now, Request, Retry, Settings, Ticket, device_state::Scope,
        devices::Devices, dirty::Dirty, failure::backoff, gate::Gate, observed::Observed,
        policy_set::PolicySet,
    },
};

/// What the answer of a read changes.
pub(super) struct Reads<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e PolicySet,
    pub devices: &'e mut Devices,
    pub dirty: &'e mut Dirty,
    pub rng: &'e mut fastrand::Rng,
}

impl Reads<'_> {
    /// A read was answered.
    pub(super) fn finish(&mut self, id: &NodeId, scope: Scope) {
        request_finished(self.observed, self.devices, self.dirty, id, scope);
    }

    /// Takes a device that was read.
    pub(super) fn take_device(&mut self, device: Device, requested_at: Duration) {
        let id = device.node_id.clone();
        self.finish(&id, Scope::Device);
        if let Some(node) = self.devices.get_mut(&id) {
            // A read that says nothing new must not make the device wait for its selectors: where that takes
            // longer than the read counts as fresh, the device would be read and matched forever.
            if self.observed.put(node.take_device(device, requested_at)) {
                facts_changed(self.policies, self.dirty, &id);
            }
            rebind_single(self.policies, self.devices, self.dirty, &id);
        }
    }

    /// Takes the routes of a device.
    pub(super) fn take_routes(
        &mut self,
        id: &NodeId,
        routes: RouteSet,
        requested_at: Duration,
        now: Now,
    ) {
        self.finish(id, Scope::Routes);
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        node.take_routes(&routes, requested_at, now.monotonic);
        // The list lacks the routes, so the snapshot has those of the last read.
        if let Some(mut device) = self.observed.index().get(id).cloned() {
            device.enabled_routes = Some(routes);
            // No selector uses routes.
            let _ = self.observed.put(device);
        }
    }

    /// Takes the attributes of a device.
    pub(super) fn take_attributes(&mut self, id: &NodeId, values: Attributes, now: Now) {
        self.finish(id, Scope::Attributes);
        if let Some(node) = self.devices.get_mut(id) {
            node.take_attributes(values, now.monotonic);
        }
    }

    /// Makes a read that failed wait.
    pub(super) fn read_failed(&mut self, request: &Request, failure: Failure, now: Now) {
        let (Request::Device(id) | Request::Routes(id) | Request::Attributes(id)) = request else {
            return;
        };
        poll_now_after(self.observed, &failure, now);
        self.finish(id, Scope::of(request));
        // The pause grows with each failure in a row, so the previous backoff counts.
        let node = self.devices.get(id);
        let before = node.and_then(|node| node.read_backoff(request)).cloned();
        let backoff = next_backoff(
            self.settings,
            self.gate,
            self.rng,
            failure,
            before.as_ref(),
            now,
        );
        if let Some(node) = self.devices.get_mut(id) {
            node.read_failed(request, backoff);
        }
    }

    /// Takes the answer of a lookup. Returns whether it was one.
    pub(super) fn take_lookup(
        &mut self,
        ticket: Ticket,
        result: &Result<Answer, Failure>,
        now: Now,
    ) -> bool {
        let Some((id, matters)) = self.observed.absence_mut().lookup_answered(ticket) else {
            return false;
        };
        // The device may be in the list again, so the answer must not remove it.
        if !matters {
            return true;
        }
        match result {
            Err(failure) if failure.reason == Reason::DeviceNotFound => {
                give_up(self.observed, self.policies, self.devices, self.dirty, &id);
            }
            // A device that is now shared in is no longer one of the tailnet's own.
            Ok(Answer::Device(device)) if device.node_id == id && device.external => {
                give_up(self.observed, self.policies, self.devices, self.dirty, &id);
            }
            Ok(Answer::Device(device)) if device.node_id == id => {
                self.take_unlisted((**device).clone(), now);
            }
            result => self.lookup_failed(&id, result.as_ref().err(), now),
        }
        true
    }

    /// A device that lists lack is in the tailnet: the lists are incomplete.
    fn take_unlisted(&mut self, device: Device, now: Now) {
        let id = device.node_id.clone();
        // One device that is missing by mistake proves that others may be missing too.
        self.observed.doubt();
        let again = now.monotonic
            + self
                .observed
                .longest_read_interval(self.settings.attributes_interval);
        let lists = self.observed.lists();
        self.observed.absence_mut().lookup_found(&id, lists, again);
        if self.observed.put(device) {
            self.dirty.rematch(&id);
        }
        self.dirty.plan(&id);
        mark_bindings(self.policies, self.dirty, |bound| bound == Some(&id));
    }

    fn lookup_failed(&mut self, id: &NodeId, failure: Option<&Failure>, now: Now) {
        let least = match failure.map(|failure| failure.retry) {
            // The API asked for this pause, so the backoff never shortens it.
            Some(Retry::After(pause)) => pause,
            _ => Duration::ZERO,
        };
        let rng = &mut *self.rng;
        let pause = |failures| least.max(backoff(failures, rng));
        let absence = self.observed.absence_mut();
        absence.lookup_failed(id, pause, now.monotonic);
    }
}

/// A request about one device was answered.
pub(super) fn request_finished(
    observed: &mut Observed,
    devices: &mut Devices,
    dirty: &mut Dirty,
    id: &NodeId,
    scope: Scope,
) {
    let revision = observed.next_revision();
    if let Some(node) = devices.get_mut(id) {
        node.request_finished(scope, revision);
    }
    dirty.plan(id);
}

/// Polls now: the list tells best whether a device is gone, or the credential is rejected.
pub(super) fn poll_now_after(observed: &mut Observed, failure: &Failure, now: Now) {
    if matches!(
        failure.reason,
        Reason::CredentialRejected | Reason::DeviceNotFound
    ) {
        observed.poll_now(now.monotonic);
    }
}

/// Nothing was sent for this device: its next step is decided again.
pub(super) fn decide_again(devices: &mut Devices, dirty: &mut Dirty, id: &NodeId, scope: Scope) {
    if let Some(node) = devices.get_mut(id) {
        node.request_not_sent(scope);
    }
    dirty.plan(id);
}

/// What a device is has changed: it is matched again, and so are the policies that wait for such a device.
pub(super) fn facts_changed(policies: &PolicySet, dirty: &mut Dirty, id: &NodeId) {
    dirty.rematch(id);
    // What they declare takes precedence from now on, not from the next list on.
    dirty.rebind_all(policies.waiting().cloned());
}

/// Binds the policies again that target the device without a selector.
pub(super) fn rebind_single(
    policies: &PolicySet,
    devices: &Devices,
    dirty: &mut Dirty,
    id: &NodeId,
) {
    if let Some(node) = devices.get(id) {
        let single = node
            .policies()
            .iter()
            .filter(|key| !policies.has_selector(key));
        dirty.rebind_all(single.cloned());
    }
}
