//! Detects machines that keep changing what they report about themselves, so that selectors match them and do
//! not.
//!
//! Tags and users come from the control server; hostname, OS and version come from the machine. So a machine
//! can join and leave the devices of a selector at every poll, at the cost of requests, Events and statuses.
//!
//! | observed                                                | response                           |
//! |---------------------------------------------------------|------------------------------------|
//! | the device joins or leaves by what it reports: a move   | it joins or leaves                 |
//! | three moves within an hour, and it would move again     | it stays, in or out, and is reported |
//! | the selector gives the same result for 15 minutes       | the result counts again            |
//! | its tags or its user change                             | the result counts again            |
//!
//! Moves are in memory only: a restart forgets them.
use std::{collections::BTreeMap, time::Duration};

use super::evaluation::Comparison;
use crate::{
    model::{Device, NodeId, TagSet},
    plan::PolicyKey,
};

const HOUR: Duration = Duration::from_hours(1);
/// After this many moves within an hour, the next one is not made.
const MAX_MOVES: usize = 3;
/// How long a selector must give the same result.
const STABLE: Duration = Duration::from_mins(15);

/// What happens to a device that a selector matches, or no longer matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    /// It follows the selector.
    Free,
    /// It follows the selector again.
    Freed,
    /// It stays as it is from now on.
    Frozen,
    /// It stays as it is.
    StillFrozen,
}

/// The devices that have joined or left selectors within the last hour.
#[derive(Debug, Default)]
pub(super) struct Flapping {
    moves: BTreeMap<(PolicyKey, NodeId), Moves>,
    /// The number of frozen devices.
    frozen: usize,
}

#[derive(Debug)]
struct Moves {
    /// The device's facts from the control server.
    facts: (TagSet, String),
    /// The result of the selector.
    matched: Comparison,
    /// Since when the result is the same.
    since: Duration,
    recent: Vec<Duration>,
    frozen: bool,
    /// It has joined because what it reports cannot be read.
    is_undecided: bool,
}

impl Flapping {
    /// `is_undecided`: the selector matches only because something cannot be read.
    pub fn observe(
        &mut self,
        (key, device): (&PolicyKey, &Device),
        comparison: Comparison,
        is_undecided: bool,
        is_member: bool,
        now: Duration,
    ) -> Membership {
        let of = (key.clone(), device.node_id.clone());
        let moves = (comparison == Comparison::Matches) != is_member;
        // The usual case: nothing is kept for a device that stays where it is.
        if !moves && !self.moves.contains_key(&of) {
            return Membership::Free;
        }
        let facts = (device.tags.clone(), device.user.clone());
        let known = self.moves.entry(of).or_insert_with(|| Moves {
            facts: facts.clone(),
            matched: comparison,
            since: now,
            recent: Vec::new(),
            frozen: false,
            is_undecided,
        });
        if known.matched != comparison {
            known.matched = comparison;
            known.since = now;
        }
        known.recent.retain(|at| now < *at + HOUR);
        // The control server reports tags and users, so such a move is no accident of a machine.
        let by_facts = std::mem::replace(&mut known.facts, facts.clone()) != facts;
        if known.frozen && (by_facts || now >= known.since + STABLE) {
            known.frozen = false;
            self.frozen -= 1;
            return Membership::Freed;
        }
        if known.frozen {
            return Membership::StillFrozen;
        }
        // It must not stay in where it has only been because something could not be read.
        let was_undecided = std::mem::replace(&mut known.is_undecided, is_undecided);
        if !moves || by_facts || is_undecided || was_undecided {
            return Membership::Free;
        }
        // Machines choose their hostnames: one that keeps changing it must not cause endless requests.
        if known.recent.len() >= MAX_MOVES {
            known.frozen = true;
            self.frozen += 1;
            return Membership::Frozen;
        }
        known.recent.push(now);
        Membership::Free
    }

    /// Forgets an edited or deleted policy: its devices are decided again.
    pub fn forget_policy(&mut self, key: &PolicyKey) {
        let frozen = self.of(key).count();
        self.frozen -= frozen;
        self.moves.retain(|(of, _), _| of != key);
    }

    /// Forgets a deleted device. Returns whether its membership of a policy was frozen.
    pub fn forget_device(&mut self, key: &PolicyKey, id: &NodeId) -> bool {
        let gone = self.moves.remove(&(key.clone(), id.clone()));
        let was_frozen = gone.is_some_and(|moves| moves.frozen);
        self.frozen -= usize::from(was_frozen);
        was_frozen
    }

    /// The number of devices that keep joining and leaving, each counted once for each policy.
    pub fn count(&self) -> usize {
        self.frozen
    }

