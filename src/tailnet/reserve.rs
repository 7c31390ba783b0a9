//! Reserves the devices that may be changed next: the tailnet's status names them before the first request.
//!
//! The change limit survives a crash only if no device is changed that a status does not count. One status
//! write for each device would cost too much, so devices are reserved together: as many as are about to be
//! changed, up to [`CHUNK`]. The next process counts a reserved device as changed, by its id, and may change
//! it again for free. So the engine never reserves more devices than the limit leaves. It gives back idle
//! devices.
use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, ReservedDevices, change_budget::ChangeBudget};
use crate::{model::NodeId, plan::next_call};

/// The number of devices that are reserved at once. Recently edited policies may reserve as many more.
const CHUNK: usize = 50;

#[derive(Debug)]
struct Reservation {
    /// The revision of the first record that has it.
    since: u64,
    /// The namespace whose policy changes the device.
    namespace: Option<String>,
}

/// The reserved devices, and the revision that is durable.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    reserved: BTreeMap<NodeId, Reservation>,
    /// Devices that must be changed and are not reserved.
    asked: BTreeSet<NodeId>,
    /// The revision of the record.
    revision: u64,
    /// The newest durable revision.
    recorded: u64,
}

impl Reservations {
    /// Notes that a device must be changed, or no longer.
    pub fn ask(&mut self, id: &NodeId, needed: bool) {
        if !needed {
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

    /// Notes another change of the record. Returns the revision that includes it.
    pub fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether this revision is durable.
    pub fn has_recorded(&self, revision: u64) -> bool {
        revision <= self.recorded
    }

    pub fn devices(&self) -> ReservedDevices {
        let reserved = self.reserved.iter();
        reserved
            .map(|(id, reservation)| (id.clone(), reservation.namespace.clone()))
            .collect()
    }

    /// Gives back all devices.
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
        self.gate.approved_plan().is_none() && self.most_changes().is_some()
    }

    /// Whether a device may be changed: the change is counted durably, or need not be.
    pub(super) fn may_change(&self, id: &NodeId) -> bool {
        self.change_budget.reservations.is_recorded(id) || !self.counts_changes()
    }

    /// A record of the tailnet is durable.
    pub(super) fn tailnet_recorded(&mut self, revision: u64) {
        let reservations = &mut self.change_budget.reservations;
        reservations.recorded = reservations.recorded.max(revision);
        self.dirty.step_all(reservations.reserved.keys().cloned());
    }

    /// Whether a device is about to be changed, or is being changed.
    fn is_changing(&self, id: &NodeId) -> bool {
        let at_rest = self.queues.is_idle(id) || self.queues.written().contains(id);
        self.change_budget.window.is_in_flight(id) || !at_rest || self.dirty.awaits_step(id)
    }

    /// How many more devices the limit leaves, apart from those that are reserved and not changed yet.
    fn room_to_reserve(&self) -> usize {
        let budget = &self.change_budget;
        let reserved = budget.reservations.reserved.keys();
        let unused = reserved.filter(|id| !budget.window.has(id)).count();
        let most = self.most_changes().unwrap_or(usize::MAX);
        most.saturating_sub(budget.window.count() + unused)
    }

    /// The namespace whose policy changes a device next.
    fn changing_namespace(&self, id: &NodeId) -> Option<String> {
        let (_, differences) = next_call(&self.devices.get(id)?.plan, &BTreeSet::new())?;
        let first = differences.first()?;
        Some(first.owner.namespace.clone())
    }

    /// Reserves the devices that must be changed next, and gives back idle ones. To write few records, it
    /// gives back idle devices only if nothing is about to be changed, or to make room.
    pub(super) fn reserve(&mut self) {
        if !self.counts_changes() {
            self.change_budget.reservations.clear();
            return;
        }
        let reserved = self.change_budget.reservations.reserved.keys();
        let idle: Vec<NodeId> = reserved
            .filter(|id| !self.is_changing(id))
            .cloned()
            .collect();
        let reservations = &self.change_budget.reservations;
        let quiet = idle.len() == reservations.reserved.len();
        let unused = |id: &&NodeId| !self.change_budget.window.has(id);
        let unused = idle.iter().filter(unused).count();
        let makes_room = !reservations.asked.is_empty() && (idle.len() >= CHUNK / 2 || unused > 0);
        if quiet || makes_room {
            self.change_budget.give_back(&idle);
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
    /// Whether a change of a device uses up some of the limit. A device that was changed within the hour, or
    /// is approved to exceed the limit, does not, even if held policies need to change it too.
    fn needs_room(&self, id: &NodeId) -> bool {
        let mut needed_by = self.wants.by(id).iter();
        !self.window.has(id) && needed_by.any(|key| !self.held.contains(key))
    }

    /// Gives back idle devices: they count only if they were changed.
    fn give_back(&mut self, idle: &[NodeId]) {
        for id in idle {
            self.reservations.reserved.remove(id);
        }
        if self.note_recent() || !idle.is_empty() {
            self.reservations.revision += 1;
        }
    }
}
