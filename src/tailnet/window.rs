//! The devices that were changed within the last hour.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::Now;
use crate::model::NodeId;

const HOUR: Duration = Duration::from_hours(1);
/// Recorded changes are counted in steps of so many seconds, so that the record stays small.
const STEP: i64 = 300;

/// How long the changes of a step count, from its beginning.
const COUNTS: jiff::SignedDuration = jiff::SignedDuration::from_secs(3600 + STEP);

/// The maximum number of entries of a record that name a namespace. The smallest ones beyond that count for
/// the tailnet only.
const NAMED_ENTRIES: usize = 80;

/// How many devices were changed in one step of the wall clock: an entry of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentChanges {
    /// The beginning of the step.
    pub since: Timestamp,
    /// How many.
    pub devices: usize,
    /// The namespace whose policies changed them, if that is recorded.
    pub namespace: Option<String>,
}

/// The devices that are about to be changed, with the namespace whose policy changes each, if that is
/// recorded.
pub type ReservedDevices = BTreeMap<NodeId, Option<String>>;

/// Which devices were changed within the last hour, or are being changed now.
///
/// The hour is measured with the monotonic clock. The wall clock counts only for changes of a previous
/// process, and cannot make them last longer than an hour from now.
#[derive(Debug, Default)]
pub(super) struct Window {
    changed: BTreeMap<NodeId, Changed>,
    ends: BTreeSet<(Duration, NodeId)>,
    /// Requests in flight that change them.
    in_flight: BTreeMap<NodeId, InFlight>,
    earlier: Vec<Earlier>,
}

#[derive(Debug)]
struct Changed {
    ends: Duration,
    step: Timestamp,
    /// The namespace of the last change.
    namespace: Option<String>,
}

#[derive(Debug, Default)]
struct InFlight {
    calls: u32,
    /// The namespace of the change.
    namespace: Option<String>,
}

/// Changes of other processes, whose devices are unknown.
#[derive(Debug)]
struct Earlier {
    ends: Duration,
    changes: RecentChanges,
}

impl Window {
    /// A request that changes a device for a namespace is sent.
    pub fn begin(&mut self, id: &NodeId, namespace: Option<String>) {
        let in_flight = self.in_flight.entry(id.clone()).or_default();
        // A device can have several requests in flight, such as the halves of a batch.
        in_flight.calls += 1;
        in_flight.namespace = namespace;
    }

    /// The request was answered; a possible change counts as a change.
    pub fn end(&mut self, id: &NodeId, changed: bool, now: Now) {
        let mut namespace = None;
        if let Some(in_flight) = self.in_flight.get_mut(id) {
            namespace.clone_from(&in_flight.namespace);
            // Only the last answer ends it, as an earlier one says nothing about the others.
            in_flight.calls -= 1;
            if in_flight.calls == 0 {
                self.in_flight.remove(id);
            }
        }
        if changed {
            self.count_device(id, namespace, now);
        }
    }

    /// Counts a device from now on, for the namespace that changed it last.
    fn count_device(&mut self, id: &NodeId, namespace: Option<String>, now: Now) {
        let ends = now.monotonic + HOUR;
        let changed = Changed {
            ends,
            step: step(now.wall),
            namespace,
        };
        let before = self.changed.insert(id.clone(), changed);
        if let Some(before) = before {
            // Otherwise the earlier end would expire the later change.
            self.ends.remove(&(before.ends, id.clone()));
        }
        self.ends.insert((ends, id.clone()));
    }

    /// Whether another change of this device is free.
    pub fn has(&self, id: &NodeId) -> bool {
        self.changed.contains_key(id) || self.in_flight.contains_key(id)
    }

    /// Whether a request that changes a device is in flight.
    pub fn is_in_flight(&self, id: &NodeId) -> bool {
        self.in_flight.contains_key(id)
    }

    /// How many devices were changed, or are being changed.
    pub fn count(&self) -> usize {
        let new = self.in_flight.keys();
        // A device counts once, however often it is changed within the hour.
        let new = new.filter(|id| !self.changed.contains_key(*id)).count();
        self.changed() + new
    }

    /// How many devices were changed.
    pub fn changed(&self) -> usize {
        let earlier = self.earlier.iter().map(|earlier| earlier.changes.devices);
        self.changed.len() + earlier.sum::<usize>()
    }

