//! The inbox of an engine: of each object only its newest state waits.
//!
//! A busy engine takes messages later than they arrive. If someone edits a policy fifty times a second, the
//! engine must not work through all versions long after the last edit. So a newer state of an object replaces
//! the one that waits. Messages that are more than a state are kept in order: the end of a term, a
//! connection, an object that is deleted before another one of its name is created.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::{DeviceLookup, Failure, Input, Settings};
use crate::{plan::PolicyKey, tailscale::Client};

/// A message to a driver.
#[derive(Debug)]
pub enum Message {
    /// An input for the engine.
    Input(Input),
    /// The client to send requests with from now on, or why there is none. If the settings have changed, they
    /// come with the client: a connection must never do what only the settings of another one permit.
    Connection {
        /// The settings from now on; `None`: unchanged.
        settings: Option<Box<Settings>>,
        /// The client.
        client: Result<Client, Failure>,
    },
    /// A lookup for another controller.
    DeviceLookup(DeviceLookup),
}

/// Messages in the order in which they arrived, without those that a newer one replaces.
pub(super) struct Inbox {
    receiver: mpsc::UnboundedReceiver<Message>,
    waiting: Waiting,
}

impl Inbox {
    pub fn new(receiver: mpsc::UnboundedReceiver<Message>) -> Self {
        Self {
            receiver,
            waiting: Waiting::default(),
        }
    }

    /// The next message; `None` once all senders are gone and all messages are taken. Nothing is lost if this
    /// is cancelled.
    pub async fn next(&mut self) -> Option<Message> {
        self.collect();
        if self.waiting.is_empty() {
            let message = self.receiver.recv().await?;
            // More may have arrived with it, and replace it.
            self.waiting.put(message);
            self.collect();
        }
        self.waiting.pop()
    }

    /// All messages that have arrived.
    pub fn take_all(&mut self) -> Vec<Message> {
        self.collect();
        std::iter::from_fn(|| self.waiting.pop()).collect()
    }

    fn collect(&mut self) {
        while let Ok(message) = self.receiver.try_recv() {
            self.waiting.put(message);
        }
    }
}

/// The subject of a message that a newer message can replace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// A policy whose spec is valid.
    Valid(PolicyKey),
    /// A policy whose spec is invalid. It replaces no valid one, as what the policy last validly declared
    /// still counts.
    Invalid(PolicyKey),
    Gone(PolicyKey),
    Namespace(String),
    Tailnet,
    Settings,
    Poll,
    Edited(Option<PolicyKey>),
}

impl Subject {
    fn of(message: &Message) -> Option<Self> {
        let Message::Input(input) = message else {
            return None;
        };
        Some(match input {
            Input::Policy(declared) if declared.policy.is_ok() => Self::Valid(declared.key.clone()),
            Input::Policy(declared) => Self::Invalid(declared.key.clone()),
            Input::PolicyGone(key) => Self::Gone(key.clone()),
            Input::Namespace(name, _) => Self::Namespace(name.clone()),
            Input::Tailnet(_) => Self::Tailnet,
            Input::Settings(_) => Self::Settings,
            Input::Poll => Self::Poll,
            Input::StatusEdited(policy) => Self::Edited(policy.clone()),
            _ => return None,
        })
    }
}

#[derive(Default)]
struct Waiting {
    messages: BTreeMap<u64, Message>,
    next: u64,
    /// The messages that a newer one can replace.
    subjects: BTreeMap<Subject, u64>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn put(&mut self, message: Message) {
        if is_barrier(&message) {
            // What arrived before stays before it, as it belongs to the earlier term or connection.
            self.subjects.clear();
        }
        let subject = Subject::of(&message);
        let place = subject
            .as_ref()
            .and_then(|subject| self.replace(subject, &message))
            .unwrap_or_else(|| self.new_place());
        if let Some(subject) = subject {
            self.subjects.insert(subject, place);
        }
        self.messages.insert(place, message);
    }

