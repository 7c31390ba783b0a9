//! Two controller processes over one store and one tailnet. The lease passes between them. They are cut
//! off, stopped, killed, and restarted, while people edit policies and devices. No request is ever sent
//! that no stored policy desires, and the end state is that of a single process.

mod account;
mod check;
mod driver;
mod lead;
mod people;
mod process;
mod statuses;
mod store;

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use self::{
    account::Account,
    process::{Process, Writing},
    store::{Object, Refused, Store, TailnetObject},
};
use super::{History, World, choices::Choices, lost, model::Faults, model::Model, settings};
use crate::{
    model::Reason,
    plan::{Difference, PolicyKey},
    tailnet::{
        Answer, Engine, Failure, Input, Now, Request, Retry, State, TailnetReport, Ticket,
        tests::simulation::model::failure,
    },
};

pub const HISTORY: History = History {
    name: "leaders",
    run: run_history,
    share: Duration::from_secs(24),
};
/// How often a status is derived again at once after the object has changed.
const TRIES: u32 = 3;
const RENEWED_EVERY: Duration = Duration::from_secs(2);
/// The delay before a failed status write is retried.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Event {
    /// The process tries to renew or take the lease.
    Renew,
    /// The lease expires unless it was renewed.
    Lapse,
    /// The watches list everything.
    List(u64),
    /// A watch shows an object, or that it is gone.
    Show(u64, PolicyKey, Option<Box<Object>>),
    ShowTailnet(u64, Box<TailnetObject>),
    Turn,
    Wake,
    /// There is a connection for a write.
    Depart(Ticket, Option<Duration>),
    /// A request reaches the tailnet's API.
    Arrive(Ticket, Request),
    Answer(Ticket, Result<Answer, Failure>),
    /// A status reaches the API server.
    Write(PolicyKey, Writing),
    WriteTailnet(Box<TailnetReport>, u64, u64),
    /// The outcome of a status write.
    Written(PolicyKey, Writing, Result<u64, Refused>),
    /// The write failed and is retried.
    Again(PolicyKey, Writing),
    TailnetWritten(Box<TailnetReport>, u64, bool),
    /// A killed process starts again.
    Start,
}

