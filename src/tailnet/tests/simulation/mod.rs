//! The engine in a simulated world: a model of a tailnet, a store of policies, and a clock that jumps from
//! event to event. One seed drives it all. `checks.rs` checks the invariants at every request.

mod answers;
pub mod builders;
pub mod chaos;
mod check_reports;
pub mod checks;
pub mod choices;
mod events;
mod generator;
pub mod model;
mod objects;
mod outcome;
pub mod recorded;
mod steps;
pub mod story;
pub mod told;

pub use self::{
    events::Event,
    objects::{Broken, Kept},
};

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use self::choices::Choices;
use self::model::{Faults, Model, failure};
use crate::tailnet::{
    Engine, Failure, Input, Notification, PolicyReport, Request, Retry, Settings, TailnetDeclared,
    TailnetReport, Term,
};
use crate::{
    model::{ChangeLimit, NodeId, Reason},
    plan::{Admission, Call, Capacity, Guardrails, Labels, PolicyKey},
};

/// The effects of the engine, for tests that count.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: Vec<Request>,
    pub reports: Vec<(PolicyKey, PolicyReport)>,
    pub notifications: Vec<(PolicyKey, Notification)>,
    /// The last reports of policies that waited for their finalizer and went.
    pub ends: Vec<(PolicyKey, PolicyReport)>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct World {
    pub clock: Duration,
    pub start: Timestamp,
    /// The lead of the process's wall clock over the world's.
    pub skew: SignedDuration,
    pub rng: Choices,
    pub events: BTreeMap<(Duration, u64), (u32, Event)>,
    pub next_event: u64,
    pub model: Model,
    pub faults: Faults,
    pub policies: BTreeMap<PolicyKey, Kept>,
    pub engine: Engine,
    /// The current term, or else the last one.
    pub term: Term,
    /// The number of the engine: an event for a killed engine reaches no other.
    pub life: u32,
    pub settings: Settings,
    /// When the limit was last changed.
    pub limited_since: Duration,
    /// The tailnet's object: its approval annotation and its record.
    pub tailnet: TailnetDeclared,
    /// The labels of the namespaces.
    pub namespaces: BTreeMap<String, Labels>,
    /// Status writes of the tailnet fail.
    pub loses_tailnet_reports: bool,
    /// The last report of the tailnet.
    pub tailnet_report: TailnetReport,
    /// The inputs of this engine, for the checks.
    pub reported: told::EngineInputs,
    pub wake: Option<Duration>,
    /// The engine waits for the budget.
    pub waits_for_turn: bool,
    pub traced: bool,
    pub steps: u64,
    pub steps_at_once: usize,
    pub seen: Seen,
    /// When someone else last changed the routes of a device.
    pub drifted: BTreeMap<NodeId, Duration>,
    pub last_reports: BTreeMap<PolicyKey, PolicyReport>,
    /// When the last report of a policy will be stored.
    pub keeping: BTreeMap<PolicyKey, Duration>,
    /// The size limit of the records of owned keys.
    pub record_capacity: Capacity,
    /// The size of one evaluation step, and its longest duration.
    pub evaluation_share: Option<(usize, Duration)>,
    /// When the last report of the tailnet will be stored.
    pub keeping_tailnet: Duration,
    /// When requests failed or were not sent in time.
    pub failures: Vec<Duration>,
    /// A release was given up.
    pub given_up: bool,
}

