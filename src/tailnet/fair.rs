//! Chooses the device to serve next: each namespace in its turn.
//!
//! Devices of new and edited policies go before routine ones, so that an edit does not wait behind the work
//! of a policy with many devices. That privilege covers a few requests: a namespace whose policies are edited
//! again and again uses it up, and then gets every n-th request of n namespaces like the others. So the
//! others wait twice as long at most, whatever one of them writes.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::NodeId;

/// How many requests a namespace may be ahead of the others for new or edited policies.
const AHEAD: u64 = 10;

/// The devices of one namespace for which a request can be sent.
#[derive(Debug, Default)]
struct Queue {
    urgent: BTreeSet<NodeId>,
    routine: BTreeSet<NodeId>,
    /// Requests that it has had, or would have had if it had waited all the time.
    served: u64,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.routine.is_empty()
    }
}

/// The devices for which a request can be sent, by namespace.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queues: BTreeMap<String, Queue>,
    /// The namespace in whose queue a device waits.
    namespaces: BTreeMap<NodeId, String>,
    /// The fewest requests of any namespace that waited when the last request was sent. A namespace that
    /// begins to wait starts there.
    least: u64,
}

impl Ready {
    /// Puts a device into the queue of the namespace that causes its request.
    pub fn insert(&mut self, id: &NodeId, namespace: &str, is_urgent: bool) {
        // It may wait with the other urgency, or for another namespace.
        self.remove(id);
        let least = self.least;
        let queue = self.queues.entry(namespace.to_owned()).or_default();
        if queue.is_empty() {
            // A namespace does not save up turns while it has nothing to do.
            queue.served = queue.served.max(least);
        }
        let devices = if is_urgent {
            &mut queue.urgent
        } else {
            &mut queue.routine
        };
        devices.insert(id.clone());
        self.namespaces.insert(id.clone(), namespace.to_owned());
    }

    /// Takes a device out of its queue. Returns whether it was in one.
    pub fn remove(&mut self, id: &NodeId) -> bool {
        let Some(namespace) = self.namespaces.remove(id) else {
            return false;
        };
        if let Some(queue) = self.queues.get_mut(&namespace) {
            queue.urgent.remove(id);
            queue.routine.remove(id);
        }
        true
    }

    /// Takes a device out of its queue, as its request is sent.
    pub fn serve(&mut self, id: &NodeId) {
        // This namespace counts too: a device in flight must not give it a fresh start.
        self.least = self.least.max(self.fewest());
        let namespace = self.namespaces.get(id).cloned();
        if let Some(queue) = namespace.and_then(|namespace| self.queues.get_mut(&namespace)) {
            queue.served += 1;
        }
        self.remove(id);
        let least = self.least;
        self.queues
            // A namespace that had more turns than others stays until they have caught up.
            .retain(|_, queue| !queue.is_empty() || queue.served > least);
    }

    /// The fewest requests of any waiting namespace.
    fn fewest(&self) -> u64 {
        let waiting = self.waiting().map(|(_, queue)| queue.served);
        waiting.min().unwrap_or(self.least)
    }

    /// The device to serve next: of the namespace with the fewest requests, urgent devices first.
    pub fn next(&self) -> Option<&NodeId> {
        let routine = || fewest_served(self.waiting());
        let (_, queue) = fewest_served(self.privileged()).or_else(routine)?;
        queue.urgent.first().or(queue.routine.first())
    }

    /// The namespace in whose queue a device waits.
    pub fn namespace_of(&self, id: &NodeId) -> Option<&String> {
        self.namespaces.get(id)
    }

    /// The namespace that is served next, if that is for a new or edited policy.
    pub fn next_urgent(&self) -> Option<&String> {
        fewest_served(self.privileged()).map(|(namespace, _)| namespace)
    }

    /// Whether a new or edited policy goes first.
    pub fn has_urgent(&self) -> bool {
        self.privileged().next().is_some()
    }

    pub fn len(&self) -> usize {
        self.namespaces.len()
    }

    fn waiting(&self) -> impl Iterator<Item = (&String, &Queue)> {
        self.queues.iter().filter(|(_, queue)| !queue.is_empty())
    }

    fn privileged(&self) -> impl Iterator<Item = (&String, &Queue)> {
        // Beyond that, edits wait like all others: else one namespace could use up the budget.
        let limit = self.fewest() + AHEAD;
        let urgent = self
            .queues
            .iter()
            .filter(|(_, queue)| !queue.urgent.is_empty());
        urgent.filter(move |(_, queue)| queue.served < limit)
    }
}

/// The namespace with the fewest requests.
fn fewest_served<'a>(
    queues: impl Iterator<Item = (&'a String, &'a Queue)>,
) -> Option<(&'a String, &'a Queue)> {
    queues.min_by_key(|(name, queue)| (queue.served, (*name).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        format!("n{number:03}CNTRL").parse().unwrap()
    }

    /// Serves so many requests; each served device waits again at once. Returns the served namespaces.
    fn served(ready: &mut Ready, count: usize) -> Vec<String> {
        let mut order = Vec::new();
        for _ in 0..count {
            let id = ready.next().unwrap().clone();
            let namespace = ready.namespaces[&id].clone();
            let is_urgent = ready.queues[&namespace].urgent.contains(&id);
            ready.serve(&id);
            ready.insert(&id, &namespace, is_urgent);
            order.push(namespace);
        }
        order
    }

    #[test]
    fn namespaces_are_served_in_turn_however_many_devices_they_have() {
        let mut ready = Ready::default();
        for number in 0..100 {
            ready.insert(&node(number), "large", false);
        }
        ready.insert(&node(900), "small", false);
        let order = served(&mut ready, 40);
        assert_eq!(order.iter().filter(|it| *it == "small").count(), 20);
    }

    #[test]
    fn an_edit_goes_before_routine_work() {
        let mut ready = Ready::default();
        for number in 0..100 {
            ready.insert(&node(number), "large", false);
        }
        served(&mut ready, 50);
        ready.insert(&node(900), "edited", true);
        assert_eq!(ready.next(), Some(&node(900)));
    }

    #[test]
    fn a_namespace_that_edits_again_and_again_is_served_in_turn_like_the_others() {
        let mut ready = Ready::default();
        ready.insert(&node(0), "hostile", true);
        served(&mut ready, 500);
        ready.insert(&node(900), "routine", false);
        ready.insert(&node(901), "edited", true);
        let order = served(&mut ready, 60);
        let of = |name: &str| order.iter().filter(|it| *it == name).count();
        assert!(of("routine") >= 12 && of("edited") >= 20, "{order:?}");
        assert!(of("hostile") <= 25, "{order:?}");
    }

    #[test]
    fn a_device_in_flight_gives_its_namespace_no_fresh_start() {
        let mut ready = Ready::default();
        ready.insert(&node(900), "routine", false);
        let mut routine = 0;
        for _ in 0..40 {
            ready.insert(&node(0), "hostile", true);
            let id = ready.next().unwrap().clone();
            routine += usize::from(id == node(900));
            // Its next request is ready only after the next turn.
            ready.serve(&id);
            ready.insert(&node(900), "routine", false);
        }
        assert!(routine >= 15, "{routine}");
    }

    #[test]
    fn a_served_device_no_longer_waits() {
        let mut ready = Ready::default();
        ready.insert(&node(0), "a", true);
        ready.insert(&node(1), "b", false);
        ready.serve(&node(0));
        ready.serve(&node(1));
        assert!(ready.next().is_none() && ready.len() == 0);
    }
}
