//! The engine in a simulated world: a model of a tailnet, a store of policies, and a clock that jumps from
//! event to event. One seed drives it all. `checks.rs` checks the invariants at every request.

mod actions;
mod approvals;
mod approved_plan;
mod broken;
mod budget;
mod chaos;
mod check_reports;
mod checks;
mod clears;
mod contested;
mod counted;
mod device_lookups;
mod due;
mod evaluated;
mod expired;
mod faulty;
mod flapping;
mod fleets;
mod guarded;
mod late;
mod leaders;
mod limits;
mod model;
mod never_sent;
mod outcome;
mod owned;
mod owned_history;
mod random;
mod recorded;
mod released;
mod released_at_random;
mod seeds;
mod shares;
mod short_at_random;
mod short_lists;
mod short_plans;
mod tenants;

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use self::model::{Faults, Model, failure};
use super::{
    Answer, Effect, Engine, Failure, Input, Notification, Now, PolicyReport, Request, Retry,
    Settings, TailnetDeclared, TailnetReport, Term, Ticket,
};
use crate::{
    model::{ChangeLimit, NodeId, Reason},
    plan::{
        Admission, Approvals, Call, Capacity, Guardrails, Labels, Policy, PolicyInput, PolicyKey,
        PolicyRecord, ReconcileRequest, StatusState,
    },
};

/// A policy as Kubernetes stores it.
#[derive(Debug, Clone)]
struct Kept {
    policy: Policy,
    record: PolicyRecord,
    request: ReconcileRequest,
    approvals: Approvals,
    /// The fault of its spec, if any.
    broken: Broken,
    /// The object has the finalizer.
    anchored: bool,
    /// The object is being deleted and waits for its finalizer.
    deleting: bool,
}

/// The fault of a spec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Broken {
    #[default]
    Valid,
    /// The spec is readable but invalid.
    Invalid,
    /// A newer release wrote the spec.
    Unreadable,
}

#[derive(Debug)]
enum Event {
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

/// The effects of the engine, for tests that count.
#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Request>,
    reports: Vec<(PolicyKey, PolicyReport)>,
    notifications: Vec<(PolicyKey, Notification)>,
    /// The last reports of policies that waited for their finalizer and went.
    ends: Vec<(PolicyKey, PolicyReport)>,
}

struct World {
    clock: Duration,
    start: Timestamp,
    /// The lead of the process's wall clock over the world's.
    skew: SignedDuration,
    rng: fastrand::Rng,
    events: BTreeMap<(Duration, u64), (u32, Event)>,
    next_event: u64,
    model: Model,
    faults: Faults,
    policies: BTreeMap<PolicyKey, Kept>,
    engine: Engine,
    /// The current term, or else the last one.
    term: Term,
    /// The number of the engine: an event for a killed engine reaches no other.
    life: u32,
    settings: Settings,
    /// The tailnet's object: its approval annotation and its record.
    tailnet: TailnetDeclared,
    /// The labels of the namespaces.
    namespaces: BTreeMap<String, Labels>,
    /// Status writes of the tailnet fail.
    loses_tailnet_reports: bool,
    /// The last report of the tailnet.
    tailnet_report: TailnetReport,
    /// The inputs of this engine, for the checks.
    reported: checks::EngineInputs,
    wake: Option<Duration>,
    /// The engine waits for the budget.
    waits_for_turn: bool,
    traced: bool,
    steps: u64,
    steps_at_once: usize,
    seen: Seen,
    /// When someone else last changed the routes of a device.
    drifted: BTreeMap<NodeId, Duration>,
    last_reports: BTreeMap<PolicyKey, PolicyReport>,
    /// When the last report of a policy will be stored.
    keeping: BTreeMap<PolicyKey, Duration>,
    /// The size limit of the records of owned keys.
    record_capacity: Capacity,
    /// The size of one evaluation step, and its longest duration.
    evaluation_share: Option<(usize, Duration)>,
    /// When the last report of the tailnet will be stored.
    keeping_tailnet: Duration,
}

