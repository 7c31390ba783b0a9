//! What the answers to writes mean for the next ones: what is so already is not asked for again, what may be so
//! is read first, and what was refused waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::told::EngineInputs;
use crate::{
    model::{AttributeKey, DesiredAttribute, NodeId, Reason},
    plan::{Call, PolicyKey},
    tailnet::{Answer, Failure, Input, Request, Retry, Ticket},
};

/// The shortest pause after a failure that only an edit ends: ten polls, less the jitter.
const RARELY: Duration = Duration::from_mins(8);

/// One change of one device.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    Attribute(NodeId, AttributeKey, Option<DesiredAttribute>),
    Other(Call),
}

impl Entry {
    /// Everything that a request asks for.
    fn all(call: &Call) -> Vec<Self> {
        let Call::WriteAttributes(nodes) = call else {
            return vec![Self::Other(call.clone())];
        };
        let entries = nodes.iter().flat_map(|(id, writes)| {
            let writes = writes.iter();
            writes.map(|(key, desired)| Self::Attribute(id.clone(), key.clone(), desired.clone()))
        });
        entries.collect()
    }

    fn device(&self) -> &NodeId {
        match self {
            Self::Attribute(id, ..) => id,
            Self::Other(call) => call.nodes()[0],
        }
    }

    fn is_attribute(&self) -> bool {
        matches!(self, Self::Attribute(..))
    }

    /// Whether it is about the same field of the same device.
    fn has_field_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Attribute(id, key, _), Self::Attribute(of, named, _)) => {
                id == of && key == named
            }
            (Self::Other(Call::Set(id, value)), Self::Other(Call::Set(of, named))) => {
                id == of && value.setting() == named.setting()
            }
            (Self::Other(call), Self::Other(other)) => {
                std::mem::discriminant(call) == std::mem::discriminant(other)
                    && self.device() == Self::Other(other.clone()).device()
            }
            _ => false,
        }
    }
}

/// The answers to the writes of a process.
#[derive(Debug, Default)]
pub struct Answers {
    /// Devices whose attributes were read since the last connection or term.
    read: BTreeSet<NodeId>,
    /// What was accepted and not read since.
    accepted: Vec<Entry>,
    /// What may have been accepted and was not read since, with the size of its batch.
    doubtful: Vec<(usize, Entry)>,
    /// What was refused for good, and when.
    refused: Vec<(Duration, Entry)>,
    /// The requests of a former connection or term: their refusal tells nothing about another credential.
    former: BTreeSet<Ticket>,
    /// The generation and the approvals of each policy, and the approvals on the tailnet.
    declared: BTreeMap<Option<PolicyKey>, String>,
}

impl EngineInputs {
    /// Notes an input that may be the answer to a request.
    pub fn note_answer(&mut self, input: &Input, now: Duration) {
        let request = match input {
            Input::Answered(ticket, _) => self.in_flight.get(ticket).cloned(),
            _ => None,
        };
        self.answers.note(input, request.as_ref(), now);
        if matches!(input, Input::Connection { .. } | Input::Term(_)) {
            self.answers.former = self.in_flight.keys().copied().collect();
        }
    }

    /// A request was not sent. If it is a part of a split batch, the whole is asked for again.
    pub fn note_not_sent(&mut self, request: &Request) {
        if let Request::Write(call) = request {
            let is_part =
                |entry: &Entry| entry.is_attribute() && call.nodes().contains(&entry.device());
            self.answers.doubtful.retain(|(_, entry)| !is_part(entry));
        }
    }

