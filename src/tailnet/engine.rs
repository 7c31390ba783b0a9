use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Announcement, Effect, Failure, Input, Now, PolicyReport, Request, Retry, TailnetReport, Ticket,
    failure::Setback, node::Node, polling::Polling,
};
use crate::{
    api::Reason,
    model::NodeId,
    plan::{self, Binding, Declared, Fleet, Memory, Policy, PolicyKey},
};

/// How a tailnet is looked after.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Between two lists.
    pub poll_interval: Duration,
    /// Between two reads of the attributes of one device, at least.
    pub attributes_interval: Duration,
    /// Requests per second that the budget allows.
    pub requests_per_second: f64,
}

/// A policy that the engine looks after.
#[derive(Debug)]
pub(super) struct Held {
    pub uid: String,
    pub generation: i64,
    pub policy: Result<Policy, Vec<String>>,
    /// What its status remembered when last watched.
    stored: Memory,
    /// What is surely kept: a crash would not lose it.
    pub recorded: Memory,
    /// What must be remembered.
    pub memory: Memory,
    /// Which device it means, as of the last list.
    pub binding: Option<Binding>,
    /// The device that counts it among its policies.
    pub node: Option<NodeId>,
    /// New or edited, and not seen through yet: goes before routine work.
    pub urgent: bool,
    pub changed_at: Option<Timestamp>,
    pub last_report: Option<PolicyReport>,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub request: Request,
    /// The differences that it removes.
    pub differences: Vec<plan::Difference>,
}

/// One tailnet, looked after: see the module's documentation.
#[derive(Debug)]
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) rng: fastrand::Rng,
    pub(super) leading: bool,
    pub(super) stopping: bool,
    pub(super) connection: Result<(), Failure>,
    pub(super) policies_listed: bool,
    pub(super) policies: BTreeMap<PolicyKey, Held>,
    pub(super) polling: Polling,
    pub(super) fleet: Fleet,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Bound devices that are not in the list, with the list (counted) that missed them first.
    pub(super) missing: BTreeMap<NodeId, u64>,
    pub(super) flights: BTreeMap<Ticket, Flight>,
    next_ticket: u64,
    /// Counts completed writes, so that a list from before one is not taken for a look after it.
    pub(super) writes: u64,
    /// Policies whose device is to be found anew.
    pub(super) unbound: BTreeSet<PolicyKey>,
    /// Devices to be compared anew.
    pub(super) stale: BTreeSet<NodeId>,
    /// Devices for which something may have to be done.
    pub(super) active: BTreeSet<NodeId>,
    /// Policies whose report may have changed.
    pub(super) tell: BTreeSet<PolicyKey>,
    /// When something is to be done though nothing happens.
    pub(super) timers: BTreeSet<(Duration, NodeId)>,
    /// Since when the batch of attribute writes has not grown, and how many devices it has.
    pub(super) batch: Option<(Duration, usize)>,
    last_tailnet: Option<TailnetReport>,
    pub(super) effects: Vec<Effect>,
}

