//! One of two controller processes: an engine, the objects from its watches, its lease, and its reports,
//! connected as the tailnet registry, the driver, and the status writer do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::store::{Object, TailnetObject};
use crate::{
    plan::PolicyKey,
    tailnet::{Engine, PolicyReport, Request, TailnetReport, Term, Ticket},
};

/// The holder stops leading this long after the last renewal that it knows of.
pub const LEADS_FOR: Duration = Duration::from_secs(10);
/// Another process takes the lease this long after the last renewal.
pub const TAKEN_AFTER: Duration = Duration::from_secs(15);

/// A status write in flight.
#[derive(Debug, Clone)]
pub struct Writing {
    pub report: Box<PolicyReport>,
    pub term: Term,
    pub over: u64,
    pub tries: u32,
    /// Distinguishes it from another write for the same policy.
    pub number: u64,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Debug)]
pub struct Process {
    /// Distinguishes this life of the process from all others.
    pub life: u64,
    pub engine: Engine,
    /// Killed, and not started again yet.
    pub dead: bool,
    /// Whether the API server can be reached.
    pub online: bool,
    /// Stopped until this time, as by SIGSTOP.
    pub paused: Option<Duration>,
    /// The objects from its watches and its own writes.
    pub board: BTreeMap<PolicyKey, Object>,
    pub tailnet: Option<TailnetObject>,
    /// The policies that the engine has seen, and whether the tailnet was suspended.
    pub shown: BTreeMap<PolicyKey, Object>,
    pub suspended: bool,
    /// The start of the watches. Events of earlier watches are ignored.
    pub round: u64,
    /// When the last event of a watch is shown.
    pub shown_at: Duration,
    pub listed_once: bool,
    /// The last term that it won.
    pub term: Term,
    /// When it won that term.
    pub won_at: Duration,
    pub leads_until: Duration,
    /// The round of listing that must complete before the term starts.
    pub starts_with: Option<u64>,
    /// The term that the engine knows.
    pub engine_term: Option<Term>,
    pub reports: BTreeMap<PolicyKey, PolicyReport>,
    pub busy: BTreeMap<PolicyKey, u64>,
    pub tailnet_report: Option<TailnetReport>,
    pub tailnet_busy: Option<u64>,
    /// Writes that wait for a connection.
    pub waiting: BTreeMap<Ticket, Request>,
    pub revoked: BTreeSet<Ticket>,
    pub wake: Option<Duration>,
    pub waits_for_turn: bool,
}

impl Process {
    pub fn new(life: u64, engine: Engine) -> Self {
        Self {
            life,
            engine,
            dead: false,
            online: true,
            paused: None,
            board: BTreeMap::new(),
            tailnet: None,
            shown: BTreeMap::new(),
            suspended: false,
            round: 0,
            shown_at: Duration::ZERO,
            listed_once: false,
            term: Term::FIRST,
            won_at: Duration::ZERO,
            leads_until: Duration::ZERO,
            starts_with: None,
            engine_term: None,
            reports: BTreeMap::new(),
            busy: BTreeMap::new(),
            tailnet_report: None,
            tailnet_busy: None,
            waiting: BTreeMap::new(),
            revoked: BTreeSet::new(),
            wake: None,
            waits_for_turn: false,
        }
    }

    pub fn is_due(&self, now: Duration) -> bool {
        self.wake.is_some_and(|at| at <= now)
    }

    /// Whether the process leads in this term, by its own clock.
    pub fn leads(&self, term: Term, now: Duration) -> bool {
        self.term == term && now < self.leads_until
    }

    /// The term in which reports of the engine may still be written.
    pub fn may_report(&self, now: Duration) -> Option<Term> {
        self.engine_term.filter(|term| self.leads(*term, now))
    }

    /// Drops reports that are not sent yet: no report outlives its term. Writes in flight cannot be
    /// recalled.
    pub fn drop_reports(&mut self) {
        self.reports.clear();
        self.busy.clear();
        self.tailnet_report = None;
        self.tailnet_busy = None;
    }

    /// Stores an object from a watch. An object older than the known one is ignored.
    pub fn note(&mut self, key: &PolicyKey, object: Option<&Object>) {
        let Some(object) = object else {
            self.board.remove(key);
            return;
        };
        let known = self.board.get(key);
        if known.is_none_or(|known| known.version <= object.version) {
            self.board.insert(key.clone(), object.clone());
        }
    }
}
