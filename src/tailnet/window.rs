//! The devices that were changed within the last hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::Now;
use crate::model::NodeId;

const HOUR: Duration = Duration::from_hours(1);
/// What is kept is counted in steps of so many seconds, so that it stays small.
const STEP: i64 = 300;

/// How long what was changed in a step counts, from its beginning.
const COUNTS: jiff::SignedDuration = jiff::SignedDuration::from_secs(3600 + STEP);

/// How many devices were changed in one step of the wall clock: what a status keeps of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentChanges {
    /// The beginning of the step.
    pub since: Timestamp,
    /// How many.
    pub devices: usize,
}

/// Which devices were changed within the last hour, or are being changed now.
///
/// The hour goes by the clock that never jumps. The wall clock counts only for what a former process
/// has done, and cannot make that last longer than an hour from now.
#[derive(Debug, Default)]
pub(super) struct Window {
    changed: BTreeMap<NodeId, Changed>,
    ends: BTreeSet<(Duration, NodeId)>,
    /// Calls under way that change them.
    under_way: BTreeMap<NodeId, u32>,
    earlier: Vec<Earlier>,
}

#[derive(Debug)]
struct Changed {
    ends: Duration,
    step: Timestamp,
}

/// What other processes have changed: nobody knows which devices.
#[derive(Debug)]
struct Earlier {
    ends: Duration,
    changes: RecentChanges,
}

impl Window {
    /// A call that changes a device is sent.
    pub fn begin(&mut self, id: &NodeId) {
        *self.under_way.entry(id.clone()).or_default() += 1;
    }

    /// Such a call was answered; what may have been changed counts as changed.
    pub fn end(&mut self, id: &NodeId, changed: bool, now: Now) {
        if let Some(calls) = self.under_way.get_mut(id) {
            *calls -= 1;
            if *calls == 0 {
                self.under_way.remove(id);
            }
        }
        if changed {
            self.count_device(id, now);
        }
    }

    /// A device counts from now on.
    fn count_device(&mut self, id: &NodeId, now: Now) {
        let ends = now.monotonic + HOUR;
        let step = step(now.wall);
        let before = self.changed.insert(id.clone(), Changed { ends, step });
        if let Some(before) = before {
            self.ends.remove(&(before.ends, id.clone()));
        }
        self.ends.insert((ends, id.clone()));
    }

    /// Whether another change of this device is free.
    pub fn has(&self, id: &NodeId) -> bool {
        self.changed.contains_key(id) || self.under_way.contains_key(id)
    }

    /// Whether a call that changes a device is under way.
    pub fn is_under_way(&self, id: &NodeId) -> bool {
        self.under_way.contains_key(id)
    }

    /// How many devices were changed, or are being changed.
    pub fn count(&self) -> usize {
        let new = self.under_way.keys();
        let new = new.filter(|id| !self.changed.contains_key(*id)).count();
        let earlier = self.earlier.iter().map(|earlier| earlier.changes.devices);
        self.changed.len() + new + earlier.sum::<usize>()
    }

    /// Forgets what is an hour old, and gives the devices for which that is so.
    pub fn expire(&mut self, now: Duration) -> Vec<NodeId> {
        self.earlier.retain(|earlier| earlier.ends > now);
        let mut over = Vec::new();
        while let Some((ends, _)) = self.ends.first()
            && *ends <= now
            && let Some((_, id)) = self.ends.pop_first()
        {
            self.changed.remove(&id);
            over.push(id);
        }
        over
    }

    /// When something will be an hour old.
    pub fn next_end(&self) -> Option<Duration> {
        let own = self.ends.first().map(|(ends, _)| *ends);
        let earlier = self.earlier.iter().map(|earlier| earlier.ends);
        own.into_iter().chain(earlier).min()
    }

    /// Takes over what was kept of the changes of other processes. What this one has changed is in
    /// it too, and not counted twice.
    ///
    /// What they had reserved may have been changed until now.
    pub fn take_over(&mut self, kept: &[RecentChanges], reserved: &BTreeSet<NodeId>, now: Now) {
        let own = self.own();
        let others = kept.iter().filter_map(|kept| {
            let own = own.get(&kept.since).copied().unwrap_or_default();
            let devices = kept.devices.saturating_sub(own);
            let over = kept.since.checked_add(COUNTS).ok()?;
            let left = Duration::try_from(over.duration_since(now.wall)).ok()?;
            // No longer than an hour, however far the wall clock has jumped.
            let ends = now.monotonic + left.min(HOUR);
            let changes = RecentChanges { devices, ..*kept };
            (devices > 0 && ends > now.monotonic).then_some(Earlier { ends, changes })
        });
        self.earlier = others.collect();
        for id in reserved {
            self.count_device(id, now);
        }
    }

