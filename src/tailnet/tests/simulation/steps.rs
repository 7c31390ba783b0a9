//! Steps of the engine and their effects, as the driver connects them.

use std::time::Duration;

use super::{Event, World, story};
use crate::tailnet::{Effect, Input, Now, Request, Ticket};

impl World {
    pub fn step(&mut self, input: Input) {
        self.steps += 1;
        self.steps_at_once += 1;
        assert!(
            self.steps_at_once < 5_000 + 2 * self.policies.len(),
            "a loop that takes no time: {input:?}"
        );
        let now = Now {
            monotonic: self.clock,
            wall: self.wall() + self.skew,
        };
        self.trace(&input);
        if matches!(input, Input::Answered(_, Err(_)) | Input::NotSent(_)) {
            self.failures.push(self.clock);
        }
        story::tell_input(self.clock, 0, &input);
        self.reported.note_answer(&input, self.clock);
        self.reported.note(&input);
        for effect in self.engine.step(input, now) {
            self.carry_out(effect);
        }
        if self.engine.wants_turn().is_some() && !self.waits_for_turn {
            self.waits_for_turn = true;
            let wait = self.faults.queue;
            let wait = if wait.is_zero() {
                wait
            } else {
                wait.mul_f64(self.rng.noise())
            };
            self.after(wait, Event::Turn);
        }
        let wake = self
            .engine
            .wake_at()
            .map(|at| self.wake_with_evaluation(at));
        if self.wake != wake {
            self.wake = wake;
            if let Some(at) = wake {
                self.wake = Some(at.max(self.clock));
                self.after(at.saturating_sub(self.clock), Event::Wake);
            }
        }
    }

    /// An evaluation takes time, and other events happen meanwhile.
    pub fn wake_with_evaluation(&mut self, at: Duration) -> Duration {
        let Some((_, time)) = self.evaluation_share.filter(|_| at.is_zero()) else {
            return at;
        };
        let latest = self.clock + time;
        let due = self.wake.filter(|due| *due > self.clock);
        due.map_or(latest, |due| due.min(latest))
    }

    pub fn carry_out(&mut self, effect: Effect) {
        self.trace(&effect);
        story::tell_effect(self.clock, 0, &effect);
        match effect {
            Effect::Send {
                ticket,
                request,
                until,
            } => {
                let is_write = matches!(request, Request::Write(_));
                if is_write && !self.faults.connect.is_zero() {
                    let wait = self.faults.connect.mul_f64(self.rng.noise());
                    self.after(wait, Event::Depart(ticket, request, until));
                } else {
                    self.send(ticket, request);
                }
            }
            Effect::Report(key, report) => {
                self.check_report(&key, &report);
                self.last_reports.insert(key.clone(), (*report).clone());
                self.seen.reports.push((key.clone(), (*report).clone()));
                // In order, as the controller writes them.
                let earliest = self.clock + self.delay();
                let at = self
                    .keeping
                    .get(&key)
                    .map_or(earliest, |at| earliest.max(*at));
                self.keeping.insert(key.clone(), at);
                self.after(at.saturating_sub(self.clock), Event::Keep(key, report));
            }
            Effect::Notify(key, notification) => {
                self.seen.notifications.push((key, *notification));
            }
            Effect::Tailnet(report) => {
                // In order, as the controller writes them.
                let at = self.keeping_tailnet.max(self.clock + self.faults.delay);
                self.keeping_tailnet = at;
                self.after(at.saturating_sub(self.clock), Event::KeepTailnet(report));
            }
        }
    }

    /// The moment when the client checks the permit: the write is sent or dropped.
    pub fn depart(&mut self, ticket: Ticket, request: Request, until: Option<Duration>) {
        let now = Now {
            monotonic: self.clock,
            wall: self.wall(),
        };
        let in_time = until.is_none_or(|until| self.clock < until);
        if in_time && self.engine.still_wants(ticket, now) {
            self.send(ticket, request);
        } else {
            self.reported.note_not_sent(&request);
            self.step(Input::NotSent(ticket));
        }
    }

    pub fn send(&mut self, ticket: Ticket, request: Request) {
        self.check(ticket, &request);
        self.seen.requests.push(request.clone());
        let delay = self.delay();
        self.after(delay, Event::Arrive(ticket, request));
    }
}