    /// The devices that may move again now. Forgets those that have not moved for an hour.
    pub fn due(&mut self, now: Duration) -> Vec<NodeId> {
        // What has not moved for an hour is forgotten, so that the memory stays bounded.
        self.moves.retain(|_, moves| {
            let has_moved = moves.recent.iter().any(|at| now < *at + HOUR);
            moves.frozen || moves.is_undecided || has_moved
        });
        let due = self
            .moves
            .iter()
            .filter(|(_, moves)| moves.frozen && now >= moves.since + STABLE);
        due.map(|((_, id), _)| id.clone()).collect()
    }

    /// The devices that keep joining and leaving a policy.
    pub fn of<'a>(&'a self, key: &'a PolicyKey) -> impl Iterator<Item = &'a NodeId> {
        let frozen = self.moves.iter().filter(|(_, moves)| moves.frozen);
        frozen.filter_map(move |((of, id), _)| (of == key).then_some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tailnet::tests::key;

    const MINUTE: Duration = Duration::from_mins(1);

    fn device() -> Device {
        Device::plain("n1CNTRL".parse().unwrap())
    }

    /// The selector gives this result for the device, which is in or out.
    fn observe(
        flapping: &mut Flapping,
        device: &Device,
        matches: bool,
        is_member: bool,
        minute: u32,
    ) -> Membership {
        let comparison = if matches {
            Comparison::Matches
        } else {
            Comparison::DoesNotMatch
        };
        let of = (&key("a"), device);
        flapping.observe(of, comparison, false, is_member, MINUTE * minute)
    }

    /// A device that has joined, left, joined, and would leave at the fourth minute: it stays in.
    fn frozen() -> Flapping {
        let mut flapping = Flapping::default();
        for (minute, joins) in [(1, true), (2, false), (3, true)] {
            let moved = observe(&mut flapping, &device(), joins, !joins, minute);
            assert_eq!(moved, Membership::Free);
        }
        let fourth = observe(&mut flapping, &device(), false, true, 4);
        assert_eq!(fourth, Membership::Frozen);
        flapping
    }

    #[test]
    fn the_fourth_move_within_an_hour_is_not_made_and_reported_once() {
        let mut flapping = frozen();
        let again = observe(&mut flapping, &device(), false, true, 5);
        assert_eq!(again, Membership::StillFrozen);
        assert_eq!(flapping.count(), 1);
        assert!(flapping.of(&key("a")).eq([&device().node_id]));
        assert_eq!(flapping.of(&key("b")).count(), 0);
    }

    /// A field that cannot be read at times must not keep a device in that the selector does not match.
    #[test]
    fn joining_while_something_is_unreadable_is_no_move() {
        let (mut flapping, device) = (Flapping::default(), device());
        for minute in 1..10 {
            let joins = Comparison::Matches;
            let of = (&key("a"), &device);
            let joined = flapping.observe(of, joins, true, false, MINUTE * minute);
            assert_eq!(joined, Membership::Free);
            assert!(flapping.due(MINUTE * minute).is_empty());
            let left = observe(&mut flapping, &device, false, true, minute);
            assert_eq!(left, Membership::Free, "minute {minute}");
        }
    }

    #[test]
    fn a_device_moves_again_after_the_same_result_for_a_while() {
        let mut flapping = frozen();
        assert!(flapping.due(MINUTE * 18).is_empty());
        assert_eq!(flapping.due(MINUTE * 19), [device().node_id]);
        let freed = observe(&mut flapping, &device(), false, true, 19);
        assert_eq!((freed, flapping.count()), (Membership::Freed, 0));
    }

    #[test]
    fn another_result_starts_the_wait_again() {
        let mut flapping = frozen();
        observe(&mut flapping, &device(), true, true, 10);
        observe(&mut flapping, &device(), false, true, 18);
        assert!(flapping.due(MINUTE * 19).is_empty());
        assert_eq!(flapping.due(MINUTE * 33), [device().node_id]);
    }

    #[test]
    fn facts_from_the_control_server_count_at_once() {
        let mut flapping = frozen();
        let tagged = Device {
            tags: ["tag:router".parse().unwrap()].into_iter().collect(),
            ..device()
        };
        let freed = observe(&mut flapping, &tagged, false, true, 5);
        assert_eq!(freed, Membership::Freed);
    }

    #[test]
    fn moves_are_forgotten_after_an_hour_and_with_the_policy_or_the_device() {
        let mut flapping = Flapping::default();
        for (minute, joins) in [(1, true), (30, false), (62, true), (92, false), (123, true)] {
            let moved = observe(&mut flapping, &device(), joins, !joins, minute);
            assert_eq!(moved, Membership::Free, "minute {minute}");
        }
        let mut edited = frozen();
        edited.forget_policy(&key("b"));
        assert_eq!(edited.count(), 1);
        edited.forget_policy(&key("a"));
        assert_eq!(edited.count(), 0);
        let mut deleted = frozen();
        assert!(deleted.forget_device(&key("a"), &device().node_id));
        assert!(!deleted.forget_device(&key("a"), &device().node_id));
        assert_eq!(deleted.count(), 0);
    }
}
