//! What happens in the world, in the order of its clock.

use std::time::Duration;

use super::{Broken, World, lost, model, model::failure, recorded};
use crate::{
    model::{NodeId, Reason},
    plan::PolicyKey,
    tailnet::{Answer, Failure, Input, PolicyReport, Request, Retry, TailnetReport, Ticket},
};

#[derive(Debug)]
pub enum Event {
    /// The budget lets one request through.
    Turn,
    /// A write has its connection and may be sent until a time.
    Depart(Ticket, Request, Option<Duration>),
    /// A request reaches the API.
    Arrive(Ticket, Request),
    /// A response reaches the engine.
    Answer(Ticket, Result<Answer, Failure>),
    /// A report is stored in the status.
    Keep(PolicyKey, Box<PolicyReport>),
    /// A report of the tailnet is stored in the status.
    KeepTailnet(Box<TailnetReport>),
    /// The watch shows the present state of a policy.
    Watch(PolicyKey),
    Wake,
}

impl World {
    /// Runs all events before this time.
    pub fn run_until(&mut self, end: Duration) {
        while let Some((&(at, _), _)) = self.events.first_key_value()
            && at <= end
        {
            let ((at, _), (life, event)) = self.events.pop_first().unwrap();
            if at > self.clock {
                self.steps_at_once = 0;
                self.clock = at;
                let wall = self.wall();
                self.model.expire(wall);
            }
            self.happen(life, event);
        }
        self.clock = end;
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.clock + time);
    }

    pub fn happen(&mut self, life: u32, event: Event) {
        let alive = life == self.life;
        match event {
            Event::Arrive(ticket, request) => {
                let answer = self.arrive(&request);
                if matches!(request, Request::Write(_)) {
                    let outcome = answer
                        .as_ref()
                        .map_or_else(|error| error.reason.to_string(), |_| "made".to_owned());
                    self.tell(|| format!("API: #{} arrives: {outcome}", ticket.0));
                }
                let mut delay = self.delay();
                if request == Request::Devices {
                    delay += self.faults.list_delay;
                }
                let hangs = |id: &NodeId| self.model.hanging.contains(id);
                let hangs = model::device_of(&request).is_some_and(hangs);
                let answer = if hangs {
                    // The client times out.
                    delay = Duration::from_secs(30);
                    Err(lost(Reason::ApiUnreachable, Retry::Later))
                } else {
                    answer
                };
                if alive {
                    self.after(delay, Event::Answer(ticket, answer));
                }
            }
            Event::Watch(key) => self.show_policy(&key),
            _ if !alive => {}
            Event::Turn => {
                self.waits_for_turn = false;
                if self.engine.wants_turn().is_some() {
                    self.step(Input::Turn);
                }
            }
            Event::Depart(ticket, request, until) => self.depart(ticket, request, until),
            Event::Answer(ticket, answer) => self.step(Input::Answered(ticket, answer)),
            Event::Keep(..) if self.faults.loses_reports => {}
            Event::Keep(key, report) => {
                let PolicyReport { uid, record, .. } = (*report).clone();
                let recorded = Input::Recorded {
                    key: key.clone(),
                    uid,
                    record,
                };
                let kept = self.policies.get_mut(&key);
                // As for the controller: the status of a deleted object need not be written.
                let Some(kept) = kept.filter(|kept| kept.policy.uid == report.uid) else {
                    self.step(recorded);
                    return;
                };
                // A report in flight may arrive after its object became unreadable.
                let overdue = report.generation < kept.policy.generation;
                assert!(kept.broken != Broken::Unreadable || overdue, "{report:?}");
                kept.record = recorded::through_status(&report);
                let used = kept.record.approved.clone();
                let used = used.map(|hash| (report.uid.clone(), hash));
                self.reported.used.extend(used);
                kept.anchored = !kept.record.managed.is_empty();
                if kept.deleting && kept.record.managed.is_empty() {
                    self.seen.ends.push((key.clone(), (*report).clone()));
                    self.remove(&key);
                }
                self.watch_soon(key.clone());
                self.step(recorded);
            }
            Event::KeepTailnet(_) if self.loses_tailnet_reports => {}
            Event::KeepTailnet(report) => {
                if let Some(recent) = &report.recent {
                    self.tailnet.recent.clone_from(recent);
                    self.tailnet.reserved.clone_from(&report.reserved);
                    self.tailnet.deletions.clone_from(&report.deletions);
                }
                let revision = report.revision;
                self.tailnet_report = *report;
                self.show_tailnet_object();
                self.step(Input::TailnetRecorded(revision));
            }
            Event::Wake => {
                if self.wake == Some(self.clock) {
                    self.wake = None;
                    self.step(Input::Wake);
                }
            }
        }
    }

    /// A request at the API: it gets a response or hits one of the faults.
    pub fn arrive(&mut self, request: &Request) -> Result<Answer, Failure> {
        if self.faults.list_down && *request == Request::Devices {
            return Err(failure(Reason::ApiError, Retry::Later));
        }
        let mut dice = 1.0 - self.rng.noise();
        let mut hit = |share: f64| {
            dice -= share;
            (-share..0.0).contains(&dice)
        };
        if hit(self.faults.lost) {
            return Err(lost(Reason::ApiUnreachable, Retry::Later));
        }
        if hit(self.faults.server_error) {
            return Err(lost(Reason::ApiError, Retry::Later));
        }
        if hit(self.faults.rate_limited) {
            let pause = Duration::from_secs(1) + Duration::from_secs(39).mul_f64(self.rng.noise());
            return Err(failure(Reason::RateLimited, Retry::After(pause)));
        }
        let answer_lost = hit(self.faults.answer_lost);
        let answer = self.model.answer(request);
        if answer_lost {
            return Err(lost(Reason::ApiUnreachable, Retry::Later));
        }
        answer
    }
}
