//! First phase: takes an input. Facts change the parts, and what they change is marked as dirty.

use std::time::Duration;

use super::Engine;
use crate::{
    model::{Attributes, Device, NodeId, Reason, RouteSet},
    plan::{PolicyKey, PolicyRecord},
    tailnet::{
        Answer, Failure, Input, Now, Request, Retry, Ticket, deadline::Progress, failure::backoff,
    },
};

impl Engine {
    /// Takes an input. Returns the effective time.
    pub(super) fn absorb(&mut self, input: Input, now: Now) -> Now {
        // The clock comes first: everything below is decided at the time of the API (docs/decisions/0014).
        if let Input::Answered(_, Ok(Answer::Devices { date, .. })) = &input {
            self.observed.read_clock(*date, now.monotonic);
        }
        let now = self.effective_time(now);
        match input {
            Input::Policy(declared) => self.take_policy(*declared, now),
            Input::PolicyGone(key) => self.drop_policy(&key),
            Input::PoliciesListed => self.gate.note_policies_listed(),
            Input::Connection {
                settings,
                connected,
            } => {
                // The settings first: what one tailnet permits must never be done to another
                // (docs/decisions/0009).
                if let Some(settings) = settings {
                    self.take_settings(*settings, now);
                }
                // Another API may have another clock.
                self.observed.forget_clock();
                self.gate.connect(connected);
                self.start_over(now);
                self.report_all();
            }
            Input::Settings(settings) => self.take_settings(settings, now),
            Input::Namespace(name, labels) => self.take_labels(name, labels),
            Input::StatusEdited(policy) => self.statuses.note_edit(policy),
            Input::Tailnet(declared) => self.take_tailnet(declared, now),
            // While the list fails, its own backoff counts, and no request shortens it.
            Input::Poll if self.observed.polling().failure().is_some() => {}
            Input::Poll => self.observed.poll_now(now.monotonic),
            Input::Term(term) => self.take_term(term, now),
            Input::Turn => self.outbox.grant_turn(),
            Input::NotSent(ticket) => self.not_sent(ticket, now),
            Input::Answered(ticket, result) => self.answered(ticket, result, now),
            Input::Recorded { key, uid, record } => self.recorded(&key, &uid, *record),
            Input::TailnetRecorded(revision) => self.tailnet_recorded(revision),
            Input::Wake => {}
            Input::Stop => self.gate.stop(),
        }
        now
    }

