use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Failure, Notification, PolicyReport, Settings, TailnetDeclared, TailnetReport, Term};
use crate::{
    model::{Attributes, Device, NodeId, RouteSet},
    plan::{Call, Labels, PolicyInput, PolicyKey, PolicyRecord},
    tailscale::Ability,
};

/// The time at which something came, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the engine started; never jumps. For intervals.
    pub monotonic: Duration,
    /// The wall clock. For expiries, which are points in time.
    pub wall: Timestamp,
}

/// Tells the answer of one request from those of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request to the Tailscale API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// All devices.
    Devices,
    /// One device.
    Device(NodeId),
    /// The routes of one device.
    Routes(NodeId),
    /// The posture attributes of one device.
    Attributes(NodeId),
    /// A call that changes something.
    Write(Call),
}

impl Request {
    /// Its kind in a word, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Devices => "list",
            Self::Device(_) => "device",
            Self::Routes(_) => "routes",
            Self::Attributes(_) => "attributes",
            Self::Write(_) => "write",
        }
    }
}

/// What an accepted request gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The complete list.
    Devices {
        /// All devices of the tailnet.
        devices: Vec<Device>,
        /// The API's clock when it answered, if the answer has it.
        date: Option<Timestamp>,
        /// What the credential is known not to permit.
        lacks: BTreeSet<Ability>,
    },
    /// One device.
    Device(Box<Device>),
    /// The enabled routes of one device.
    Routes(RouteSet),
    /// The custom attributes of one device.
    Attributes(Attributes),
    /// The change was accepted.
    Written,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// A policy was applied or edited, or its status has changed.
    Policy(Box<PolicyInput>),
    /// A policy was deleted, or belongs to another tailnet now.
    PolicyGone(PolicyKey),
    /// Every policy that there was at the start has been handed over.
    PoliciesListed,
    /// There is another client to send requests with, or there is none and why.
    Connection {
        /// The settings that come with it; `None`: as before.
        settings: Option<Box<Settings>>,
        /// Why there is none, if so.
        connected: Result<(), Failure>,
    },
    /// The settings of the connection have changed.
    Settings(Settings),
    /// The labels of a namespace were seen; `None`: it is gone.
    Namespace(String, Option<Labels>),
    /// Somebody else has written to the status of this policy, or of the tailnet (`None`).
    StatusEdited(Option<PolicyKey>),
    /// The annotation of the tailnet's resource, or its status, was seen.
    Tailnet(TailnetDeclared),
    /// Something has changed in the tailnet: the list is to be read at once.
    Poll,
    /// The term in which this process may write; `None`: it does not lead. A term starts only after
    /// policies, tailnets and namespaces have been listed anew, and those lists have been handed over.
    Term(Option<Term>),
    /// One request can be sent at once ([`super::Engine::wants_turn`]). A turn that is not used within
    /// this step is lost to the engine.
    Turn,
    /// A request was not sent, and has no effect: its reasons no longer held.
    NotSent(Ticket),
    /// A request was answered.
    Answered(Ticket, Result<Answer, Failure>),
    /// A report is kept: what it remembers survives a crash.
    Recorded {
        /// Of which policy.
        key: PolicyKey,
        /// Of which object: a later one of the same name keeps nothing of it.
        uid: String,
        /// What is kept.
        record: PolicyRecord,
    },
    /// A report of the tailnet is kept: the one of this revision.
    TailnetRecorded(u64),
    /// Time has passed ([`super::Engine::wake_at`]).
    Wake,
    /// End what is under way and begin nothing.
    Stop,
}

impl Input {
    /// Another client, under the same settings.
    #[must_use]
    pub fn connection(connected: Result<(), Failure>) -> Self {
        Self::Connection {
            settings: None,
            connected,
        }
    }
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a request and hand in its answer under this ticket. At most one in each step, as each needs
    /// a turn. A write is sent only as long as [`super::Engine::still_wants`] it.
    Send {
        /// Tells its answer from others.
        ticket: Ticket,
        /// What to send.
        request: Request,
        /// Not after this time (monotonic), as the reads that it rests on are too old then.
        until: Option<Duration>,
    },
    /// Keep a report of a policy, then hand in [`Input::Recorded`].
    Report(PolicyKey, Box<PolicyReport>),
    /// Keep a report of the tailnet, then hand in [`Input::TailnetRecorded`].
    Tailnet(Box<TailnetReport>),
    /// Say that something was changed or refused.
    Notify(PolicyKey, Box<Notification>),
}
