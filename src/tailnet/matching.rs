//! Which policies still have devices to match with their selectors, in turns of namespaces, and which devices
//! keep changing whether a selector matches them.

use std::collections::BTreeSet;

use super::flapping::Flapping;
use crate::plan::PolicyKey;

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
}

impl Default for Matching {
    fn default() -> Self {
        Self {
            evaluating: BTreeSet::new(),
            last: String::new(),
            share: SHARE,
            flapping: Flapping::default(),
            undecided: BTreeSet::new(),
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

    /// Forgets an edited or deleted policy: its devices are decided again.
    pub fn forget_moves(&mut self, key: &PolicyKey) {
        self.flapping.forget_policy(key);
    }

    /// Notes whether a policy may have a device that the last list lacks.
    pub fn note_undecided(&mut self, key: &PolicyKey, is_undecided: bool) {
        if is_undecided {
            self.undecided.insert(key.clone());
        } else {
            self.undecided.remove(key);
        }
    }

    /// Forgets what the last list left undecided. Returns whether there was anything.
    pub fn end_undecided(&mut self) -> bool {
        !std::mem::take(&mut self.undecided).is_empty()
    }

    /// Whether the last list may lack the device of a policy with settings that count in the whole tailnet.
    pub fn has_undecided(&self) -> bool {
        !self.undecided.is_empty()
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
        PolicyKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
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
