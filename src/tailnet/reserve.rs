//! Which devices may be changed next: the tailnet's status names them before the first request.
//!
//! The limit of changed devices holds across a crash only if no device is changed that a status does not
//! count. One status write per device would cost too much, so devices are reserved together: as many as
//! are about to be changed, up to [`CHUNK`]. A reserved device counts as changed for the next process,
//! by its id, so that it can be changed again for free: hence never more are reserved than the limit leaves.
//! What is at rest is given back.
use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, ReservedDevices, change_budget::ChangeBudget};
use crate::{model::NodeId, plan::next_call};

/// Devices that are reserved at once; policies that were edited a moment ago may reserve as many more.
const CHUNK: usize = 50;

#[derive(Debug)]
struct Reservation {
    /// The revision of the first record that has it.
    since: u64,
    /// The namespace whose policy is to change the device.
    namespace: Option<String>,
}

/// The devices that are reserved, and what is surely recorded of that.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    reserved: BTreeMap<NodeId, Reservation>,
    /// Those that are to be changed and not reserved.
    asked: BTreeSet<NodeId>,
    /// Counts the records.
    revision: u64,
    /// The newest one that is surely kept.
    recorded: u64,
}

impl Reservations {
    /// A device is to be changed, or no longer.
    pub fn ask(&mut self, id: &NodeId, wanted: bool) {
        if !wanted {
            self.asked.remove(id);
        } else if !self.reserved.contains_key(id) {
            self.asked.insert(id.clone());
        }
    }

    /// Whether the reservation of a device would survive a crash.
    fn is_recorded(&self, id: &NodeId) -> bool {
        let since = self.reserved.get(id);
        since.is_some_and(|reservation| reservation.since <= self.recorded)
    }

    /// Something else is added to the record: gives the revision that has it.
    pub fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether this revision is surely kept.
    pub fn has_recorded(&self, revision: u64) -> bool {
        revision <= self.recorded
    }

    pub fn devices(&self) -> ReservedDevices {
        let reserved = self.reserved.iter();
        reserved
            .map(|(id, reservation)| (id.clone(), reservation.namespace.clone()))
            .collect()
    }

    /// Gives all back.
    pub fn clear(&mut self) {
        self.asked.clear();
        if !self.reserved.is_empty() {
            self.reserved.clear();
            self.revision += 1;
        }
    }
}

impl Engine {
    /// Whether the limit needs to know which devices are changed.
    pub(super) fn counts_changes(&self) -> bool {
        self.approved_plan.is_none() && self.most_changes().is_some()
    }

    /// Whether a change of a device is counted, or need not be.
    pub(super) fn may_change(&self, id: &NodeId) -> bool {
        self.change_budget.reservations.is_recorded(id) || !self.counts_changes()
    }

    /// A record of the tailnet is kept.
    pub(super) fn tailnet_recorded(&mut self, revision: u64) {
        let reservations = &mut self.change_budget.reservations;
        reservations.recorded = reservations.recorded.max(revision);
        self.dirty_steps
            .extend(reservations.reserved.keys().cloned());
    }

    /// Whether a device is about to be changed, or is being changed.
    fn is_changing(&self, id: &NodeId) -> bool {
        let at_rest = self.queues.is_idle(id) || self.queues.written().contains(id);
        self.change_budget.window.is_under_way(id) || !at_rest || self.dirty_steps.contains(id)
    }

    /// How many more devices the limit leaves, those that are reserved and not changed yet aside.
    fn room_to_reserve(&self) -> usize {
        let limiter = &self.change_budget;
        let reserved = limiter.reservations.reserved.keys();
        let unused = reserved.filter(|id| !limiter.window.has(id)).count();
        let most = self.most_changes().unwrap_or(usize::MAX);
        most.saturating_sub(limiter.window.count() + unused)
    }

    /// The namespace whose policy changes a device next.
    fn changing_namespace(&self, id: &NodeId) -> Option<String> {
        let (_, differences) = next_call(&self.devices.get(id)?.plan, &BTreeSet::new())?;
        let first = differences.first()?;
        Some(first.owner.namespace.clone())
    }

    /// Reserves what is to be changed next, and gives back what is at rest: all of it once nothing is
    /// about to be changed, and else only to make room, so that few records are written.
    pub(super) fn reserve(&mut self) {
        if !self.counts_changes() {
            self.change_budget.reservations.clear();
            return;
        }
        let reserved = self.change_budget.reservations.reserved.keys();
        let rests: Vec<NodeId> = reserved
            .filter(|id| !self.is_changing(id))
            .cloned()
            .collect();
        let reservations = &self.change_budget.reservations;
        let quiet = rests.len() == reservations.reserved.len();
        let unused = |id: &&NodeId| !self.change_budget.window.has(id);
        let unused = rests.iter().filter(unused).count();
        let makes_room = !reservations.asked.is_empty() && (rests.len() >= CHUNK / 2 || unused > 0);
        if quiet || makes_room {
            self.change_budget.give_back(&rests);
        }
        let mut room = self.room_to_reserve();
        let asked = std::mem::take(&mut self.change_budget.reservations.asked);
        let urgent = |id: &NodeId| {
            self.devices
                .get(id)
                .is_some_and(|node| self.is_urgent(node))
        };
        let (first, later): (Vec<_>, Vec<_>) = asked.into_iter().partition(urgent);
        let before = self.change_budget.reservations.reserved.len();
        let revision = self.change_budget.reservations.revision + 1;
        for (ids, most) in [(first, 2 * CHUNK), (later, CHUNK)] {
            for id in ids {
                let counts = self.change_budget.needs_room(&id);
                let reservations = &mut self.change_budget.reservations;
                if reservations.reserved.len() >= most || (counts && room == 0) {
                    reservations.asked.insert(id);
                    continue;
                }
                room -= usize::from(counts);
                let reservation = Reservation {
                    since: revision,
                    namespace: self.changing_namespace(&id),
                };
                let reservations = &mut self.change_budget.reservations;
                reservations.reserved.insert(id, reservation);
            }
        }
        if self.change_budget.reservations.reserved.len() > before {
            self.change_budget.reservations.revision = revision;
        }
    }
}

impl ChangeBudget {
    /// Whether a change of a device would use up some of the limit. What was changed within the hour, or
    /// is approved to go over the limit, does not, whatever policies that are held want besides.
    fn needs_room(&self, id: &NodeId) -> bool {
        let mut wanted_by = self.wants.by(id).iter();
        !self.window.has(id) && wanted_by.any(|key| !self.held.contains(key))
    }

    /// What is at rest is counted as it was changed, and no longer reserved.
    fn give_back(&mut self, rests: &[NodeId]) {
        for id in rests {
            self.reservations.reserved.remove(id);
        }
        if self.note_recent() || !rests.is_empty() {
            self.reservations.revision += 1;
        }
    }
}
