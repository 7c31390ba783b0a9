use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{fair::Ready, namespace_bucket::NamespaceBuckets};
use crate::model::NodeId;

/// The queue of a device; a device in no queue is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Nothing to do until something changes or its timer fires.
    Idle,
    /// Waits for a request in flight, or for a record that must be durable first.
    Blocked,
    /// A request of its own can be sent, for a policy that is new or edited.
    Urgent,
    /// A request of its own can be sent.
    Routine,
    /// Attributes can be written, together with those of other devices.
    Batch,
    /// Written changes must be verified.
    Verify,
}

/// How long a batch waits for another device to join. A device that does not answer delays it no longer than
/// that.
const BATCH_PATIENCE: Duration = Duration::from_secs(2);

/// Requests for new or edited policies that a namespace may send without waiting behind routine work, which
/// leaves a part of the budget's burst for them ([`crate::tailscale::Haste`]). So an edit in a quiet
/// namespace goes out at once, and constant edits cannot empty that part.
const QUICK_BURST: u32 = 6;
/// The time until it may send another one.
const QUICK_REFILL: Duration = Duration::from_secs(2);

/// The devices with something to do, by kind. Updated one device at a time, so that a step costs what it
/// changes and not a walk over all devices.
#[derive(Debug)]
pub(super) struct Queues {
    lanes: BTreeMap<NodeId, Lane>,
    ready: Ready,
    quick: NamespaceBuckets,
    batch: BTreeSet<NodeId>,
    verify: BTreeSet<NodeId>,
    waiting: usize,
    /// When the last device joined the batch.
    batch_grew: Duration,
    /// When the first waiting device joined it.
    batch_began: Duration,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            ready: Ready::default(),
            quick: NamespaceBuckets::new(QUICK_BURST, QUICK_REFILL),
            batch: BTreeSet::new(),
            verify: BTreeSet::new(),
            waiting: 0,
            batch_grew: Duration::ZERO,
            batch_began: Duration::ZERO,
        }
    }
}

impl Queues {
    /// Moves a device to a lane that needs no namespace.
    pub fn put(&mut self, id: &NodeId, lane: Lane, now: Duration) {
        self.put_for(id, lane, "", now);
    }

    /// Moves a device to a lane. `namespace` causes its request.
    pub fn put_for(&mut self, id: &NodeId, lane: Lane, namespace: &str, now: Duration) {
        let before = match lane {
            Lane::Idle => self.lanes.remove(id),
            _ => self.lanes.insert(id.clone(), lane),
        };
        // A device that stays in its lane keeps its place, and does not make the batch grow.
        if before == Some(lane) {
            return;
        }
        match before {
            Some(Lane::Blocked) => self.waiting -= 1,
            Some(Lane::Batch) => {
                self.batch.remove(id);
            }
            Some(Lane::Verify) => {
                self.verify.remove(id);
            }
            Some(urgency @ (Lane::Urgent | Lane::Routine)) if lane == Lane::Blocked => {
                let namespace = self.ready.namespace_of(id);
                // Only urgent requests use the quick tokens, whatever else the namespace sends.
                if let Some(namespace) = namespace.filter(|_| urgency == Lane::Urgent) {
                    self.quick.take(namespace, now);
                }
                // Served, not removed: the turn counts for the namespace that caused it.
                self.ready.serve(id);
            }
            Some(Lane::Urgent | Lane::Routine) => {
                self.ready.remove(id);
            }
            Some(Lane::Idle) | None => {}
        }
        match lane {
            Lane::Idle => {}
            Lane::Blocked => self.waiting += 1,
            Lane::Urgent | Lane::Routine => {
                self.ready.insert(id, namespace, lane == Lane::Urgent);
            }
            Lane::Batch => {
                // From the first one on, so that devices that keep joining cannot delay it for ever.
                if self.batch.is_empty() {
                    self.batch_began = now;
                }
                self.batch_grew = now;
                self.batch.insert(id.clone());
            }
            Lane::Verify => {
                self.verify.insert(id.clone());
            }
        }
    }

