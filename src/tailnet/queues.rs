use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::NodeId;

/// Where a device stands in the work; one that is in no queue rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is to be done until something changes or its alarm rings.
    Resting,
    /// Something is under way: a request, or a report that must be kept first.
    Waiting,
    /// A request of its own can be sent, for a policy that is new or edited.
    Urgent,
    /// A request of its own can be sent.
    Routine,
    /// Attributes can be written, together with those of other devices.
    Batch,
    /// What was written is to be looked at.
    Written,
}

/// The devices for which something is to be done, by what that is. Kept up to date one by one, so
/// that a step costs what it changes and not a walk over all devices.
#[derive(Debug, Default)]
pub(super) struct Queues {
    places: BTreeMap<NodeId, Place>,
    urgent: BTreeSet<NodeId>,
    routine: BTreeSet<NodeId>,
    batch: BTreeSet<NodeId>,
    written: BTreeSet<NodeId>,
    waiting: usize,
    /// When a device joined the batch last.
    pub batch_grew: Duration,
}

impl Queues {
    /// Moves a device to a place.
    pub fn put(&mut self, id: &NodeId, place: Place, now: Duration) {
        let before = match place {
            Place::Resting => self.places.remove(id),
            _ => self.places.insert(id.clone(), place),
        };
        if before == Some(place) {
            return;
        }
        match before {
            Some(Place::Waiting) => self.waiting -= 1,
            Some(place) => {
                if let Some(queue) = self.queue(place) {
                    queue.remove(id);
                }
            }
            None => {}
        }
        match place {
            Place::Waiting => self.waiting += 1,
            Place::Batch => self.batch_grew = now,
            _ => {}
        }
        if let Some(queue) = self.queue(place) {
            queue.insert(id.clone());
        }
    }

    /// Forgets a device.
    pub fn remove(&mut self, id: &NodeId) {
        self.put(id, Place::Resting, Duration::ZERO);
    }

    fn queue(&mut self, place: Place) -> Option<&mut BTreeSet<NodeId>> {
        match place {
            Place::Resting | Place::Waiting => None,
            Place::Urgent => Some(&mut self.urgent),
            Place::Routine => Some(&mut self.routine),
            Place::Batch => Some(&mut self.batch),
            Place::Written => Some(&mut self.written),
        }
    }

    pub fn is_resting(&self, id: &NodeId) -> bool {
        !self.places.contains_key(id)
    }

    /// The devices that do not rest.
    pub fn at_work(&self) -> impl Iterator<Item = &NodeId> {
        self.places.keys()
    }

    /// The device to serve next.
    pub fn next_ready(&self) -> Option<NodeId> {
        self.urgent.first().or(self.routine.first()).cloned()
    }

    /// Devices that may still join a batch or have something written.
    pub fn on_the_way(&self) -> usize {
        self.waiting + self.urgent.len() + self.routine.len()
    }

    /// Whether a device of a new or edited policy is to be served.
    pub fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Up to `size` devices whose attributes can be written.
    pub fn batch(&self, size: usize) -> Vec<NodeId> {
        self.batch.iter().take(size).cloned().collect()
    }

    pub fn batch_size(&self) -> usize {
        self.batch.len()
    }

    pub fn written(&self) -> &BTreeSet<NodeId> {
        &self.written
    }
}