impl Engine {
    /// An engine that knows nothing yet and may not write. `seed` decides the jitter.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            leading: false,
            stopping: false,
            connection: Err(Failure {
                reason: Reason::Progressing,
                message: "The connection is being made.".to_owned(),
                retry: Retry::Later,
                unknown_outcome: false,
            }),
            policies_listed: false,
            policies: BTreeMap::new(),
            polling: Polling::default(),
            fleet: Fleet::default(),
            nodes: BTreeMap::new(),
            missing: BTreeMap::new(),
            flights: BTreeMap::new(),
            next_ticket: 0,
            writes: 0,
            unbound: BTreeSet::new(),
            stale: BTreeSet::new(),
            active: BTreeSet::new(),
            tell: BTreeSet::new(),
            timers: BTreeSet::new(),
            batch: None,
            last_tailnet: None,
            effects: Vec::new(),
        }
    }

    /// Takes what happened and says what to do about it.
    #[must_use]
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Policy(declared) => self.take_policy(*declared),
            Input::PolicyGone(key) => self.drop_policy(&key),
            Input::PoliciesListed => self.policies_listed = true,
            Input::Connection(connection) => {
                self.connection = connection;
                self.polling.restart(now.monotonic);
                self.missing.clear();
                self.tell_all();
            }
            Input::Settings(settings) => {
                self.settings = settings;
                self.polling.hasten(now.monotonic);
            }
            Input::Leading(leading) => self.lead(leading, now),
            Input::Answered(ticket, result) => self.answered(ticket, result, now),
            Input::Recorded(key, memory) => self.recorded(&key, memory),
            Input::Wake => {}
            Input::Stop => self.stopping = true,
        }
        self.settle(now);
        std::mem::take(&mut self.effects)
    }

    /// The time (monotonic) at which [`Input::Wake`] should come, if nothing else does before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        let poll = self
            .connection
            .is_ok()
            .then(|| self.polling.wake_at())
            .flatten();
        let timer = self.timers.first().map(|(at, _)| *at);
        let batch = self
            .batch
            .map(|(since, _)| since + super::schedule::BATCH_PATIENCE);
        [poll, timer, batch].into_iter().flatten().min()
    }

    /// Whether no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    fn take_policy(&mut self, declared: Declared) {
        let key = declared.key.clone();
        self.tell.insert(key.clone());
        let known = self
            .policies
            .get_mut(&key)
            .filter(|held| held.uid == declared.uid);
        let Some(held) = known else {
            self.drop_policy(&key);
            self.unbound.insert(key.clone());
            self.policies.insert(
                key,
                Held {
                    uid: declared.uid,
                    generation: declared.generation,
                    policy: declared.policy,
                    recorded: declared.memory.clone(),
                    memory: declared.memory.clone(),
                    stored: declared.memory,
                    binding: None,
                    node: None,
                    urgent: true,
                    changed_at: None,
                    last_report: None,
                },
            );
            return;
        };
        held.stored = declared.memory;
        if held.generation == declared.generation {
            return;
        }
        held.generation = declared.generation;
        held.policy = declared.policy;
        held.urgent = true;
        // An edit is the user's answer to whatever failed before it.
        if let Some(node) = held.node.as_ref().and_then(|id| self.nodes.get_mut(id)) {
            node.setbacks.clear();
            node.look_setback = None;
            node.attributes_setback = None;
        }
        self.unbound.insert(key);
    }

    fn drop_policy(&mut self, key: &PolicyKey) {
        if let Some(held) = self.policies.remove(key)
            && let Some(node) = held.node
        {
            self.let_go(node, key);
        }
        self.unbound.remove(key);
        self.tell.remove(key);
    }

    /// Takes the lead or loses it. Who takes it reads everything anew before the first write: the
    /// former leader may have changed things a moment ago.
    fn lead(&mut self, leading: bool, now: Now) {
        if leading == self.leading {
            return;
        }
        self.leading = leading;
        self.last_tailnet = None;
        for held in self.policies.values_mut() {
            held.last_report = None;
            held.recorded = held.stored.clone();
        }
        if leading {
            for node in self.nodes.values_mut() {
                node.attributes = None;
            }
            self.polling.restart(now.monotonic);
            self.missing.clear();
        }
        self.stale.extend(self.nodes.keys().cloned());
        self.tell_all();
    }

    fn recorded(&mut self, key: &PolicyKey, memory: Memory) {
        if let Some(held) = self.policies.get_mut(key) {
            held.recorded = memory;
            self.active.extend(held.node.clone());
        }
    }

    /// How old attributes may be: the interval, stretched so that reading them takes at most 30 %
    /// of the budget.
    pub(super) fn refresh(&self) -> Duration {
        let reading = self
            .nodes
            .values()
            .filter(|node| node.plan.claims.need_attributes())
            .count();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count of devices is far below 2^52"
        )]
        let seconds = reading as f64 / (0.3 * self.settings.requests_per_second);
        self.settings
            .attributes_interval
            .max(Duration::from_secs_f64(seconds.max(0.0)))
    }

    /// Why the tailnet cannot be asked, once that is sure enough to say it on every policy.
    pub(super) fn outage(&self) -> Option<&Failure> {
        self.connection.as_ref().err().or(self.polling.outage())
    }

    pub(super) fn is_remembered(&self, key: &PolicyKey) -> bool {
        self.policies
            .get(key)
            .is_some_and(|held| held.recorded.covers(&held.memory))
    }

    pub(super) fn all_remembered(&self, node: &Node) -> bool {
        node.policies.iter().all(|key| self.is_remembered(key))
    }

    pub(super) fn tell_all(&mut self) {
        self.tell.extend(self.policies.keys().cloned());
    }

    pub(super) fn send(&mut self, request: Request, differences: Vec<plan::Difference>) {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.effects.push(Effect::Send(ticket, request.clone()));
        self.flights.insert(
            ticket,
            Flight {
                request,
                differences,
            },
        );
    }

    /// Says something, to those who wrote the policy.
    pub(super) fn announce(&mut self, key: &PolicyKey, announcement: Announcement) {
        if self.leading {
            self.effects
                .push(Effect::Announce(key.clone(), Box::new(announcement)));
        }
    }

    pub(super) fn setback(
        &mut self,
        failure: Failure,
        before: Option<&Setback>,
        now: Now,
    ) -> Setback {
        let rare = (self.settings.poll_interval * 10).max(Duration::from_secs(10));
        Setback::new(failure, before, now.monotonic, rare, &mut self.rng)
    }

    /// Gives out the reports that have changed.
    pub(super) fn publish(&mut self, now: Now) {
        if !self.leading || self.stopping {
            self.tell.clear();
            return;
        }
        for key in std::mem::take(&mut self.tell) {
            let Some(report) = self.report(&key, now.monotonic) else {
                continue;
            };
            let Some(held) = self.policies.get_mut(&key) else {
                continue;
            };
            if held.last_report.as_ref() != Some(&report) {
                held.last_report = Some(report.clone());
                self.effects.push(Effect::Report(key, Box::new(report)));
            }
        }
        let report = self.tailnet_report();
        if self.last_tailnet.as_ref() != Some(&report) {
            self.last_tailnet = Some(report.clone());
            self.effects.push(Effect::Tailnet(report));
        }
    }
}
