//! The timers of devices: when each must be planned again, even if nothing happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::NodeId;

/// At most one timer for each device.
#[derive(Debug, Default)]
pub(super) struct Timers {
    of: BTreeMap<NodeId, Duration>,
    by_time: BTreeSet<(Duration, NodeId)>,
}

impl Timers {
    /// Sets the timer of a device, or removes it.
    pub fn set(&mut self, id: &NodeId, at: Option<Duration>) {
        let before = match at {
            Some(at) => self.of.insert(id.clone(), at),
            None => self.of.remove(id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, id.clone()));
        }
        if let Some(at) = at {
            self.by_time.insert((at, id.clone()));
        }
    }

    /// When the timer of a device fires.
    pub fn of(&self, id: &NodeId) -> Option<Duration> {
        self.of.get(id).copied()
    }

    /// When the next timer fires.
    pub fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Removes the timers that have fired, and returns their devices.
    pub fn take_fired(&mut self, now: Duration) -> Vec<NodeId> {
        let mut fired = Vec::new();
        while self.next().is_some_and(|at| at <= now)
            && let Some((_, id)) = self.by_time.pop_first()
        {
            self.of.remove(&id);
            fired.push(id);
        }
        fired
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
    fn a_timer_fires_once_and_a_new_one_replaces_it() {
        let mut timers = Timers::default();
        timers.set(&node(1), Some(at(5)));
        timers.set(&node(1), Some(at(9)));
        timers.set(&node(2), Some(at(7)));
        assert_eq!(
            (timers.next(), timers.of(&node(1))),
            (Some(at(7)), Some(at(9)))
        );
        assert!(timers.take_fired(at(6)).is_empty());
        assert_eq!(timers.take_fired(at(9)), [node(2), node(1)]);
        assert!(timers.next().is_none() && timers.of(&node(1)).is_none());
    }

    #[test]
    fn a_removed_timer_does_not_fire() {
        let mut timers = Timers::default();
        timers.set(&node(1), Some(at(5)));
        timers.set(&node(1), Some(at(5)));
        timers.set(&node(1), None);
        assert!(timers.take_fired(at(9)).is_empty());
    }
}
