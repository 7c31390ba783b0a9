//! The devices that policies manage or have to clear, each with its plan and its progress.

use std::{collections::BTreeMap, time::Duration};

use super::{device_state::DeviceState, timers::Timers};
use crate::{model::NodeId, plan::PolicyKey};

/// The devices of the engine.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// Boxed, because a half-full node of the tree is common, and a state is large.
    all: BTreeMap<NodeId, Box<DeviceState>>,
    /// How many of them a policy targets.
    managed: usize,
    timers: Timers,
}

impl Devices {
    pub fn get(&self, id: &NodeId) -> Option<&DeviceState> {
        self.all.get(id).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, id: &NodeId) -> Option<&mut DeviceState> {
        self.all.get_mut(id).map(Box::as_mut)
    }

    /// A device with its own ID.
    pub fn get_key_value(&self, id: &NodeId) -> Option<(&NodeId, &DeviceState)> {
        self.all.get_key_value(id).map(|(id, state)| (id, &**state))
    }

    /// A device, which is added if it is unknown.
    pub fn get_or_add(&mut self, id: &NodeId) -> &mut DeviceState {
        self.all.entry(id.clone()).or_default()
    }

    pub fn contains(&self, id: &NodeId) -> bool {
        self.all.contains_key(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &DeviceState)> {
        self.all.iter().map(|(id, state)| (id, &**state))
    }

    pub fn ids(&self) -> impl Iterator<Item = &NodeId> {
        self.all.keys()
    }

    pub fn values(&self) -> impl Iterator<Item = &DeviceState> {
        self.all.values().map(Box::as_ref)
    }

    /// A policy targets a device. `joins`: the device is new to a policy that was there before.
    pub fn adopt(&mut self, id: &NodeId, key: &PolicyKey, joins: bool) {
        let node = self.all.entry(id.clone()).or_default();
        self.managed += usize::from(node.policies().is_empty());
        node.adopt(key, joins);
    }

    /// A policy no longer targets a device. Returns whether the device is known.
    pub fn release(&mut self, id: &NodeId, key: &PolicyKey) -> bool {
        let Some(node) = self.all.get_mut(id) else {
            return false;
        };
        let was_managed = !node.policies().is_empty();
        node.release(key);
        self.managed -= usize::from(was_managed && node.policies().is_empty());
        true
    }

    /// How many devices a policy targets.
    pub const fn managed(&self) -> usize {
        self.managed
    }

    /// Forgets a device.
    pub fn remove(&mut self, id: &NodeId) {
        // Its timer too, which would wake the engine for a device that is gone.
        self.timers.set(id, None);
        let gone = self.all.remove(id);
        self.managed -= usize::from(gone.is_some_and(|node| !node.policies().is_empty()));
    }

    /// Forgets everything that was read of each device, and every failure.
    pub fn forget_reads(&mut self) {
        for node in self.all.values_mut() {
            node.forget_reads();
        }
    }

    /// Sets the time at which a device is planned again, or removes it.
    pub fn set_timer(&mut self, id: &NodeId, at: Option<Duration>) {
        // A timer of an unknown device would never be removed.
        if self.contains(id) {
            self.timers.set(id, at);
        }
    }

    /// When the timer of a device fires.
    pub fn timer_of(&self, id: &NodeId) -> Option<Duration> {
        self.timers.of(id)
    }

    /// When the next timer fires.
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// The devices whose time has come.
    pub fn take_fired(&mut self, now: Duration) -> Vec<NodeId> {
        self.timers.take_fired(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_managed_while_one_policy_targets_it() {
        let mut devices = Devices::default();
        let (a, b): (NodeId, NodeId) = ("n1CNTRL".parse().unwrap(), "n2CNTRL".parse().unwrap());
        let keys = ["x", "y"].map(|name| PolicyKey::new("network", name));
        for key in &keys {
            devices.adopt(&a, key, false);
            devices.adopt(&a, key, false);
        }
        devices.adopt(&b, &keys[0], false);
        assert_eq!(devices.managed(), 2);
        assert!(devices.release(&a, &keys[0]) && devices.managed() == 2);
        assert!(devices.release(&a, &keys[1]) && devices.release(&a, &keys[1]));
        assert_eq!(devices.managed(), 1);
        devices.remove(&a);
        devices.remove(&b);
        assert!(devices.managed() == 0 && !devices.release(&b, &keys[0]));
    }

    #[test]
    fn a_device_that_is_forgotten_has_no_timer_and_an_unknown_one_gets_none() {
        let mut devices = Devices::default();
        let id: NodeId = "n1CNTRL".parse().unwrap();
        devices.set_timer(&id, Some(Duration::ZERO));
        assert_eq!(devices.next_timer(), None);
        devices.get_or_add(&id).require_read();
        devices.set_timer(&id, Some(Duration::from_secs(1)));
        assert!(devices.get_or_add(&id).is_in_question() && devices.contains(&id));
        assert_eq!(devices.timer_of(&id), Some(Duration::from_secs(1)));
        devices.remove(&id);
        assert!(devices.get(&id).is_none());
        assert!(devices.take_fired(Duration::from_secs(9)).is_empty());
    }
}
