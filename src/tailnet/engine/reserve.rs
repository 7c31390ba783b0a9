//! Reserves the devices that may be changed next: see [`crate::tailnet::reserve`].

use std::collections::BTreeSet;

use super::Engine;
use crate::{model::NodeId, plan::next_call};

impl Engine {
    /// Whether a device is about to be changed, or is being changed.
    fn is_changing(&self, id: &NodeId) -> bool {
        let at_rest = self.queues.is_idle(id) || self.queues.written().contains(id);
        self.change_budget.is_in_flight(id) || !at_rest || self.dirty.awaits_step(id)
    }

    /// Reserves the devices that must be changed next, and gives back idle ones.
    pub(super) fn reserve(&mut self) {
        if !self.counts_changes() {
            self.change_budget.reservations_mut().clear();
            return;
        }
        let idle = self.change_budget.reservations().reserved();
        let idle = idle.filter(|id| !self.is_changing(id));
        let idle: Vec<NodeId> = idle.cloned().collect();
        self.change_budget.give_back(&idle);
        let most = self.most_changes().unwrap_or(usize::MAX);
        let asked = self.change_budget.reservations_mut().take_asked();
        let is_urgent = |id: &NodeId| {
            let node = self.devices.get(id);
            node.is_some_and(|node| self.is_urgent(node))
        };
        let (urgent, others) = asked.into_iter().partition(is_urgent);
        let devices = &self.devices;
        self.change_budget.reserve(urgent, others, most, |id| {
            // The namespace whose policy changes the device next.
            let (_, differences) = next_call(devices.get(id)?.plan(), &BTreeSet::new())?;
            Some(differences.first()?.owner.namespace.clone())
        });
    }
}