    /// The answers so far allow this request.
    pub fn check_answers(&self, call: &Call, now: Duration) {
        let Answers {
            read,
            accepted,
            doubtful,
            refused,
            ..
        } = &self.answers;
        let entries = Entry::all(call);
        for entry in &entries {
            let id = entry.device();
            let unread = entry.is_attribute() && !read.contains(id);
            assert!(
                !unread,
                "{entry:?}, and the attributes of {id} have not been read"
            );
            assert!(!accepted.contains(entry), "{entry:?} was accepted already");
            // A batch that fails again is split at once, to find the entry that fails.
            let in_doubt = doubtful.iter().find(|(size, it)| {
                it.device() == id
                    && (!it.is_attribute() || entry.is_attribute() && entries.len() >= *size)
            });
            assert!(
                in_doubt.is_none(),
                "{entry:?} before a read shows the outcome of {in_doubt:?}"
            );
            let waits = refused
                .iter()
                .find(|(at, it)| it == entry && now < *at + RARELY);
            assert!(waits.is_none(), "{entry:?} is repeated after {waits:?}");
        }
    }
}

impl Answers {
    fn note(&mut self, input: &Input, request: Option<&Request>, now: Duration) {
        match input {
            Input::Policy(policy) => {
                let declares = format!("{} {:?}", policy.generation, policy.approvals);
                self.note_declared(Some(policy.key.clone()), declares);
            }
            Input::Tailnet(tailnet) => {
                self.note_declared(None, format!("{:?}", tailnet.approvals));
            }
            Input::PolicyGone(_) | Input::Settings(_) | Input::Namespace(..) => {
                self.refused.clear();
            }
            Input::Connection { .. } | Input::Term(_) => {
                let declared = std::mem::take(&mut self.declared);
                *self = Self {
                    declared,
                    ..Self::default()
                };
            }
            Input::Answered(ticket, answer) => match (request, answer) {
                (Some(Request::Write(call)), Ok(_)) => self.note_accepted(call),
                (Some(Request::Write(_)), Err(failure))
                    if !failure.unknown_outcome && self.former.contains(ticket) => {}
                (Some(Request::Write(call)), Err(failure)) => self.note_failed(call, failure, now),
                (_, Ok(Answer::Devices { devices, .. })) => {
                    let listed: BTreeSet<&NodeId> = devices.iter().map(|it| &it.node_id).collect();
                    self.forget(|entry| !entry.is_attribute() && listed.contains(entry.device()));
                }
                (Some(Request::Device(id) | Request::Routes(id)), Ok(_)) => {
                    self.forget(|entry| !entry.is_attribute() && entry.device() == id);
                }
                // One that comes back may be another one.
                (Some(Request::Device(id)), Err(failure))
                    if failure.reason == Reason::DeviceNotFound =>
                {
                    self.refused.retain(|(_, entry)| entry.device() != id);
                }
                (Some(Request::Attributes(id)), Ok(_)) => {
                    self.read.insert(id.clone());
                    self.forget(|entry| entry.is_attribute() && entry.device() == id);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// An edit may be what a refused request waits for.
    fn note_declared(&mut self, by: Option<PolicyKey>, declares: String) {
        if self.declared.get(&by) != Some(&declares) {
            self.declared.insert(by, declares);
            self.refused.clear();
        }
    }

    fn note_accepted(&mut self, call: &Call) {
        for entry in Entry::all(call) {
            self.accepted.retain(|it| !it.has_field_of(&entry));
            // Whatever became of an earlier request, this one came after it.
            self.doubtful.retain(|(_, it)| !it.has_field_of(&entry));
            self.accepted.push(entry);
        }
        self.refused
            .retain(|(_, it)| !call.nodes().contains(&it.device()));
    }

    fn note_failed(&mut self, call: &Call, failure: &Failure, now: Duration) {
        let entries = Entry::all(call);
        if failure.unknown_outcome {
            let size = entries.len();
            self.doubtful
                .extend(entries.into_iter().map(|entry| (size, entry)));
        // A batch that is refused is split until the entry is found. A device that was not found may be back.
        } else if failure.retry == Retry::Never
            && failure.reason != Reason::DeviceNotFound
            && entries.len() == 1
        {
            self.refused
                .extend(entries.into_iter().map(|entry| (now, entry)));
        }
    }

    /// A read shows the outcome of these entries.
    fn forget(&mut self, shows: impl Fn(&Entry) -> bool) {
        self.accepted.retain(|entry| !shows(entry));
        self.doubtful.retain(|(_, entry)| !shows(entry));
    }
}
