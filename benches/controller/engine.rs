//! The engine of a tailnet, with everything that it asks for answered at once.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use tsdp::{
    model::{ChangeLimit, Device, UnreadableDevices},
    plan::{Guardrails, PolicyInput},
    tailnet::{
        Answer, Effect, Engine, Input, Now, Request, Settings, TailnetDeclared, Term, Ticket,
    },
};

/// An engine that leads and is connected.
pub struct Tailnet {
    engine: Engine,
    clock: Duration,
    devices: Vec<Device>,
    /// The inputs that follow from its effects.
    waiting: VecDeque<Input>,
    /// How many lists it has had.
    lists: usize,
}

impl Tailnet {
    /// Hands over the policies, and waits until nothing is left to do but to poll.
    pub fn start(policies: Vec<PolicyInput>, devices: Vec<Device>) -> Self {
        let settings = Settings {
            poll_interval: Duration::from_mins(1),
            attributes_interval: Duration::from_mins(10),
            requests_per_second: 1_000.0,
            limit: ChangeLimit::Percent(100),
            guardrails: Guardrails::default(),
        };
        let mut tailnet = Self {
            engine: Engine::new(settings, 7),
            clock: Duration::ZERO,
            devices,
            waiting: VecDeque::new(),
            lists: 0,
        };
        for policy in policies {
            tailnet.take(Input::Policy(Box::new(policy)));
        }
        tailnet.take(Input::PoliciesListed);
        tailnet.take(Input::Tailnet(TailnetDeclared::default()));
        tailnet.take(Input::Term(Some(Term::FIRST)));
        tailnet.take(Input::connection(Ok(())));
        // The second list shows which devices the first one lacked.
        while tailnet.lists < 3 {
            tailnet.poll();
        }
        tailnet
    }

    /// Waits for the next list and takes it.
    pub fn poll(&mut self) {
        let lists = self.lists;
        while self.lists == lists {
            let next = self.engine.wake_at().unwrap_or(self.clock);
            self.clock = self.clock.max(next);
            self.take(Input::Wake);
        }
    }

    /// Someone changes a device: the next list has it with another key expiry.
    pub fn change_device(&mut self) {
        let device = &mut self.devices[0];
        device.key_expiry_disabled = !device.key_expiry_disabled;
    }

    fn take(&mut self, input: Input) {
        self.waiting.push_back(input);
        while let Some(input) = self.waiting.pop_front() {
            let now = Now {
                monotonic: self.clock,
                wall: Timestamp::constant(1_790_000_000, 0) + self.clock,
            };
            for effect in self.engine.step(input, now) {
                self.carry_out(effect);
            }
            if self.waiting.is_empty() && self.engine.wants_turn().is_some() {
                self.waiting.push_back(Input::Turn);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let input = match effect {
            Effect::Send {
                ticket, request, ..
            } => self.answer(ticket, &request),
            Effect::Report(key, report) => Input::Recorded {
                key,
                uid: report.uid.clone(),
                record: report.record.clone(),
            },
            Effect::Tailnet(report) => Input::TailnetRecorded(report.revision),
            Effect::Notify(..) => return,
        };
        self.waiting.push_back(input);
    }

    fn answer(&mut self, ticket: Ticket, request: &Request) -> Input {
        let answer = match request {
            Request::Devices => {
                self.lists += 1;
                Answer::Devices {
                    devices: self.devices.clone(),
                    skipped: UnreadableDevices::default(),
                    date: None,
                    lacks: [].into(),
                }
            }
            Request::Device(id) => {
                let device = self.devices.iter().find(|device| device.node_id == *id);
                Answer::Device(Box::new(device.unwrap().clone()))
            }
            Request::Routes(_) => Answer::Routes([].into()),
            Request::Attributes(_) => Answer::Attributes([].into()),
            // What the benchmark changed is set back before the next list.
            Request::Write(_) => {
                self.devices[0].key_expiry_disabled = true;
                Answer::Written
            }
        };
        Input::Answered(ticket, Ok(answer))
    }
}
