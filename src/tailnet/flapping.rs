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
}

impl Flapping {
    pub fn observe(
        &mut self,
        key: &PolicyKey,
        device: &Device,
        comparison: Comparison,
        is_member: bool,
        now: Duration,
    ) -> Membership {
        let of = (key.clone(), device.node_id.clone());
        let moves = (comparison == Comparison::Matches) != is_member;
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
        });
        if known.matched != comparison {
            known.matched = comparison;
            known.since = now;
        }
        known.recent.retain(|at| now < *at + HOUR);
        let by_facts = std::mem::replace(&mut known.facts, facts.clone()) != facts;
        if known.frozen && (by_facts || now >= known.since + STABLE) {
            known.frozen = false;
            self.frozen -= 1;
            return Membership::Freed;
        }
        if known.frozen {
            return Membership::StillFrozen;
        }
        if !moves || by_facts {
            return Membership::Free;
        }
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
        let has_moved = |moves: &Moves| moves.recent.iter().any(|at| now < *at + HOUR);
        self.moves
            .retain(|_, moves| moves.frozen || has_moved(moves));
        let due = self.moves.iter();
        let due = due.filter(|(_, moves)| moves.frozen && now >= moves.since + STABLE);
        due.map(|((_, id), _)| id.clone()).collect()
    }

    /// The devices that keep joining and leaving a policy.
    pub fn of<'a>(&'a self, key: &'a PolicyKey) -> impl Iterator<Item = &'a NodeId> {
        let frozen = self.moves.iter().filter(|(_, moves)| moves.frozen);
        frozen.filter_map(move |((of, id), _)| (of == key).then_some(id))
    }
}
