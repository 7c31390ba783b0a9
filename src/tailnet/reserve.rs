//! Reserves the devices that may be changed next: the tailnet's status names them before the first request.
//!
//! The change limit survives a crash only if no device is changed that a status does not count. One status
//! write for each device would cost too much, so devices are reserved together: as many as are about to be
//! changed, up to [`CHUNK`]. The next process counts a reserved device as changed, by its id, and may change
//! it again for free. So the engine never reserves more devices than the limit leaves. It gives back idle
//! devices.
use std::collections::{BTreeMap, BTreeSet};

use super::ReservedDevices;
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

    /// Gives back idle devices. To write few records, this happens only if nothing is about to be changed, or
    /// to make room. Returns whether it has happened. `was_changed`: the device counts against the limit even
    /// without a reservation.
    pub fn give_back(&mut self, idle: &[NodeId], was_changed: impl Fn(&NodeId) -> bool) -> bool {
        let is_quiet = idle.len() == self.reserved.len();
        let has_unused = idle.iter().any(|id| !was_changed(id));
        let makes_room = !self.asked.is_empty() && (idle.len() >= CHUNK / 2 || has_unused);
        if !is_quiet && !makes_room {
            return false;
        }
        for id in idle {
            self.reserved.remove(id);
        }
        true
    }

    /// Reserves devices: first `urgent` ones, then others. `room`: how many of those that count
    /// (`needs_room`) the limit leaves; `namespace_of`: whose policy changes a device.
    pub fn reserve(
        &mut self,
        (urgent, others): (Vec<NodeId>, Vec<NodeId>),
        mut room: usize,
        needs_room: impl Fn(&NodeId) -> bool,
        namespace_of: impl Fn(&NodeId) -> Option<String>,
    ) {
        let before = self.reserved.len();
        let since = self.revision + 1;
        // Urgent devices find a place even if routine ones have filled a chunk.
        for (ids, most) in [(urgent, 2 * CHUNK), (others, CHUNK)] {
            for id in ids {
                let counts = needs_room(&id);
                if self.reserved.len() >= most || (counts && room == 0) {
                    // It stays asked, so that it is reserved once there is room.
                    self.asked.insert(id);
                    continue;
                }
                room -= usize::from(counts);
                let namespace = namespace_of(&id);
                self.reserved.insert(id, Reservation { since, namespace });
            }
        }
        // Each revision costs a write of the status, so an unchanged record gets none.
        if self.reserved.len() > before {
            self.revision = since;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        format!("n{number:03}CNTRL").parse().unwrap()
    }

    fn nodes(numbers: std::ops::Range<usize>) -> Vec<NodeId> {
        numbers.map(node).collect()
    }

    /// Reserves routine devices, each of which counts.
    fn reserve(reservations: &mut Reservations, ids: Vec<NodeId>, room: usize) {
        reservations.reserve((Vec::new(), ids), room, |_| true, |_| None);
    }

    #[test]
    fn a_device_may_be_changed_once_the_record_with_its_reservation_is_durable() {
        let mut reservations = Reservations::default();
        reserve(&mut reservations, nodes(0..1), 9);
        let first = reservations.revision();
        assert!(!reservations.is_recorded(&node(0)));
        reserve(&mut reservations, nodes(1..2), 9);
        reservations.note_recorded(first);
        assert!(reservations.is_recorded(&node(0)) && !reservations.is_recorded(&node(1)));
        reservations.note_recorded(reservations.revision());
        // The confirmation of the older record arrives late.
        reservations.note_recorded(first);
        assert!(reservations.is_recorded(&node(1)) && reservations.has_recorded(first + 1));
    }

    #[test]
    fn a_device_without_room_stays_asked_and_costs_no_record() {
        let mut reservations = Reservations::default();
        reserve(&mut reservations, nodes(0..3), 2);
        assert_eq!(reservations.devices().len(), 2);
        let revision = reservations.revision();
        let asked: Vec<NodeId> = reservations.take_asked().into_iter().collect();
        assert_eq!(asked, [node(2)]);
        reserve(&mut reservations, asked.clone(), 0);
        assert_eq!(reservations.revision(), revision);
        // A device whose change is free needs no room.
        let namespace = |_: &NodeId| Some("network".to_owned());
        reservations.reserve((Vec::new(), asked), 0, |_| false, namespace);
        assert_eq!(reservations.devices()[&node(2)].as_deref(), Some("network"));
        assert_eq!(reservations.revision(), revision + 1);
    }

    #[test]
    fn devices_of_edited_policies_are_reserved_beyond_the_chunk_of_the_others() {
        let mut reservations = Reservations::default();
        reserve(&mut reservations, nodes(0..60), 500);
        assert_eq!(reservations.devices().len(), CHUNK);
        reservations.reserve((nodes(100..180), Vec::new()), 500, |_| true, |_| None);
        assert_eq!(reservations.devices().len(), 2 * CHUNK);
    }

    #[test]
    fn idle_devices_are_given_back_once_all_are_idle_or_others_need_the_room() {
        let mut reservations = Reservations::default();
        reserve(&mut reservations, nodes(0..3), 9);
        assert!(!reservations.give_back(&nodes(0..2), |_| false));
        reservations.ask(&node(9), true);
        // What was changed counts anyway, so giving it back makes no room.
        assert!(!reservations.give_back(&nodes(0..2), |_| true));
        assert!(reservations.give_back(&nodes(0..2), |_| false));
        assert!(reservations.reserved().eq([&node(2)]));
        assert!(reservations.give_back(&nodes(2..3), |_| true));
        assert_eq!(reservations.reserved().count(), 0);
    }

    #[test]
    fn a_reserved_device_needs_no_second_reservation_and_clearing_costs_one_record() {
        let mut reservations = Reservations::default();
        reserve(&mut reservations, nodes(0..1), 9);
        reservations.ask(&node(0), true);
        reservations.ask(&node(1), true);
        reservations.ask(&node(1), false);
        assert!(reservations.take_asked().is_empty());
        let revision = reservations.revision();
        reservations.clear();
        reservations.clear();
        assert_eq!(reservations.revision(), revision + 1);
    }
}