    /// How many of them were changed, or are being changed, for each namespace.
    pub fn by_namespace(&self) -> BTreeMap<&str, usize> {
        let mut devices: BTreeMap<&str, usize> = BTreeMap::new();
        let changed = self.changed.values().map(|it| (&it.namespace, 1));
        let new = self
            .in_flight
            .iter()
            .filter(|(id, _)| !self.changed.contains_key(*id))
            .map(|(_, it)| (&it.namespace, 1));
        let earlier = self
            .earlier
            .iter()
            .map(|it| &it.changes)
            .map(|it| (&it.namespace, it.devices));
        for (namespace, count) in changed.chain(new).chain(earlier) {
            if let Some(namespace) = namespace {
                *devices.entry(namespace).or_default() += count;
            }
        }
        devices
    }

    /// Forgets changes that are an hour old, and returns their devices.
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

    /// When the next change is an hour old.
    pub fn next_end(&self) -> Option<Duration> {
        let own = self.ends.first().map(|(ends, _)| *ends);
        let earlier = self.earlier.iter().map(|earlier| earlier.ends);
        own.into_iter().chain(earlier).min()
    }

    /// Takes over the record of other processes. It includes the changes of this one, which do not count
    /// twice.
    ///
    /// Devices that they had reserved may have been changed until now.
    pub fn take_over(&mut self, record: &[RecentChanges], reserved: &ReservedDevices, now: Now) {
        // A change whose answer came after the record was written is not in its counts, but its device is reserved.
        let own = self.own(|id| !reserved.contains_key(id));
        let others = record.iter().filter_map(|record| {
            let of = (record.since, record.namespace.clone());
            // The record includes what this process changed itself.
            let own = own.get(&of).copied().unwrap_or_default();
            let devices = record.devices.saturating_sub(own);
            let over = record.since.checked_add(COUNTS).ok()?;
            // A negative duration means that the entry no longer counts.
            let left = Duration::try_from(over.duration_since(now.wall)).ok()?;
            // At most an hour, however far the wall clock has jumped.
            let ends = now.monotonic + left.min(HOUR);
            let changes = RecentChanges {
                devices,
                ..record.clone()
            };
            (devices > 0 && ends > now.monotonic).then_some(Earlier { ends, changes })
        });
        self.earlier = others.collect();
        for (id, namespace) in reserved {
            // The previous process may have sent the change without recording it, so the full hour counts
            // from now.
            self.count_device(id, namespace.clone(), now);
        }
    }

    /// The record of all changes.
    pub fn recent(&self) -> Vec<RecentChanges> {
        let mut recent = self.own(|_| true);
        for Earlier { changes, .. } in &self.earlier {
            let of = (changes.since, changes.namespace.clone());
            *recent.entry(of).or_default() += changes.devices;
        }
        let recent = bounded(recent).into_iter();
        recent
            .map(|((since, namespace), devices)| RecentChanges {
                since,
                devices,
                namespace,
            })
            .collect()
    }

    fn own(&self, is_counted: impl Fn(&NodeId) -> bool) -> Counts {
        let mut own = Counts::new();
        for (_, changed) in self.changed.iter().filter(|(id, _)| is_counted(id)) {
            let of = (changed.step, changed.namespace.clone());
            *own.entry(of).or_default() += 1;
        }
        own
    }
}

/// How many devices were changed, by step and namespace.
type Counts = BTreeMap<(Timestamp, Option<String>), usize>;

