use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{Failure, Notification, PolicyReport, Settings, TailnetDeclared, TailnetReport, Term};
use crate::{
    model::{Attributes, Device, NodeId, RouteSet, UnreadableDevices},
    plan::{Call, Labels, PolicyInput, PolicyKey, PolicyRecord},
    tailscale::Ability,
};

/// Identifies a request, so that its answer can be assigned to it.
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
    /// A request that changes something.
    Write(Call),
}

impl Request {
    /// Its kind, for logs.
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

/// The answer to an accepted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The complete list.
    Devices {
        /// All devices of the tailnet.
        devices: Vec<Device>,
        /// The devices whose identity cannot be read: they are in the tailnet, and in no other field.
        skipped: UnreadableDevices,
        /// The API's clock when it answered, if the answer has it.
        date: Option<Timestamp>,
        /// The scopes that the credential is known to lack.
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

/// An input of the engine.
#[derive(Debug)]
pub enum Input {
    /// A policy was applied or edited, or its status has changed.
    Policy(Box<PolicyInput>),
    /// A policy was deleted, or belongs to another tailnet now.
    PolicyGone(PolicyKey),
    /// All policies that existed at the start have been handed over.
    PoliciesListed,
    /// There is another client to send requests with, or none.
    Connection {
        /// The settings that come with it; `None`: unchanged.
        settings: Option<Box<Settings>>,
        /// Why there is none.
        connected: Result<(), Failure>,
    },
    /// The settings of the connection have changed.
    Settings(Settings),
    /// The labels of a namespace; `None`: the namespace is gone.
    Namespace(String, Option<Labels>),
    /// Someone else has written to the status of this policy, or of the tailnet (`None`).
    StatusEdited(Option<PolicyKey>),
    /// The annotation or the status of the tailnet's resource.
    Tailnet(TailnetDeclared),
    /// Something has changed in the tailnet: poll at once.
    Poll,
    /// The term in which this process may write; `None`: it does not lead. A term starts only after policies,
    /// tailnets and namespaces have been listed again and handed over.
    Term(Option<Term>),
    /// One request can be sent at once ([`super::Engine::wants_turn`]). A turn that is not used within this
    /// step is lost.
    Turn,
    /// A request was not sent and has no effect: its reasons no longer held.
    NotSent(Ticket),
    /// A request was answered.
    Answered(Ticket, Result<Answer, Failure>),
    /// The report of a policy is recorded: its record survives a crash.
    Recorded {
        /// The policy.
        key: PolicyKey,
        /// The uid of the object: a later object of the same name has its own record.
        uid: String,
        /// The durable record.
        record: Arc<PolicyRecord>,
    },
    /// The report of the tailnet with this revision is recorded.
    TailnetRecorded(u64),
    /// Time has passed ([`super::Engine::wake_at`]).
    Wake,
    /// Finish the requests in flight and begin nothing.
    Stop,
}

impl Input {
    /// Another client with unchanged settings.
    #[must_use]
    pub fn connection(connected: Result<(), Failure>) -> Self {
        Self::Connection {
            settings: None,
            connected,
        }
    }
}

/// An effect to carry out.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a request and hand in its answer under this ticket. There is at most one in each step, as each
    /// needs a turn. A write is sent only while [`super::Engine::still_wants`] it.
    Send {
        /// Identifies its answer.
        ticket: Ticket,
        /// The request.
        request: Request,
        /// Not after this time (monotonic), as the reads that it depends on are too old then.
        until: Option<Duration>,
    },
    /// Record a report of a policy, then hand in [`Input::Recorded`].
    Report(PolicyKey, Box<PolicyReport>),
    /// Record a report of the tailnet, then hand in [`Input::TailnetRecorded`].
    Tailnet(Box<TailnetReport>),
    /// Notify people of a change or a failure.
    Notify(PolicyKey, Box<Notification>),
}
