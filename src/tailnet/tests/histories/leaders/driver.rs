//! The engine of a process and its requests, as the driver connects them.

use std::time::Duration;

use super::{super::story, Event, Pair, check::Sending};
use crate::tailnet::{Effect, Input, Request, Ticket};

impl Pair {
    pub(super) fn trace(&self, process: usize, what: &dyn std::fmt::Debug) {
        if self.traced {
            println!("{:>10.3} {process} {what:?}", self.clock.as_secs_f64());
        }
    }

    pub(super) fn step(&mut self, process: usize, input: Input) {
        self.trace(process, &input);
        story::tell_input(self.clock, process + 1, &input);
        let now = self.now();
        if let Input::Term(term) = &input {
            let one = &mut self.processes[process];
            if one.engine_term != *term {
                one.engine_term = *term;
                one.drop_reports();
            }
        }
        for effect in self.processes[process].engine.step(input, now) {
            self.carry_out(process, effect);
        }
        self.revoke(process);
        self.write_reports(process);
        let one = &mut self.processes[process];
        if one.engine.wants_turn().is_some() && !one.waits_for_turn {
            one.waits_for_turn = true;
            let wait = self.faults.queue.mul_f64(self.rng.noise());
            self.after(process, wait, Event::Turn);
        }
        let wake = self.processes[process].engine.wake_at();
        if self.processes[process].wake != wake {
            let at = wake.map(|at| at.max(self.clock));
            self.processes[process].wake = at;
            if let Some(at) = at {
                self.after(process, at.saturating_sub(self.clock), Event::Wake);
            }
        }
    }

    pub(super) fn carry_out(&mut self, process: usize, effect: Effect) {
        self.trace(process, &effect);
        story::tell_effect(self.clock, process + 1, &effect);
        match effect {
            Effect::Send {
                ticket,
                request,
                until,
            } => {
                let is_write = matches!(request, Request::Write(_));
                if is_write {
                    self.processes[process].waiting.insert(ticket, request);
                    let wait = self.faults.connect.mul_f64(self.rng.noise());
                    self.after(process, wait, Event::Depart(ticket, until));
                } else {
                    let delay = self.delay();
                    self.after(process, delay, Event::Arrive(ticket, request));
                }
            }
            Effect::Report(key, report) => {
                self.processes[process].reports.insert(key, *report);
            }
            Effect::Tailnet(report) => {
                self.processes[process].tailnet_report = Some(*report);
            }
            Effect::Notify(..) => {}
        }
    }

    /// Revokes writes that the engine no longer wants, as the driver does after each step.
    pub(super) fn revoke(&mut self, process: usize) {
        let now = self.now();
        let one = &mut self.processes[process];
        let waiting = one.waiting.keys();
        let unwanted = waiting.filter(|ticket| !one.engine.still_wants(**ticket, now));
        one.revoked.extend(unwanted.copied());
    }

    /// The moment when the client checks the permit: the write is sent or dropped.
    pub(super) fn depart(&mut self, process: usize, ticket: Ticket, until: Option<Duration>) {
        let one = &mut self.processes[process];
        let Some(request) = one.waiting.remove(&ticket) else {
            return;
        };
        let revoked = one.revoked.remove(&ticket);
        let in_time = until.is_none_or(|until| self.clock < until);
        let leads = one.may_report(self.clock).is_some();
        if revoked || !in_time || !leads {
            self.step(process, Input::NotSent(ticket));
            return;
        }
        if let Request::Write(call) = &request {
            self.trace(process, &("sent", call));
            let sender = &self.processes[process];
            Sending::new(call, &self.account, &self.model, sender, self.clock)
                .check(self.wall(), sender.suspended);
        }
        let delay = self.delay();
        self.after(process, delay, Event::Arrive(ticket, request));
    }
}
