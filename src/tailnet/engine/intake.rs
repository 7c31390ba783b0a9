//! First phase: takes an input. Facts change the parts, and what they change is marked as dirty.

use std::sync::Arc;

use super::{Engine, ownership::note_sent, reads::decide_again, release::note_progress};
use crate::{
    plan::{PolicyKey, PolicyRecord},
    tailnet::{
        Answer, Failure, Input, Now, Request, Ticket, deadline::Progress, device_state::Scope,
        outbox::InFlightRequest,
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
            Input::Policy(declared) => self.declarations().take_policy(*declared, now),
            Input::PolicyGone(key) => self.declarations().drop_policy(&key),
            Input::PoliciesListed => self.gate.note_policies_listed(),
            Input::Connection {
                settings,
                connected,
            } => {
                // The settings first: what one tailnet permits must never be done to another
                // (docs/decisions/0009).
                if let Some(settings) = settings {
                    self.declarations().take_settings(*settings, now);
                }
                // Another API may have another clock.
                self.observed.forget_clock();
                self.gate.connect(connected);
                self.declarations().start_over(now);
                self.dirty.report_all(self.policies.keys().cloned());
            }
            Input::Settings(settings) => self.declarations().take_settings(settings, now),
            Input::Namespace(name, labels) => self.declarations().take_labels(name, labels),
            // Corrected after the next list: two writers who disagree must not answer each other at once.
            Input::StatusEdited(policy) => self.statuses.note_edit(policy),
            Input::Tailnet(declared) => self.declarations().take_tailnet(declared, now),
            // While the list fails, its own backoff counts, and no request shortens it.
            Input::Poll if self.observed.polling().failure().is_some() => {}
            Input::Poll => self.observed.poll_now(now.monotonic),
            Input::Term(term) => self.declarations().take_term(term, now),
            Input::Turn => self.outbox.grant_turn(),
            Input::NotSent(ticket) => self.not_sent(ticket, now),
            Input::Answered(ticket, result) => self.answered(ticket, result, now),
            Input::Recorded { key, uid, record } => self.recorded(&key, &uid, record),
            Input::TailnetRecorded(revision) => self.tailnet_recorded(revision),
            // Each step looks at the time, whatever its input is.
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
                note_sent(&mut self.policies, &self.devices, call);
            }
        }
        if self.reads().take_lookup(ticket, &result, now) {
            return;
        }
        if let (Request::Device(id) | Request::Routes(id) | Request::Attributes(id), Ok(_)) =
            (&in_flight.request, &result)
        {
            let step = Progress::Read(id.clone(), in_flight.request.name());
            note_progress(&mut self.policies, &self.devices, &step, now);
        }
        self.take_answer(ticket, in_flight, result, now);
    }

    fn take_answer(
        &mut self,
        ticket: Ticket,
        in_flight: InFlightRequest,
        result: Result<Answer, Failure>,
        now: Now,
    ) {
        let scope = Scope::of(&in_flight.request);
        match (in_flight.request, result) {
            (Request::Devices, result) => {
                // The list of a poll that was given up meanwhile must not count.
                if let Some(asked) = self.observed.poll_answered(ticket) {
                    self.listing().take_list(asked, result, now);
                }
            }
            (Request::Write(call), result) if in_flight.epoch < self.observed.epoch() => {
                let made = result.map_or_else(|failure| failure.unknown_outcome, |_| true);
                self.outcomes()
                    .take_outdated(&call, &in_flight.differences, made);
            }
            (Request::Write(call), Ok(_)) => {
                self.outcomes()
                    .take_written(&call, &in_flight.differences, now);
            }
            (Request::Write(call), Err(failure)) => {
                self.outcomes()
                    .take_refused(&call, &in_flight.differences, &failure, now);
            }
            (Request::Device(id) | Request::Routes(id) | Request::Attributes(id), _)
                if in_flight.epoch < self.observed.epoch() =>
            {
                self.reads().finish(&id, scope);
            }
            // An answer about another device must not be taken for this one.
            (Request::Device(id), Ok(Answer::Device(device))) if device.node_id == id => {
                self.reads().take_device(*device, in_flight.sent_at);
            }
            (Request::Routes(id), Ok(Answer::Routes(routes))) => {
                self.reads()
                    .take_routes(&id, routes, in_flight.sent_at, now);
            }
            (Request::Attributes(id), Ok(Answer::Attributes(values))) => {
                self.reads().take_attributes(&id, values, now);
            }
            (request, result) => {
                let failure = result.err().unwrap_or_else(Failure::unexpected);
                self.reads().read_failed(&request, failure, now);
            }
        }
    }

    /// The record in a report of this object is durable.
    fn recorded(&mut self, key: &PolicyKey, uid: &str, record: Arc<PolicyRecord>) {
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
        let scope = Scope::of(&in_flight.request);
        match in_flight.request {
            Request::Devices => {
                if self.observed.poll_answered(ticket).is_some() {
                    self.observed.poll_now(now.monotonic);
                }
            }
            Request::Device(id) | Request::Routes(id) | Request::Attributes(id) => {
                decide_again(&mut self.devices, &mut self.dirty, &id, scope);
            }
            Request::Write(call) => {
                for id in call.nodes() {
                    // Nothing was sent, so nothing counts against the limit.
                    self.change_budget.end(id, false, now);
                    decide_again(&mut self.devices, &mut self.dirty, id, scope);
                }
            }
        }
    }

    /// The effective time: see [`Observed::effective_time`].
    fn effective_time(&mut self, now: Now) -> Now {
        let (now, has_changed) = self.observed.effective_time(now);
        if has_changed {
            self.dirty.plan_all(self.devices.ids().cloned());
            self.dirty.report_all(self.policies.keys().cloned());
        }
        now
    }
}