struct Pair {
    clock: Duration,
    start: Timestamp,
    rng: Choices,
    /// Events by time and order, each with its process and that process's life.
    events: BTreeMap<(Duration, u64), (usize, u64, Event)>,
    next: u64,
    model: Model,
    faults: Faults,
    store: Store,
    processes: [Process; 2],
    account: Account,
    traced: bool,
    steps: u64,
    steps_at_once: usize,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let process = |life| Process::new(life, Engine::new(settings(), seed ^ life));
        let mut pair = Self {
            clock: Duration::ZERO,
            start: "2026-01-01T00:00:00Z".parse().unwrap(),
            rng: Choices::of_seed(seed),
            events: BTreeMap::new(),
            next: 0,
            model: Model::default(),
            faults: Faults {
                delay: Duration::from_millis(200),
                ..Faults::default()
            },
            store: Store::new(),
            processes: [process(1), process(2)],
            account: Account::default(),
            traced: std::env::var_os("TSDP_TRACE").is_some(),
            steps: 0,
            steps_at_once: 0,
        };
        pair.next = 10;
        for process in 0..2 {
            pair.after(process, Duration::ZERO, Event::Start);
        }
        pair
    }

    fn wall(&self) -> Timestamp {
        self.start + SignedDuration::try_from(self.clock).unwrap()
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.clock,
            wall: self.wall(),
        }
    }

    fn after(&mut self, process: usize, delay: Duration, event: Event) {
        self.next += 1;
        let life = self.processes[process].life;
        let at = (self.clock + delay, self.next);
        self.events.insert(at, (process, life, event));
    }

    fn delay(&mut self) -> Duration {
        self.faults.delay.mul_f64(self.rng.noise())
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.clock + time;
        while let Some((&(at, _), _)) = self.events.first_key_value()
            && at <= end
        {
            let ((at, number), (process, life, event)) = self.events.pop_first().unwrap();
            if at > self.clock {
                self.clock = at;
                self.steps_at_once = 0;
            }
            self.steps_at_once += 1;
            assert!(
                self.steps_at_once < 5_000,
                "a loop that takes no time: {event:?}"
            );
            let wall = self.wall();
            self.model.expire(wall);
            let one = &mut self.processes[process];
            let on_its_own = !matches!(event, Event::Arrive(..) | Event::Write(..))
                && !matches!(event, Event::WriteTailnet(..));
            match one.paused.filter(|until| *until > at) {
                // A stopped process handles the events in the same order when it continues.
                Some(until) if on_its_own => {
                    self.events.insert((until, number), (process, life, event));
                }
                _ => {
                    self.happen(process, life, event);
                    self.steps += 1;
                }
            }
        }
        self.clock = end;
    }

    fn happen(&mut self, process: usize, life: u64, event: Event) {
        let alive = self.processes[process].life == life;
        match event {
            Event::Arrive(ticket, request) => {
                let answer = self.arrive(&request);
                let mut delay = self.delay();
                if request == Request::Devices {
                    delay += self.faults.list_delay;
                }
                if alive {
                    self.after(process, delay, Event::Answer(ticket, answer));
                }
            }
            Event::Write(key, writing) => {
                let result = self.store.write(&key, writing.over, &writing.report);
                self.trace(process, &(&key, writing.number, &result));
                self.account.note_store(self.clock, &self.store);
                if result.is_ok() {
                    self.show(&key);
                }
                if alive {
                    let delay = self.delay();
                    self.after(process, delay, Event::Written(key, writing, result));
                }
            }
            Event::WriteTailnet(report, over, number) => {
                let result = self.store.write_tailnet(over, &report);
                if let Ok(version) = result {
                    self.show_tailnet();
                    if alive && let Some(tailnet) = &mut self.processes[process].tailnet {
                        tailnet.version = tailnet.version.max(version);
                    }
                }
                if alive {
                    let delay = self.delay();
                    let written = Event::TailnetWritten(report, number, result.is_ok());
                    self.after(process, delay, written);
                }
            }
            Event::Start if alive => self.start_process(process),
            _ if !alive => {}
            event => self.happen_to(process, event),
        }
    }

    /// An event inside one process.
    fn happen_to(&mut self, process: usize, event: Event) {
        match event {
            Event::Renew => self.renew(process),
            Event::Lapse => self.lapse(process),
            Event::List(round) => self.list(process, round),
            Event::Show(round, ..) | Event::ShowTailnet(round, _)
                if round != self.processes[process].round => {}
            Event::Show(_, key, object) => self.shown(process, &key, object.as_deref()),
            Event::ShowTailnet(_, tailnet) => self.tailnet_shown(process, *tailnet),
            Event::Turn => {
                self.processes[process].waits_for_turn = false;
                if self.processes[process].engine.wants_turn().is_some() {
                    self.step(process, Input::Turn);
                }
            }
            Event::Wake if self.processes[process].is_due(self.clock) => {
                self.processes[process].wake = None;
                self.step(process, Input::Wake);
            }
            Event::Depart(ticket, until) => self.depart(process, ticket, until),
            Event::Answer(ticket, answer) => self.step(process, Input::Answered(ticket, answer)),
            Event::Written(key, writing, result) => self.written(process, key, writing, result),
            Event::Again(key, writing) => {
                let one = &mut self.processes[process];
                if one.busy.get(&key) == Some(&writing.number) {
                    one.busy.remove(&key);
                    one.reports.entry(key).or_insert(*writing.report);
                }
                self.write_reports(process);
            }
            Event::TailnetWritten(report, number, recorded) => {
                let one = &mut self.processes[process];
                if one.tailnet_busy != Some(number) {
                    return;
                }
                one.tailnet_busy = None;
                if recorded {
                    self.step(process, Input::TailnetRecorded(report.revision));
                } else {
                    // As if the object was read again.
                    if one.online {
                        one.tailnet = Some(self.store.tailnet.clone());
                    }
                    one.tailnet_report.get_or_insert(*report);
                    self.write_reports(process);
                }
            }
            _ => {}
        }
    }

    /// A request at the tailnet's API: it gets a response or hits one of the faults.
    fn arrive(&mut self, request: &Request) -> Result<Answer, Failure> {
        let mut dice = 1.0 - self.rng.noise();
        let mut hit = |share: f64| {
            dice -= share;
            (-share..0.0).contains(&dice)
        };
        if hit(self.faults.lost) {
            return Err(lost(Reason::ApiUnreachable, Retry::Later));
        }
        if hit(self.faults.rate_limited) {
            return Err(failure(
                Reason::RateLimited,
                Retry::After(Duration::from_secs(3)),
            ));
        }
        let answer_lost = hit(self.faults.answer_lost);
        let answer = if let Request::Write(call) = request {
            let before = self.model.clone();
            let answer = self.model.answer(request);
            if answer.is_ok() {
                self.account
                    .note_effect(self.clock, call, &before, &self.model);
            }
            answer
        } else {
            self.model.answer(request)
        };
        if answer_lost {
            return Err(lost(Reason::ApiUnreachable, Retry::Later));
        }
        answer
    }
}

