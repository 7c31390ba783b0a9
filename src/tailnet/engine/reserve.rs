//! Reserves the devices that may be changed next: see [`crate::tailnet::reserve`].

use std::collections::BTreeSet;

use super::{closing::Closing, dispatch::is_urgent};
use crate::{
    model::NodeId,
    plan::next_call,
    tailnet::{change_budget::ChangeBudget, dirty::Dirty, lanes::Queues},
};

impl Closing<'_> {
    /// Reserves the devices that must be changed next, and gives back idle ones.
    pub(super) fn reserve(&mut self) {
        if !self.limit().counts_changes() {
            self.change_budget.reservations_mut().clear();
            return;
        }
        let idle: Vec<NodeId> = self
            .change_budget
            .reservations()
            .reserved()
            .filter(|id| !is_changing(self.queues, self.change_budget, self.dirty, id))
            .cloned()
            .collect();
        self.change_budget.give_back(&idle);
        let most = self.limit().most_changes().unwrap_or(usize::MAX);
        let asked = self.change_budget.reservations_mut().take_asked();
        let (urgent, others) = asked.into_iter().partition(|id| {
            let node = self.devices.get(id);
            node.is_some_and(|node| is_urgent(self.policies, node))
        });
        let devices = &*self.devices;
        self.change_budget.reserve(urgent, others, most, |id| {
            // The namespace whose policy changes the device next.
            let (_, differences) = next_call(devices.get(id)?.plan(), &BTreeSet::new())?;
            Some(differences.first()?.owner.namespace.clone())
        });
    }
}

/// Whether a device is about to be changed, or is being changed.
fn is_changing(queues: &Queues, change_budget: &ChangeBudget, dirty: &Dirty, id: &NodeId) -> bool {
    let at_rest = queues.is_idle(id) || queues.written().contains(id);
    change_budget.is_in_flight(id) || !at_rest || dirty.awaits_step(id)
}
