//! Machines that keep changing what they claim of themselves, so that selectors match them and do not.
//!
//! Tags and users are facts of the control server; hostname, OS and version are claims of the machine. By its
//! claims a machine can join and leave a fleet at every poll, at the cost of requests, Events and statuses.
//!
//! | seen                                                    | done                               |
//! |---------------------------------------------------------|------------------------------------|
//! | it joins or leaves a fleet by its claims, a move        | it does                            |
//! | three moves within an hour, and it would move again     | it stays, in or out, and that is reported |
//! | the selector has said the same for a quarter of an hour | that counts, and it may move again |
//! | its tags or its user change                             | what the selector says then counts |
//!
//! Kept in memory only: after a restart it begins anew.
use std::{collections::BTreeMap, time::Duration};

use super::{Engine, Notification, evaluation::Comparison, selectors::FlappingDevices};
use crate::{
    model::{Device, NodeId, TagSet},
    plan::{Binding, PolicyKey},
};

const HOUR: Duration = Duration::from_hours(1);
/// So many moves within an hour are no accident.
const TOO_MANY: usize = 3;
/// For so long a selector must say the same.
const STABLE: Duration = Duration::from_mins(15);

/// What becomes of a device that a selector matches, or no longer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// As the selector says.
    Free,
    /// As the selector says, from now on.
    Freed,
    /// It stays as it is, from now on.
    Frozen,
    /// It stays as it is.
    StillFrozen,
}

/// The devices that have joined or left fleets within the last hour.
#[derive(Debug, Default)]
pub(super) struct Flapping {
    moves: BTreeMap<(PolicyKey, NodeId), Moves>,
    /// How many of them are frozen.
    frozen: usize,
}

#[derive(Debug)]
struct Moves {
    /// What the control server says of the device.
    facts: (TagSet, String),
    /// What the selector says.
    matched: Comparison,
    /// Since when it does.
    since: Duration,
    recent: Vec<Duration>,
    frozen: bool,
}

impl Flapping {
    fn see(
        &mut self,
        key: &PolicyKey,
        device: &Device,
        verdict: Comparison,
        is_member: bool,
        now: Duration,
    ) -> Membership {
        let of = (key.clone(), device.node_id.clone());
        let moves = (verdict == Comparison::Matches) != is_member;
        if !moves && !self.moves.contains_key(&of) {
            return Membership::Free;
        }
        let facts = (device.tags.clone(), device.user.clone());
        let known = self.moves.entry(of).or_insert_with(|| Moves {
            facts: facts.clone(),
            matched: verdict,
            since: now,
            recent: Vec::new(),
            frozen: false,
        });
        if known.matched != verdict {
            known.matched = verdict;
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
        if known.recent.len() >= TOO_MANY {
            known.frozen = true;
            self.frozen += 1;
            return Membership::Frozen;
        }
        known.recent.push(now);
        Membership::Free
    }

    /// A policy was edited or is gone: what it targets is decided anew.
    pub fn forget_policy(&mut self, key: &PolicyKey) {
        let frozen = self.of(key).count();
        self.frozen -= frozen;
        self.moves.retain(|(of, _), _| of != key);
    }

    /// A device is gone. Says whether its membership of a policy was frozen.
    fn forget_device(&mut self, key: &PolicyKey, id: &NodeId) -> bool {
        let gone = self.moves.remove(&(key.clone(), id.clone()));
        let was_frozen = gone.is_some_and(|moves| moves.frozen);
        self.frozen -= usize::from(was_frozen);
        was_frozen
    }

    /// How many devices keep moving in and out of policies, each counted for each of these.
    pub fn count(&self) -> usize {
        self.frozen
    }

    /// The devices that may move again now; forgets those that have not moved for an hour.
    fn due(&mut self, now: Duration) -> Vec<NodeId> {
        let has_moved = |moves: &Moves| moves.recent.iter().any(|at| now < *at + HOUR);
        self.moves
            .retain(|_, moves| moves.frozen || has_moved(moves));
        let due = self.moves.iter();
        let due = due.filter(|(_, moves)| moves.frozen && now >= moves.since + STABLE);
        due.map(|((_, id), _)| id.clone()).collect()
    }

    /// The devices that keep moving in and out of a policy.
    fn of<'a>(&'a self, key: &'a PolicyKey) -> impl Iterator<Item = &'a NodeId> {
        let frozen = self.moves.iter().filter(|(_, moves)| moves.frozen);
        frozen.filter_map(move |((of, id), _)| (of == key).then_some(id))
    }
}

impl Engine {
    /// What counts of what a selector says of a device: nothing new where the device keeps moving.
    pub(super) fn damp(
        &mut self,
        id: &NodeId,
        key: &PolicyKey,
        verdict: Comparison,
        now: Duration,
    ) -> Comparison {
        let held = self.policies.get(key);
        let Some(Binding::Selector(members)) = held.and_then(|held| held.binding.as_ref()) else {
            return verdict;
        };
        let is_member = members.contains(id);
        let Some(device) = self.index.get(id) else {
            if self.flapping.forget_device(key, id) {
                self.dirty_statuses.insert(key.clone());
            }
            return verdict;
        };
        let label = device.label().to_string();
        let membership = self.flapping.see(key, device, verdict, is_member, now);
        if matches!(membership, Membership::Freed | Membership::Frozen) {
            self.dirty_statuses.insert(key.clone());
        }
        if membership == Membership::Frozen {
            let node = id.clone();
            self.notify(key, Notification::Flapping { node, label });
        }
        match membership {
            Membership::Free | Membership::Freed => verdict,
            _ if is_member => Comparison::Matches,
            _ => Comparison::DoesNotMatch,
        }
    }

    /// Devices of which the selectors have said the same for a while are compared anew.
    pub(super) fn end_flapping(&mut self, now: Duration) {
        let due = self.flapping.due(now);
        self.dirty_matches.extend(due);
    }

    pub(super) fn flapping_of(&self, key: &PolicyKey) -> Option<FlappingDevices> {
        let mut flapping = self.flapping.of(key);
        let device = self.index.get(flapping.next()?)?;
        Some(FlappingDevices {
            count: flapping.count() + 1,
            node: device.node_id.clone(),
            label: device.label().to_string(),
        })
    }
}