    /// Forgets a device.
    pub fn remove(&mut self, id: &NodeId) {
        self.put(id, Lane::Idle, Duration::ZERO);
    }

    pub fn is_idle(&self, id: &NodeId) -> bool {
        !self.lanes.contains_key(id)
    }

    /// The number of devices that are not idle.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// The devices that are not idle.
    pub fn at_work(&self) -> impl Iterator<Item = &NodeId> {
        self.lanes.keys()
    }

    /// The device to serve next.
    pub fn next_ready(&self) -> Option<NodeId> {
        self.ready.next().cloned()
    }

    /// Devices that may still join a batch or have something written.
    pub fn on_the_way(&self) -> usize {
        // Blocked devices too: their answer or record may bring them into the batch.
        self.waiting + self.ready.len()
    }

    /// Whether the request that is sent next may use the last tokens of the budget.
    pub fn is_quick(&self, now: Duration) -> bool {
        let next = self.ready.next_urgent();
        next.is_some_and(|namespace| self.quick.has_token(namespace, now))
    }

    /// Whether a device of a new or edited policy goes first.
    pub fn has_urgent(&self) -> bool {
        self.ready.has_urgent()
    }

    /// Up to `size` devices whose attributes can be written.
    pub fn batch(&self, size: usize) -> Vec<NodeId> {
        self.batch.iter().take(size).cloned().collect()
    }

    pub fn batch_size(&self) -> usize {
        self.batch.len()
    }

    /// Until when the batch waits for another device to join.
    pub fn batch_waits_until(&self) -> Duration {
        self.batch_grew + BATCH_PATIENCE
    }

    /// Whether a device has waited for this long in the batch while others keep joining.
    pub fn batch_waits(&self, limit: Duration, now: Duration) -> bool {
        !self.batch.is_empty() && now >= self.batch_began + limit
    }

    /// The batch was sent: the remaining devices start to wait now.
    pub fn batch_sent(&mut self, now: Duration) {
        self.batch_began = now;
    }

    pub fn written(&self) -> &BTreeSet<NodeId> {
        &self.verify
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        format!("n{number}CNTRL").parse().unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_device_is_in_one_queue_at_a_time() {
        let mut queues = Queues::default();
        queues.put_for(&node(1), Lane::Routine, "a", at(0));
        assert_eq!(queues.next_ready(), Some(node(1)));
        queues.put(&node(1), Lane::Blocked, at(0));
        assert_eq!((queues.next_ready(), queues.on_the_way()), (None, 1));
        queues.put(&node(1), Lane::Batch, at(0));
        assert_eq!((queues.on_the_way(), queues.batch_size()), (0, 1));
        queues.put(&node(1), Lane::Verify, at(0));
        assert_eq!((queues.batch_size(), queues.written().len()), (0, 1));
        queues.remove(&node(1));
        assert!(queues.is_idle(&node(1)) && queues.written().is_empty());
    }

    #[test]
    fn new_and_edited_policies_go_first() {
        let mut queues = Queues::default();
        queues.put_for(&node(1), Lane::Routine, "a", at(0));
        queues.put_for(&node(2), Lane::Urgent, "b", at(0));
        assert!(queues.has_urgent() && queues.is_quick(at(0)));
        assert_eq!(queues.next_ready(), Some(node(2)));
    }

    #[test]
    fn a_batch_waits_since_its_first_device_joined() {
        let mut queues = Queues::default();
        queues.put(&node(1), Lane::Batch, at(1));
        queues.put(&node(2), Lane::Batch, at(4));
        assert!(!queues.batch_waits(at(4), at(4)) && queues.batch_waits(at(4), at(5)));
        queues.batch_sent(at(5));
        assert!(!queues.batch_waits(at(4), at(8)));
    }
}
