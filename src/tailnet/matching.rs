//! Which policies still have devices to match with their selectors, in turns of namespaces, and which devices
//! keep changing whether a selector matches them.

use std::collections::{BTreeMap, BTreeSet};

use super::flapping::Flapping;
use crate::{model::NodeId, plan::PolicyKey};

/// The evaluation steps in one step of the engine: about a millisecond. An edit of another policy waits for
/// the share in progress, more than once until its request is sent.
const SHARE: usize = 100_000;

/// The state of matching that belongs to no single policy.
#[derive(Debug)]
pub(super) struct Matching {
    /// Policies whose selector has devices left to match, or has just matched the last one.
    evaluating: BTreeSet<PolicyKey>,
    /// The namespace that had the last turn.
    last: String,
    /// The evaluation steps in one step of the engine.
    share: usize,
    flapping: Flapping,
    /// Policies with settings that count in the whole tailnet, whose device the last list may lack.
    undecided: BTreeSet<PolicyKey>,
    /// The devices that have probably replaced the bound ones of policies.
    successors: BTreeMap<PolicyKey, NodeId>,
    /// The number of the list after which they were found.
    successors_of: u64,
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            evaluating: BTreeSet::new(),
            last: String::new(),
            share: SHARE,
            flapping: Flapping::default(),
            undecided: BTreeSet::new(),
            successors: BTreeMap::new(),
            successors_of: 0,
        }
    }
}

impl Matching {
    /// A policy has devices to match.
    pub fn begin(&mut self, key: &PolicyKey) {
        self.evaluating.insert(key.clone());
    }

    /// A policy has no devices to match.
    pub fn end(&mut self, key: &PolicyKey) {
        self.evaluating.remove(key);
    }

    /// The number of policies with devices to match.
    pub fn left(&self) -> usize {
        self.evaluating.len()
    }

    /// Forgets an edited or deleted policy: its devices are decided again.
    pub fn forget_moves(&mut self, key: &PolicyKey) {
        self.flapping.forget_policy(key);
    }

    /// Notes whether a policy may have a device that the last list lacks. Returns whether it was the last one of
    /// which that was unknown.
    #[must_use]
    pub fn note_undecided(&mut self, key: &PolicyKey, is_undecided: bool) -> bool {
        if is_undecided {
            self.undecided.insert(key.clone());
            return false;
        }
        self.undecided.remove(key) && self.undecided.is_empty()
    }

    /// Forgets what the last list left undecided. Returns whether there was anything.
    pub fn end_undecided(&mut self) -> bool {
        !std::mem::take(&mut self.undecided).is_empty()
    }

    /// Whether the last list may lack the device of a policy with settings that count in the whole tailnet.
    pub fn has_undecided(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// Whether successors must be found: once for each list.
    pub fn take_list(&mut self, list: u64) -> bool {
        std::mem::replace(&mut self.successors_of, list) != list
    }

    /// Notes which device has probably replaced that of a policy. Returns whether it is another one than before.
    pub fn note_successor(&mut self, key: &PolicyKey, successor: Option<NodeId>) -> bool {
        let after = successor.clone();
        let before = match successor {
            Some(id) => self.successors.insert(key.clone(), id),
            None => self.successors.remove(key),
        };
        before != after
    }

    /// The device that has probably replaced that of a policy.
    pub fn successor(&self, key: &PolicyKey) -> Option<&NodeId> {
        self.successors.get(key)
    }

    /// Whether one share did not suffice.
    pub fn is_evaluating(&self) -> bool {
        !self.evaluating.is_empty()
    }

    /// The policies with devices to match.
    pub fn evaluating(&self) -> impl Iterator<Item = &PolicyKey> {
        self.evaluating.iter()
    }

    /// The evaluation steps in one step of the engine.
    pub const fn share(&self) -> usize {
        self.share
    }

    /// Gives the turn to a policy of the namespace after the one that had the last turn, out of those for which
    /// `waits` is true.
    pub fn next_turn(&mut self, waits: impl Fn(&PolicyKey) -> bool) -> Option<PolicyKey> {
        let mut waiting = self.evaluating.iter().filter(|key| waits(key));
        let first = waiting.clone().next();
        let after = waiting.find(|key| key.namespace > self.last);
        let next = after.or(first)?.clone();
        self.last.clone_from(&next.namespace);
        Some(next)
    }

    /// The devices that keep changing whether a selector matches them.
    pub const fn flapping(&self) -> &Flapping {
        &self.flapping
    }

    /// The same, to note what a selector matches now.
    pub fn flapping_mut(&mut self) -> &mut Flapping {
        &mut self.flapping
    }

    /// Makes the share small, for tests.
    #[cfg(test)]
    pub fn set_share(&mut self, share: usize) {
        self.share = share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> PolicyKey {
        PolicyKey::new(namespace, name)
    }

    #[test]
    fn namespaces_take_turns_whatever_the_number_of_their_policies() {
        let mut matching = Matching::default();
        for name in ["1", "2", "3"] {
            matching.begin(&key("a", name));
        }
        matching.begin(&key("b", "1"));
        let all = |_: &PolicyKey| true;
        let turns: Vec<_> = (0..4).filter_map(|_| matching.next_turn(all)).collect();
        let turns: Vec<&str> = turns.iter().map(|key| key.namespace.as_str()).collect();
        assert_eq!(turns, ["a", "b", "a", "b"]);
    }

    #[test]
    fn another_successor_is_noted_once() {
        let mut matching = Matching::default();
        let (policy, id) = (key("a", "1"), "n1CNTRL".parse::<NodeId>().unwrap());
        assert!(!matching.note_successor(&policy, None));
        assert!(matching.note_successor(&policy, Some(id.clone())));
        assert!(!matching.note_successor(&policy, Some(id.clone())));
        assert_eq!(matching.successor(&policy), Some(&id));
        assert!(matching.note_successor(&policy, None) && matching.successor(&policy).is_none());
    }

    #[test]
    fn a_policy_without_devices_to_match_has_no_turn() {
        let mut matching = Matching::default();
        matching.begin(&key("a", "1"));
        matching.begin(&key("a", "2"));
        let second = matching.next_turn(|key| key.name == "2");
        assert_eq!(second, Some(key("a", "2")));
        matching.end(&key("a", "1"));
        matching.end(&key("a", "2"));
        assert!(!matching.is_evaluating() && matching.next_turn(|_| true).is_none());
    }
}
