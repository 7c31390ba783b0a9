//! A history, told as a story: who does what and when, what the engine learns, and what it does.
//!
//! Only news is told: a list or a status that says the same as before is left out. Nothing is told unless
//! somebody listens.

mod words;

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

pub use self::words::{attributes, device, faults, policy};
use self::words::{call, failure, report, routes};
use crate::{
    model::Device,
    tailnet::{Answer, Effect, Input, Request},
};

#[derive(Default)]
struct Story {
    lines: Vec<String>,
    /// What was told last about each thing.
    known: BTreeMap<String, String>,
    /// The requests by their tickets.
    requests: BTreeMap<(usize, u64), String>,
}

thread_local! {
    static STORY: RefCell<Option<Story>> = const { RefCell::new(None) };
}

/// Listens to the histories that this thread runs from now on.
pub fn listen() {
    STORY.set(Some(Story::default()));
}

/// The story so far.
pub fn told() -> Vec<String> {
    STORY.take().map(|story| story.lines).unwrap_or_default()
}

/// Tells something.
pub fn tell(at: Duration, line: impl FnOnce() -> String) {
    with(|story| story.tell(at, &line()));
}

/// Tells what the engine of a process is told.
pub fn tell_input(at: Duration, process: usize, input: &Input) {
    with(|story| story.tell_input(at, process, input));
}

/// Tells what the engine of a process does.
pub fn tell_effect(at: Duration, process: usize, effect: &Effect) {
    with(|story| story.tell_effect(at, process, effect));
}

fn with(tell: impl FnOnce(&mut Story)) {
    STORY.with_borrow_mut(|story| story.as_mut().map(tell));
}

fn engine(process: usize) -> &'static str {
    ["engine", "engine A", "engine B"][process]
}

impl Story {
    fn tell(&mut self, at: Duration, line: &str) {
        self.lines
            .push(format!("{:>10.3}  {line}", at.as_secs_f64()));
    }

    /// Tells something about a thing, unless it was told before.
    fn tell_news(&mut self, at: Duration, thing: String, line: String) {
        if self.known.get(&thing) != Some(&line) {
            self.tell(at, &line);
            self.known.insert(thing, line);
        }
    }

    fn tell_input(&mut self, at: Duration, process: usize, input: &Input) {
        let name = engine(process);
        match input {
            Input::Policy(policy) => {
                let key = &policy.key;
                let mut words = vec![format!("{key} is at generation {}", policy.generation)];
                words.extend(
                    policy
                        .approvals
                        .plans
                        .iter()
                        .map(|plan| format!("approves {plan}")),
                );
                words.extend(policy.deleting.map(|_| "is being deleted".to_owned()));
                words.extend(policy.policy.is_err().then(|| "cannot be read".to_owned()));
                let line = format!("{name}: {}", words.join(", "));
                self.tell_news(at, format!("{process} sees {key}"), line);
            }
            Input::PolicyGone(key) => {
                self.tell_news(
                    at,
                    format!("{process} sees {key}"),
                    format!("{name}: {key} is gone"),
                );
            }
            Input::Connection { .. } => {
                self.tell(at, &format!("{name}: there is a new connection"));
            }
            Input::Term(Some(term)) => self.tell(at, &format!("{name}: leads, in {term}")),
            Input::Term(None) => self.tell(at, &format!("{name}: leads no longer")),
            Input::NotSent(ticket) => {
                let request = self
                    .requests
                    .remove(&(process, ticket.0))
                    .unwrap_or_default();
                self.tell(at, &format!("{name}: #{} is not sent: {request}", ticket.0));
            }
            Input::Answered(ticket, answer) => {
                let request = self
                    .requests
                    .remove(&(process, ticket.0))
                    .unwrap_or_default();
                match answer {
                    Ok(answer) => self.tell_answer(at, process, (ticket.0, &request), answer),
                    Err(error) => {
                        let error = failure(error);
                        self.tell(
                            at,
                            &format!("{name}: #{} fails: {request}: {error}", ticket.0),
                        );
                    }
                }
            }
            Input::Recorded { key, .. } => {
                self.tell(at, &format!("{name}: the status of {key} is stored"));
            }
            _ => {}
        }
    }

    fn tell_answer(&mut self, at: Duration, process: usize, of: (u64, &str), answer: &Answer) {
        let (ticket, request) = of;
        let name = engine(process);
        match answer {
            Answer::Devices { devices, .. } => {
                let names: Vec<&str> = devices.iter().map(|it| it.node_id.as_str()).collect();
                let line = format!("{name}: a list has {}", names.join(", "));
                self.tell_news(at, format!("{process} list"), line);
                for device in devices {
                    self.tell_device(at, process, "lists", device);
                }
            }
            Answer::Device(device) => self.tell_device(at, process, "reads", device),
            Answer::Routes(read) => {
                let line = format!("{name}: {request}: {}", routes(read));
                self.tell_news(at, format!("{process} {request}"), line);
            }
            Answer::Attributes(read) => {
                let line = format!("{name}: {request}: {}", attributes(read));
                self.tell_news(at, format!("{process} {request}"), line);
            }
            Answer::Written => self.tell(at, &format!("{name}: #{ticket} is accepted: {request}")),
        }
    }

    fn tell_device(&mut self, at: Duration, process: usize, verb: &str, read: &Device) {
        let words = device(read);
        let thing = format!("{process} {}", read.node_id);
        if self.known.get(&thing) != Some(&words) {
            self.tell(at, &format!("{}: {verb} {words}", engine(process)));
            self.known.insert(thing, words);
        }
    }

    fn tell_effect(&mut self, at: Duration, process: usize, effect: &Effect) {
        let name = engine(process);
        match effect {
            Effect::Send {
                ticket, request, ..
            } => {
                let words = match request {
                    Request::Devices => "a list".to_owned(),
                    Request::Device(id) => format!("device {id}"),
                    Request::Routes(id) => format!("routes of {id}"),
                    Request::Attributes(id) => format!("attributes of {id}"),
                    Request::Write(write) => call(write),
                };
                if matches!(request, Request::Write(_)) {
                    self.tell(at, &format!("{name}: asks as #{} for: {words}", ticket.0));
                }
                self.requests.insert((process, ticket.0), words);
            }
            Effect::Report(key, reported) => {
                let line = format!("{name}: reports {key}: {}", report(reported));
                self.tell_news(at, format!("{process} reports {key}"), line);
            }
            Effect::Tailnet(_) | Effect::Notify(..) => {}
        }
    }
}