    /// What is to be kept of all this.
    pub fn recent(&self) -> Vec<RecentChanges> {
        let mut recent = self.own();
        for Earlier { changes, .. } in &self.earlier {
            *recent.entry(changes.since).or_default() += changes.devices;
        }
        let recent = recent.into_iter();
        recent
            .map(|(since, devices)| RecentChanges { since, devices })
            .collect()
    }

    fn own(&self) -> BTreeMap<Timestamp, usize> {
        let mut own = BTreeMap::new();
        for changed in self.changed.values() {
            *own.entry(changed.step).or_default() += 1;
        }
        own
    }
}

fn step(time: Timestamp) -> Timestamp {
    let seconds = time.as_second();
    Timestamp::from_second(seconds - seconds.rem_euclid(STEP)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn node(number: usize) -> NodeId {
        format!("n{number}CNTRL").parse().unwrap()
    }

    /// So many minutes after the start, by both clocks.
    fn at(minutes: u64) -> Now {
        let monotonic = Duration::from_mins(minutes);
        let wall = START + monotonic;
        Now { monotonic, wall }
    }

    fn change(window: &mut Window, number: usize, now: Now) {
        window.begin(&node(number));
        window.end(&node(number), true, now);
    }

    #[test]
    fn a_device_counts_once_and_until_an_hour_after_its_last_change() {
        let mut window = Window::default();
        change(&mut window, 1, at(0));
        change(&mut window, 2, at(10));
        change(&mut window, 1, at(30));
        assert_eq!(window.count(), 2);
        assert_eq!(window.next_end(), Some(Duration::from_mins(70)));
        assert_eq!(window.expire(Duration::from_mins(70)), [node(2)]);
        assert_eq!(window.count(), 1);
        assert_eq!(window.expire(Duration::from_mins(90)), [node(1)]);
        assert_eq!((window.count(), window.next_end()), (0, None));
    }

    #[test]
    fn a_call_counts_while_it_is_under_way_and_no_more_once_it_is_refused() {
        let mut window = Window::default();
        window.begin(&node(1));
        window.begin(&node(1));
        assert_eq!((window.count(), window.has(&node(1))), (1, true));
        window.end(&node(1), false, at(0));
        assert_eq!(window.count(), 1);
        window.end(&node(1), false, at(0));
        assert_eq!((window.count(), window.has(&node(1))), (0, false));
    }

    #[test]
    fn what_is_kept_counts_for_the_next_process_until_the_hour_is_over() {
        let mut first = Window::default();
        change(&mut first, 1, at(0));
        change(&mut first, 2, at(1));
        change(&mut first, 3, at(20));
        let kept = first.recent();
        let counts: Vec<_> = kept.iter().map(|recent| recent.devices).collect();
        assert_eq!(counts, [2, 1]);
        let mut second = Window::default();
        second.take_over(&kept, &BTreeSet::new(), at(30));
        assert_eq!(second.count(), 3);
        second.expire(Duration::from_mins(66));
        assert_eq!(second.count(), 1);
        second.expire(Duration::from_mins(90));
        assert_eq!(second.count(), 0);
        // Its own changes are in what it kept, and not counted twice.
        change(&mut first, 4, at(31));
        let kept = first.recent();
        first.take_over(&kept, &BTreeSet::new(), at(32));
        assert_eq!(first.count(), 4);
    }

    #[test]
    fn a_device_that_another_process_had_reserved_counts_by_itself() {
        let mut window = Window::default();
        window.take_over(&[], &[node(1), node(2)].into(), at(0));
        assert_eq!((window.count(), window.has(&node(1))), (2, true));
        change(&mut window, 1, at(1));
        assert_eq!(window.count(), 2);
        window.expire(HOUR);
        assert_eq!(window.count(), 1);
    }

    #[test]
    fn a_wall_clock_that_jumps_makes_nothing_last_longer_than_an_hour() {
        let mut window = Window::default();
        let never = RecentChanges {
            since: Timestamp::MAX,
            devices: 5,
        };
        let future = RecentChanges {
            since: START + Duration::from_hours(1000),
            devices: 7,
        };
        let past = RecentChanges {
            since: START - Duration::from_hours(2),
            devices: 9,
        };
        window.take_over(&[past, future, never], &BTreeSet::new(), at(0));
        assert_eq!(window.count(), 7);
        window.expire(HOUR);
        assert_eq!(window.count(), 0);
    }
}