impl Pair {
    /// Ends all outages, failures, and edits.
    fn calm_down(&mut self) {
        for process in 0..2 {
            self.reconnect(process);
        }
        self.faults = Faults {
            delay: Duration::from_millis(100),
            ..Faults::default()
        };
        self.store.set_tailnet(|tailnet| {
            tailnet.settings.guardrails = settings().guardrails;
            tailnet.settings.limit = settings().limit;
        });
        self.account.calm(self.clock, &self.store);
        self.show_tailnet();
    }

    /// The leader releases the lease, and a process takes it again.
    fn pass_the_lead(&mut self) {
        self.store.lease.holder = None;
        for process in 0..2 {
            self.processes[process].leads_until = Duration::ZERO;
            self.lapse(process);
        }
    }

    /// A single process that continues from the state that the two left.
    fn alone(&self, seed: u64) -> World {
        let mut world = World::new(seed);
        world.clock = self.clock;
        world.model = self.model.clone();
        world.settings = self.store.tailnet.settings.clone();
        world.tailnet = self.store.tailnet.declared.clone();
        let objects = self.store.policies.iter();
        world.policies = objects
            .map(|(key, object)| (key.clone(), object.kept()))
            .collect();
        world.start();
        world.run_for(Duration::from_hours(3));
        world
    }

    /// The statuses are those of a single process.
    fn assert_same(&self, alone: &World) {
        let known: Vec<_> = alone.policies.keys().collect();
        let stored: Vec<_> = self.store.policies.keys().collect();
        assert_eq!(known, stored);
        for (key, object) in &self.store.policies {
            let ours = object
                .report
                .as_ref()
                .unwrap_or_else(|| panic!("{key} has no status"));
            let theirs = &alone.last_reports[key];
            assert_eq!(
                without_causes(&ours.state),
                without_causes(&theirs.state),
                "{key}"
            );
            assert_eq!(ours.held, theirs.held, "{key}");
            assert_eq!(ours.generation, theirs.generation, "{key}");
            let recorded = super::recorded::through_status;
            assert_eq!(recorded(ours), recorded(theirs), "{key}");
        }
    }
}

/// A process knows the cause of a difference from what it has seen before, and a status has none.
fn without_causes(state: &State) -> State {
    let mut state = state.clone();
    let differences: Vec<&mut Difference> = match &mut state {
        State::Unbound { differences, .. } => differences.iter_mut().collect(),
        State::Bound(device) => device.differences.iter_mut().collect(),
        State::Selector(selector) => {
            let details = selector.details.iter_mut();
            let details = details.flat_map(|device| &mut device.differences);
            details.chain(&mut selector.differences).collect()
        }
        _ => Vec::new(),
    };
    for difference in differences {
        difference.cause = None;
    }
    state
}

fn run_history(seed: u64) -> u64 {
    let mut pair = Pair::new(seed);
    pair.populate();
    for _ in 0..pair.rng.usize(10..60) {
        if !pair.rng.begin_step() {
            continue;
        }
        let pause = [3_000, 30_000][pair.rng.usize(..2)];
        let pause = pair.rng.u64(..pause);
        pair.run_for(Duration::from_millis(pause));
        pair.disturb();
    }
    pair.rng.begin_step();
    pair.calm_down();
    pair.run_for(Duration::from_hours(1));
    // A frozen plan stays frozen for a term.
    pair.pass_the_lead();
    pair.run_for(Duration::from_hours(3));
    let written = pair.model.written.len();
    let alone = pair.alone(seed);
    // A deletion may wait for the next day.
    if !alone.policies.contains_key(&people::deleting()) {
        alone.assert_converged();
    }
    assert_eq!(alone.model.written.len(), written, "{:?}", alone.writes());
    pair.assert_same(&alone);
    pair.steps + alone.steps
}

#[test]
fn two_processes_do_what_one_does_and_nothing_else() {
    HISTORY.run_share();
}