    fn new_place(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Removes what a message replaces. Returns its place in the order.
    fn replace(&mut self, subject: &Subject, message: &Message) -> Option<u64> {
        match subject {
            Subject::Valid(key) => {
                // Never the reverse: behind an invalid state, the engine must have seen the last valid one
                // (docs/decisions/0018).
                let invalid = self.remove_object(&Subject::Invalid(key.clone()), message);
                let valid = self.remove_object(&Subject::Valid(key.clone()), message);
                valid.or(invalid)
            }
            Subject::Invalid(_) => self.remove_object(subject, message),
            Subject::Gone(key) => {
                // Nothing that was declared before matters for an object that is gone.
                self.remove(&Subject::Valid(key.clone()));
                self.remove(&Subject::Invalid(key.clone()));
                self.remove(subject)
            }
            _ => self.remove(subject),
        }
    }

    fn remove(&mut self, subject: &Subject) -> Option<u64> {
        let place = self.subjects.remove(subject)?;
        self.messages.remove(&place);
        Some(place)
    }

    /// Removes a state of the same object. Another object of the name stays: the engine must learn of both.
    fn remove_object(&mut self, subject: &Subject, by: &Message) -> Option<u64> {
        let waiting = self.messages.get(self.subjects.get(subject)?)?;
        if uid(waiting) == uid(by) {
            self.remove(subject)
        } else {
            // Another object of the same name: the engine must see both.
            self.subjects.remove(subject);
            None
        }
    }

    fn pop(&mut self) -> Option<Message> {
        let (place, message) = self.messages.pop_first()?;
        if let Some(subject) = Subject::of(&message)
            // A newer message of the subject may wait at another place.
            && self.subjects.get(&subject) == Some(&place)
        {
            self.subjects.remove(&subject);
        }
        Some(message)
    }
}

fn uid(message: &Message) -> Option<&str> {
    match message {
        Message::Input(Input::Policy(declared)) => Some(&declared.uid),
        _ => None,
    }
}

/// Messages after it belong to another term or connection, and replace nothing before it.
fn is_barrier(message: &Message) -> bool {
    matches!(
        message,
        Message::Connection { .. } | Message::Input(Input::Term(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{convert::fixtures::named_policy, plan::PolicyInput, tailnet::Term};

    fn declared(name: &str, uid: &str, generation: i64) -> PolicyInput {
        let yaml = "{device: {hostname: fra}, exitNode: true}";
        named_policy(name, uid, generation, yaml)
    }

    fn valid(name: &str, generation: i64) -> Input {
        Input::Policy(Box::new(declared(name, "1", generation)))
    }

    fn invalid(name: &str, generation: i64) -> Input {
        let mut declared = declared(name, "1", generation);
        declared.policy = Err(vec!["no".to_owned()]);
        Input::Policy(Box::new(declared))
    }

    fn another(name: &str, generation: i64) -> Input {
        Input::Policy(Box::new(declared(name, "2", generation)))
    }

    fn gone(name: &str) -> Input {
        Input::PolicyGone(declared(name, "1", 1).key)
    }

    /// The messages that an engine takes of these, in short.
    fn taken(inputs: Vec<Input>) -> Vec<String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for input in inputs {
            sender.send(Message::Input(input)).unwrap();
        }
        let taken = Inbox::new(receiver).take_all();
        let short = |message| match message {
            Message::Input(Input::Policy(it)) => {
                let valid = if it.policy.is_ok() { "" } else { "!" };
                format!("{valid}{}/{}/{}", it.key.name, it.uid, it.generation)
            }
            Message::Input(Input::PolicyGone(key)) => format!("gone {}", key.name),
            Message::Input(Input::Namespace(name, labels)) => {
                format!("{name} {}", labels.map_or(0, |labels| labels.len()))
            }
            Message::Input(Input::Term(term)) => format!("term {}", term.is_some()),
            Message::Input(other) => format!("{other:?}"),
            _ => "another".to_owned(),
        };
        taken.into_iter().map(short).collect()
    }

    #[test]
    fn a_newer_generation_replaces_the_one_that_waits() {
        let edits = (1..=50).flat_map(|i| [valid("a", i), valid("b", i)]);
        assert_eq!(taken(edits.collect()), ["a/1/50", "b/1/50"]);
    }

    #[test]
    fn the_last_valid_spec_is_kept_before_an_invalid_one() {
        let edits = vec![valid("a", 1), invalid("a", 2), invalid("a", 3)];
        assert_eq!(taken(edits), ["a/1/1", "!a/1/3"]);
        let edits = (0..20).flat_map(|i| [valid("a", 2 * i), invalid("a", 2 * i + 1)]);
        assert_eq!(taken(edits.collect()), ["a/1/38", "!a/1/39"]);
        let edits = vec![invalid("a", 1), valid("a", 2)];
        assert_eq!(taken(edits), ["a/1/2"]);
    }

    #[test]
    fn a_deleted_object_is_taken_before_the_next_one_of_its_name() {
        let objects = vec![valid("a", 3), gone("a"), another("a", 1), another("a", 2)];
        assert_eq!(taken(objects), ["gone a", "a/2/2"]);
        let objects = (0..20).flat_map(|_| [gone("a"), valid("a", 1), valid("b", 1), gone("a")]);
        assert_eq!(taken(objects.collect()), ["gone a", "b/1/1"]);
        // The watch may miss a deletion.
        let objects = vec![valid("a", 3), another("a", 1)];
        assert_eq!(taken(objects), ["a/1/3", "a/2/1"]);
    }

    #[test]
    fn nothing_is_replaced_across_a_term() {
        let term = || Input::Term(Some(Term::FIRST));
        let inputs = vec![valid("a", 1), Input::Term(None), valid("a", 2), term()];
        assert_eq!(taken(inputs), ["a/1/1", "term false", "a/1/2", "term true"]);
    }

    #[test]
    fn other_states_replace_their_own_kind() {
        let labels = |count: usize| {
            let labels = (0..count).map(|i| (i.to_string(), String::new()));
            Some(labels.collect())
        };
        let inputs = vec![
            Input::Namespace("n".to_owned(), labels(1)),
            Input::Poll,
            Input::PoliciesListed,
            Input::Namespace("m".to_owned(), labels(1)),
            Input::Namespace("n".to_owned(), labels(2)),
            Input::Poll,
        ];
        assert_eq!(taken(inputs), ["n 2", "Poll", "PoliciesListed", "m 1"]);
    }
}
