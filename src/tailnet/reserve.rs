//! Reserves the devices that may be changed next: the tailnet's status names them before the first request.
//!
//! The change limit survives a crash only if no device is changed that a status does not count. One status
//! write for each device would cost too much, so devices are reserved together: as many as are about to be
//! changed, up to [`CHUNK`]. The next process counts a reserved device as changed, by its id, and may change
//! it again for free. So the engine never reserves more devices than the limit leaves. It gives back idle
//! devices.
use std::collections::{BTreeMap, BTreeSet};

use super::{ReservedDevices, change_budget::ChangeBudget};
use crate::model::NodeId;

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
        // A reserved device needs no second reservation.
        } else if !self.reserved.contains_key(id) {
            self.asked.insert(id.clone());
        }
    }

    /// Whether the reservation of a device would survive a crash.
    pub fn is_recorded(&self, id: &NodeId) -> bool {
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

    /// The reserved devices.
    pub fn reserved(&self) -> impl Iterator<Item = &NodeId> {
        self.reserved.keys()
    }

    /// Takes the devices that must be changed and are not reserved.
    pub fn take_asked(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.asked)
    }

    /// This revision is durable.
    pub fn note_recorded(&mut self, revision: u64) {
        // The confirmation of an older record must not undo that of a newer one.
        self.recorded = self.recorded.max(revision);
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

impl ChangeBudget {
    /// Whether a change of a device uses up some of the limit. A device that was changed within the hour, or
    /// is approved to exceed the limit, does not, even if held policies need to change it too.
    fn needs_room(&self, id: &NodeId) -> bool {
        let mut needed_by = self.wants.by(id).iter();
        !self.window.has(id) && needed_by.any(|key| !self.held.contains(key))
    }

    /// Gives back idle devices: they count only if they were changed. To write few records, this happens only
    /// if nothing is about to be changed, or to make room.
    pub fn give_back(&mut self, idle: &[NodeId]) {
        let is_quiet = idle.len() == self.reservations.reserved.len();
        let unused = idle.iter().filter(|id| !self.window.has(id)).count();
        let makes_room =
            !self.reservations.asked.is_empty() && (idle.len() >= CHUNK / 2 || unused > 0);
        if !is_quiet && !makes_room {
            return;
        }
        for id in idle {
            self.reservations.reserved.remove(id);
        }
        if self.note_recent() || !idle.is_empty() {
            self.reservations.revision += 1;
        }
    }

    /// How many more devices the limit leaves, apart from those that are reserved and not changed yet.
    fn room_to_reserve(&self, most: usize) -> usize {
        let reserved = self.reservations.reserved.keys();
        let unused = reserved.filter(|id| !self.window.has(id)).count();
        most.saturating_sub(self.window.count() + unused)
    }

    /// Reserves devices that must be changed next: first `urgent` ones, then others. `most`: the limit;
    /// `namespace_of`: whose policy changes a device.
    pub fn reserve(
        &mut self,
        urgent: Vec<NodeId>,
        others: Vec<NodeId>,
        most: usize,
        namespace_of: impl Fn(&NodeId) -> Option<String>,
    ) {
        let mut room = self.room_to_reserve(most);
        let before = self.reservations.reserved.len();
        let since = self.reservations.revision + 1;
        for (ids, most) in [(urgent, 2 * CHUNK), (others, CHUNK)] {
            for id in ids {
                let counts = self.needs_room(&id);
                if self.reservations.reserved.len() >= most || (counts && room == 0) {
                    // It stays asked, so that it is reserved once there is room.
                    self.reservations.asked.insert(id);
                    continue;
                }
                room -= usize::from(counts);
                let namespace = namespace_of(&id);
                let reservation = Reservation { since, namespace };
                self.reservations.reserved.insert(id, reservation);
            }
        }
        // Each revision costs a write of the status, so an unchanged record gets none.
        if self.reservations.reserved.len() > before {
            self.reservations.revision = since;
        }
    }
}