/// A request that failed and may have taken effect.
pub fn lost(reason: Reason, retry: Retry) -> Failure {
    Failure {
        unknown_outcome: true,
        ..failure(reason, retry)
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            clock: Duration::ZERO,
            start: "2026-01-01T00:00:00Z".parse().unwrap(),
            skew: SignedDuration::ZERO,
            rng: Choices::of_seed(seed),
            events: BTreeMap::new(),
            next_event: 0,
            model: Model::default(),
            faults: Faults {
                delay: Duration::from_millis(200),
                ..Faults::default()
            },
            policies: BTreeMap::new(),
            engine: Engine::new(settings(), seed),
            term: Term::FIRST,
            life: 0,
            settings: settings(),
            limited_since: Duration::ZERO,
            tailnet: TailnetDeclared::default(),
            namespaces: BTreeMap::new(),
            loses_tailnet_reports: false,
            tailnet_report: TailnetReport::default(),
            reported: told::EngineInputs::default(),
            wake: None,
            waits_for_turn: false,
            traced: std::env::var_os("TSDP_TRACE").is_some(),
            steps: 0,
            steps_at_once: 0,
            seen: Seen::default(),
            drifted: BTreeMap::new(),
            last_reports: BTreeMap::new(),
            keeping: BTreeMap::new(),
            record_capacity: Capacity::default(),
            evaluation_share: None,
            keeping_tailnet: Duration::ZERO,
            failures: Vec::new(),
            given_up: false,
        }
    }

    /// Tells what people, devices, or the API do.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        story::tell(self.clock, line);
    }

    /// The current permissions.
    pub fn guards(&self) -> Admission {
        Admission {
            guardrails: self.settings.guardrails.clone(),
            namespaces: self.namespaces.clone(),
        }
    }

    pub fn wall(&self) -> Timestamp {
        self.start + jiff::SignedDuration::try_from(self.clock).unwrap()
    }

    pub fn after(&mut self, delay: Duration, event: Event) {
        self.next_event += 1;
        let at = (self.clock + delay, self.next_event);
        self.events.insert(at, (self.life, event));
    }

    pub fn delay(&mut self) -> Duration {
        self.faults.delay.mul_f64(self.rng.noise())
    }

    /// Starts a process: it leads, is connected, and knows all policies.
    pub fn start(&mut self) {
        self.step(Input::Settings(self.settings.clone()));
        for (name, labels) in self.namespaces.clone() {
            self.step(Input::Namespace(name, Some(labels)));
        }
        self.step(Input::PoliciesListed);
        self.start_term();
        self.step(Input::connection(Ok(())));
    }

    /// Ends the process at once, as SIGKILL does, and starts another.
    pub fn kill(&mut self) {
        self.tell(|| "The process is killed, and another one starts.".to_owned());
        self.life += 1;
        // Requests of the killed process may still arrive.
        let now = self.clock;
        self.drifted
            .extend(self.model.devices.keys().map(|id| (id.clone(), now)));
        self.engine = Engine::new(settings(), self.rng.seed());
        self.engine.set_record_capacity(self.record_capacity);
        if let Some((share, _)) = self.evaluation_share {
            self.engine.set_evaluation_share(share);
        }
        self.reported = std::mem::take(&mut self.reported).for_next_process();
        self.wake = None;
        self.waits_for_turn = false;
        self.start();
    }

    /// Prints the events if `TSDP_TRACE=1` is set, to debug a single seed.
    pub fn trace(&self, what: &dyn std::fmt::Debug) {
        if self.traced {
            println!("{:>10.3} {what:?}", self.clock.as_secs_f64());
        }
    }

    pub fn writes(&self) -> Vec<&Call> {
        let writes = self
            .seen
            .requests
            .iter()
            .filter_map(|request| match request {
                Request::Write(call) => Some(call),
                _ => None,
            });
        writes.collect()
    }

    pub fn count(&self, wanted: impl Fn(&Request) -> bool) -> usize {
        self.seen
            .requests
            .iter()
            .filter(|request| wanted(request))
            .count()
    }

    pub fn clear_seen(&mut self) {
        self.seen = Seen::default();
    }
}

pub const CLEAR_TIMEOUT: Duration = Duration::from_mins(10);

pub fn settings() -> Settings {
    Settings {
        poll_interval: Duration::from_mins(1),
        attributes_interval: Duration::from_mins(10),
        requests_per_second: 5.0,
        limit: ChangeLimit::NONE,
        guardrails: Guardrails::default(),
    }
}