    fn answered(&mut self, ticket: Ticket, result: Result<Answer, Failure>, now: Now) {
        let Some(in_flight) = self.outbox.take(ticket) else {
            return;
        };
        if let Request::Write(call) = &in_flight.request {
            let changed = result
                .as_ref()
                .map_or_else(|failure| failure.unknown_outcome, |_| true);
            for id in call.nodes() {
                // A change with an unknown outcome counts as made, so that the limit is never exceeded.
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
                // The list of a poll that was given up meanwhile must not count.
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
            // An answer about another device must not be taken for this one.
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

    fn take_device(&mut self, device: Device, requested_at: Duration) {
        let id = device.node_id.clone();
        self.request_finished(&id);
        if let Some(node) = self.devices.get_mut(&id) {
            self.observed.put(node.take_device(device, requested_at));
            self.reconsider(&id);
        }
    }

    fn take_routes(&mut self, id: &NodeId, routes: RouteSet, requested_at: Duration, now: Now) {
        self.request_finished(id);
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        node.take_routes(&routes, requested_at, now.monotonic);
        if let Some(mut device) = self.observed.index().get(id).cloned() {
            device.enabled_routes = Some(routes);
            self.observed.put(device);
        }
    }

    fn take_attributes(&mut self, id: &NodeId, values: Attributes, now: Now) {
        self.request_finished(id);
        if let Some(node) = self.devices.get_mut(id) {
            node.take_attributes(values, now.monotonic);
        }
    }

    fn read_failed(&mut self, request: &Request, failure: Failure, now: Now) {
        let (Request::Device(id) | Request::Routes(id) | Request::Attributes(id)) = request else {
            return;
        };
        self.poll_now_after(&failure, now);
        self.request_finished(id);
        // The pause grows with each failure in a row, so the previous backoff counts.
        let node = self.devices.get(id);
        let before = node.and_then(|node| node.read_backoff(request)).cloned();
        let backoff = self.backoff(failure, before.as_ref(), now);
        if let Some(node) = self.devices.get_mut(id) {
            node.read_failed(request, backoff);
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

    /// The record in a report of this object is durable.
    fn recorded(&mut self, key: &PolicyKey, uid: &str, record: PolicyRecord) {
        let entry = self.policies.get_mut(key);
        // The report may be of a deleted object with the same name.
        if let Some(entry) = entry.filter(|entry| entry.uid() == uid) {
            entry.confirm(record);
            // Requests for these devices waited for the record.
            self.dirty.step_all(entry.nodes().cloned());
            self.dirty.step_all(
                entry
                    .needed_record()
                    .managed
                    .released_devices()
                    .into_iter()
                    .cloned(),
            );
        }
    }

    /// A record of the tailnet is durable.
    fn tailnet_recorded(&mut self, revision: u64) {
        let reservations = self.change_budget.reservations_mut();
        reservations.note_recorded(revision);
        // Requests for these devices waited for the record.
        self.dirty.step_all(reservations.reserved().cloned());
    }

    /// A request was not sent: its device is decided again.
    fn not_sent(&mut self, ticket: Ticket, now: Now) {
        let Some(in_flight) = self.outbox.take(ticket) else {
            return;
        };
        // A lookup does not make its device busy, so there is nothing to decide again.
        if self.observed.absence_mut().take_back(ticket, now.monotonic) {
            return;
        }
        match in_flight.request {
            Request::Devices => {
                if self.observed.poll_answered(ticket).is_some() {
                    self.observed.poll_now(now.monotonic);
                }
            }
            Request::Device(id) | Request::Routes(id) | Request::Attributes(id) => {
                self.decide_again(&id);
            }
            Request::Write(call) => {
                for id in call.nodes() {
                    // Nothing was sent, so nothing counts against the limit.
                    self.change_budget.end(id, false, now);
                    self.decide_again(id);
                }
            }
        }
    }

    fn decide_again(&mut self, id: &NodeId) {
        if let Some(node) = self.devices.get_mut(id) {
            node.request_not_sent();
        }
        self.dirty.plan(id);
    }

    /// Takes the answer of a lookup. Returns whether it was one.
    fn take_lookup(&mut self, ticket: Ticket, result: &Result<Answer, Failure>, now: Now) -> bool {
        let Some((id, matters)) = self.observed.absence_mut().lookup_answered(ticket) else {
            return false;
        };
        // The device may be in the list again, so the answer must not remove it.
        if !matters {
            return true;
        }
        match result {
            Err(failure) if failure.reason == Reason::DeviceNotFound => self.give_up(&id),
            // A device that is now shared in is no longer one of the tailnet's own.
            Ok(Answer::Device(device)) if device.node_id == id && device.external => {
                self.give_up(&id);
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
        let again = now.monotonic + self.refresh();
        self.observed.absence_mut().lookup_found(&id, again);
        self.observed.put(device);
        self.dirty.rematch(&id);
        self.dirty.plan(&id);
        self.mark_bindings(|bound| bound == Some(&id));
    }

    fn lookup_failed(&mut self, id: &NodeId, failure: Option<&Failure>, now: Now) {
        let least = match failure.map(|failure| failure.retry) {
            // The API asked for this pause, so the backoff never shortens it.
            Some(Retry::After(pause)) => pause,
            _ => Duration::ZERO,
        };
        let rng = &mut self.rng;
        let pause = |failures| least.max(backoff(failures, rng));
        let absence = self.observed.absence_mut();
        absence.lookup_failed(id, pause, now.monotonic);
    }

    /// Marks a device for matching, as its facts may have changed.
    pub(super) fn reconsider(&mut self, id: &NodeId) {
        self.dirty.rematch(id);
        if let Some(node) = self.devices.get(id) {
            let single = node
                .policies()
                .iter()
                .filter(|key| !self.policies.has_selector(key));
            self.dirty.rebind_all(single.cloned());
        }
    }

    /// The effective time: see [`Observed::effective_time`].
    fn effective_time(&mut self, now: Now) -> Now {
        let (now, has_changed) = self.observed.effective_time(now);
        if has_changed {
            self.dirty.plan_all(self.devices.ids().cloned());
            self.report_all();
        }
        now
    }
}

pub(super) fn unexpected() -> Failure {
    Failure {
        reason: Reason::ApiError,
        message: "The API answered a different request: found another kind of answer.".to_owned(),
        retry: Retry::Later,
        unknown_outcome: false,
    }
}