/// The counts of as many namespaces as a record can hold, the largest first: a namespace with few changes is
/// far from its share.
fn bounded(counts: Counts) -> Counts {
    let mut entries: Vec<_> = counts.into_iter().collect();
    entries.sort_by_key(|((_, namespace), devices)| (namespace.is_none(), Reverse(*devices)));
    let mut bounded = Counts::new();
    for (number, ((since, namespace), devices)) in entries.into_iter().enumerate() {
        // Without a namespace the entry still counts for the tailnet, so the limit is never exceeded.
        let namespace = namespace.filter(|_| number < NAMED_ENTRIES);
        *bounded.entry((since, namespace)).or_default() += devices;
    }
    bounded
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
        change_for("network", window, number, now);
    }

    fn change_for(namespace: &str, window: &mut Window, number: usize, now: Now) {
        window.begin(&node(number), Some(namespace.to_owned()));
        window.end(&node(number), true, now);
    }

    /// Nothing is reserved.
    const NONE: ReservedDevices = ReservedDevices::new();

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
    fn a_request_counts_while_in_flight_and_no_longer_once_it_is_refused() {
        let mut window = Window::default();
        window.begin(&node(1), None);
        window.begin(&node(1), None);
        assert_eq!((window.count(), window.has(&node(1))), (1, true));
        window.end(&node(1), false, at(0));
        assert_eq!(window.count(), 1);
        window.end(&node(1), false, at(0));
        assert_eq!((window.count(), window.has(&node(1))), (0, false));
    }

    /// Its answer came after the process had lost leadership, and the record that it takes over is older.
    #[test]
    fn a_change_that_the_record_does_not_count_yet_counts() {
        let mut window = Window::default();
        change(&mut window, 1, at(0));
        change(&mut window, 2, at(0));
        let record = window.recent();
        let mut next = Window::default();
        next.take_over(&record, &NONE, at(1));
        change(&mut next, 3, at(2));
        let reserved = [(node(3), Some("network".to_owned()))];
        next.take_over(&record, &reserved.into(), at(3));
        assert_eq!(next.count(), 3);
    }

    #[test]
    fn recorded_changes_count_for_the_next_process_until_the_hour_is_over() {
        let mut first = Window::default();
        change(&mut first, 1, at(0));
        change(&mut first, 2, at(1));
        change(&mut first, 3, at(20));
        let record = first.recent();
        let counts: Vec<_> = record.iter().map(|recent| recent.devices).collect();
        assert_eq!(counts, [2, 1]);
        let mut second = Window::default();
        second.take_over(&record, &NONE, at(30));
        assert_eq!(second.count(), 3);
        second.expire(Duration::from_mins(66));
        assert_eq!(second.count(), 1);
        second.expire(Duration::from_mins(90));
        assert_eq!(second.count(), 0);
        // Its own changes are in its record, and do not count twice.
        change(&mut first, 4, at(31));
        let record = first.recent();
        first.take_over(&record, &NONE, at(32));
        assert_eq!(first.count(), 4);
    }

    #[test]
    fn a_device_counts_for_the_namespace_that_changed_it_last_also_after_a_restart() {
        let mut first = Window::default();
        change_for("a", &mut first, 1, at(0));
        change_for("a", &mut first, 2, at(0));
        change_for("b", &mut first, 3, at(0));
        first.begin(&node(4), Some("b".to_owned()));
        assert_eq!(first.by_namespace(), [("a", 2), ("b", 2)].into());
        change_for("b", &mut first, 2, at(1));
        first.end(&node(4), false, at(1));
        assert_eq!(first.by_namespace(), [("a", 1), ("b", 2)].into());
        // A record of an older version names no namespace.
        let mut record = first.recent();
        record.push(RecentChanges {
            since: START,
            devices: 5,
            namespace: None,
        });
        let mut second = Window::default();
        second.take_over(&record, &NONE, at(2));
        assert_eq!(second.count(), 8);
        assert_eq!(second.by_namespace(), [("a", 1), ("b", 2)].into());
        second.take_over(&second.recent(), &NONE, at(3));
        assert_eq!(
            (second.count(), second.recent()),
            (8, {
                record.sort_by_key(|it| it.namespace.clone());
                record
            })
        );
    }

    #[test]
    fn a_record_of_many_namespaces_has_a_bound_and_loses_no_device() {
        let mut window = Window::default();
        for number in 0..300 {
            let namespace = format!("tenant-{}", number.max(100));
            change_for(&namespace, &mut window, number, at(0));
        }
        let recent = window.recent();
        assert_eq!(recent.len(), NAMED_ENTRIES + 1);
        let devices = recent.iter().map(|it| it.devices);
        assert_eq!(devices.sum::<usize>(), 300);
        let largest = recent.iter().find(|it| it.devices == 101).unwrap();
        assert_eq!(largest.namespace.as_deref(), Some("tenant-100"));
    }

    #[test]
    fn a_device_that_another_process_had_reserved_counts_by_itself() {
        let mut window = Window::default();
        let reserved = [(node(1), None), (node(2), Some("db".to_owned()))];
        window.take_over(&[], &reserved.into(), at(0));
        assert_eq!((window.count(), window.has(&node(1))), (2, true));
        assert_eq!(window.by_namespace(), [("db", 1)].into());
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
            namespace: None,
        };
        let future = RecentChanges {
            since: START + Duration::from_hours(1000),
            devices: 7,
            namespace: None,
        };
        let past = RecentChanges {
            since: START - Duration::from_hours(2),
            devices: 9,
            namespace: None,
        };
        window.take_over(&[past, future, never], &NONE, at(0));
        assert_eq!(window.count(), 7);
        window.expire(HOUR);
        assert_eq!(window.count(), 0);
    }
}