/// A request that failed and may have taken effect.
fn lost(reason: Reason, retry: Retry) -> Failure {
    Failure {
        unknown_outcome: true,
        ..failure(reason, retry)
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            clock: Duration::ZERO,
            start: "2026-01-01T00:00:00Z".parse().unwrap(),
            skew: SignedDuration::ZERO,
            rng: fastrand::Rng::with_seed(seed),
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
            tailnet: TailnetDeclared::default(),
            namespaces: BTreeMap::new(),
            loses_tailnet_reports: false,
            tailnet_report: TailnetReport::default(),
            reported: checks::EngineInputs::default(),
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
        }
    }

    /// The current permissions.
    fn guards(&self) -> Admission {
        Admission {
            guardrails: self.settings.guardrails.clone(),
            namespaces: self.namespaces.clone(),
        }
    }

    fn wall(&self) -> Timestamp {
        self.start + jiff::SignedDuration::try_from(self.clock).unwrap()
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.next_event += 1;
        let at = (self.clock + delay, self.next_event);
        self.events.insert(at, (self.life, event));
    }

    fn delay(&mut self) -> Duration {
        self.faults.delay.mul_f64(self.rng.f64())
    }

    /// Starts a process: it leads, is connected, and knows all policies.
    fn start(&mut self) {
        self.step(Input::Settings(self.settings.clone()));
        for (name, labels) in self.namespaces.clone() {
            self.step(Input::Namespace(name, Some(labels)));
        }
        self.step(Input::PoliciesListed);
        self.start_term();
        self.step(Input::connection(Ok(())));
    }

    /// Ends the process at once, as SIGKILL does, and starts another.
    fn kill(&mut self) {
        self.life += 1;
        // Requests of the killed process may still arrive.
        let now = self.clock;
        self.drifted
            .extend(self.model.devices.keys().map(|id| (id.clone(), now)));
        self.engine = Engine::new(settings(), self.rng.u64(..));
        self.engine.set_record_capacity(self.record_capacity);
        if let Some((share, _)) = self.evaluation_share {
            self.engine.set_evaluation_share(share);
        }
        self.reported = std::mem::take(&mut self.reported).for_next_process();
        self.wake = None;
        self.waits_for_turn = false;
        self.start();
    }

    /// Applies or edits a policy.
    fn apply(&mut self, mut policy: Policy) {
        let key = policy.key.clone();
        let before = self.policies.get(&key);
        let anchored = before.is_some_and(|kept| kept.anchored);
        let request = before.map(|kept| kept.request.clone()).unwrap_or_default();
        let approvals = before
            .map(|kept| kept.approvals.clone())
            .unwrap_or_default();
        let record = if let Some(kept) = self.policies.get(&key) {
            policy.uid.clone_from(&kept.policy.uid);
            policy.created = kept.policy.created;
            policy.generation = kept.policy.generation + 1;
            kept.record.clone()
        } else {
            policy.uid = self.rng.u64(..).to_string();
            policy.created = self.wall();
            PolicyRecord::default()
        };
        self.policies.insert(
            key.clone(),
            Kept {
                policy,
                record,
                request,
                approvals,
                broken: Broken::Valid,
                anchored,
                deleting: false,
            },
        );
        self.watch_soon(key);
    }

    /// Deletes a policy. It waits for its finalizer if it has something to clear.
    fn delete(&mut self, key: &PolicyKey) {
        match self.policies.get_mut(key) {
            Some(kept) if kept.anchored => {
                if !kept.deleting {
                    kept.deleting = true;
                    kept.policy.generation += 1;
                }
            }
            _ => self.remove(key),
        }
        self.watch_soon(key.clone());
    }

    /// Makes the spec of a policy invalid or unreadable.
    fn break_spec(&mut self, key: &PolicyKey, broken: Broken) {
        if let Some(kept) = self.policies.get_mut(key) {
            kept.broken = broken;
            kept.policy.generation += 1;
            self.watch_soon(key.clone());
        }
    }

    /// Replaces the object by its manifest, which has no finalizer.
    fn replace(&mut self, key: &PolicyKey) {
        let kept = self.policies.get_mut(key);
        if let Some(kept) = kept.filter(|kept| !kept.deleting) {
            kept.anchored = false;
            self.watch_soon(key.clone());
        }
    }

    fn remove(&mut self, key: &PolicyKey) {
        self.policies.remove(key);
        self.last_reports.remove(key);
    }

    /// The watch shows the present state of the tailnet's object.
    fn show_tailnet_object(&mut self) {
        self.step(Input::Tailnet(self.tailnet.clone()));
    }

    fn watch_soon(&mut self, key: PolicyKey) {
        let delay = self.delay();
        self.after(delay, Event::Watch(key));
    }

    fn show_policy(&mut self, key: &PolicyKey) {
        let input = match self.policies.get(key) {
            None => Input::PolicyGone(key.clone()),
            Some(kept) => Input::Policy(Box::new(PolicyInput {
                key: key.clone(),
                uid: kept.policy.uid.clone(),
                generation: kept.policy.generation,
                policy: match kept.broken {
                    Broken::Valid => Ok(kept.policy.clone()),
                    _ => Err(vec!["spec.tags: broken".to_owned()]),
                },
                status_state: StatusState {
                    readable: (kept.broken != Broken::Valid).then(|| kept.policy.clone()),
                    left_alone: kept.broken == Broken::Unreadable,
                    lacks_finalizer: !kept.anchored,
                },
                record: kept.record.clone(),
                request: kept.request.clone(),
                approvals: kept.approvals.clone(),
                deleting: kept.deleting.then_some(CLEAR_TIMEOUT),
            })),
        };
        self.step(input);
    }

    /// Runs all events before this time.
    fn run_until(&mut self, end: Duration) {
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

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.clock + time);
    }

    fn happen(&mut self, life: u32, event: Event) {
        let alive = life == self.life;
        match event {
            Event::Arrive(ticket, request) => {
                let answer = self.arrive(&request);
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
    fn arrive(&mut self, request: &Request) -> Result<Answer, Failure> {
        if self.faults.list_down && *request == Request::Devices {
            return Err(failure(Reason::ApiError, Retry::Later));
        }
        let mut dice = self.rng.f64();
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
            let pause = Duration::from_secs(self.rng.u64(1..40));
            return Err(failure(Reason::RateLimited, Retry::After(pause)));
        }
        let answer_lost = hit(self.faults.answer_lost);
        let answer = self.model.answer(request);
        if answer_lost {
            return Err(lost(Reason::ApiUnreachable, Retry::Later));
        }
        answer
    }

    fn step(&mut self, input: Input) {
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
                wait.mul_f64(self.rng.f64())
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
    fn wake_with_evaluation(&mut self, at: Duration) -> Duration {
        let Some((_, time)) = self.evaluation_share.filter(|_| at.is_zero()) else {
            return at;
        };
        let latest = self.clock + time;
        let due = self.wake.filter(|due| *due > self.clock);
        due.map_or(latest, |due| due.min(latest))
    }

    /// Prints the events if `TSDP_TRACE=1` is set, to debug a single seed.
    fn trace(&self, what: &dyn std::fmt::Debug) {
        if self.traced {
            println!("{:>10.3} {what:?}", self.clock.as_secs_f64());
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        self.trace(&effect);
        match effect {
            Effect::Send {
                ticket,
                request,
                until,
            } => {
                let is_write = matches!(request, Request::Write(_));
                if is_write && !self.faults.connect.is_zero() {
                    let wait = self.faults.connect.mul_f64(self.rng.f64());
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
    fn depart(&mut self, ticket: Ticket, request: Request, until: Option<Duration>) {
        let now = Now {
            monotonic: self.clock,
            wall: self.wall(),
        };
        let in_time = until.is_none_or(|until| self.clock < until);
        if in_time && self.engine.still_wants(ticket, now) {
            self.send(ticket, request);
        } else {
            self.step(Input::NotSent(ticket));
        }
    }

    fn send(&mut self, ticket: Ticket, request: Request) {
        self.check(ticket, &request);
        self.seen.requests.push(request.clone());
        let delay = self.delay();
        self.after(delay, Event::Arrive(ticket, request));
    }

    fn writes(&self) -> Vec<&Call> {
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

    fn count(&self, wanted: impl Fn(&Request) -> bool) -> usize {
        self.seen
            .requests
            .iter()
            .filter(|request| wanted(request))
            .count()
    }

    fn clear_seen(&mut self) {
        self.seen = Seen::default();
    }
}

const CLEAR_TIMEOUT: Duration = Duration::from_mins(10);

fn settings() -> Settings {
    Settings {
        poll_interval: Duration::from_mins(1),
        attributes_interval: Duration::from_mins(10),
        requests_per_second: 5.0,
        limit: ChangeLimit::NONE,
        guardrails: Guardrails::default(),
    }
}
