//! How often the attributes of devices are read again: 30 % of the budget, shared between namespaces.
//!
//! If the policies of a namespace declare attributes on more devices than its share allows, each of these
//! devices is read less often. Other namespaces are not affected: all have equal shares, and the rest gets
//! what one does not need. A device that is read for several namespaces is read as often as the one with the
//! fewest devices needs, and counts there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::NodeId;

/// The maximum share of the budget for regular reads.
const SHARE: f64 = 0.3;
/// The longest interval, for a tiny budget.
const MAX_INTERVAL: Duration = Duration::from_hours(24 * 365);

/// The devices that need regular reads, with the namespaces that cause them.
#[derive(Debug, Default)]
pub(super) struct ReadShares {
    causes: BTreeMap<NodeId, BTreeSet<String>>,
    /// The interval of each namespace, as of [`ReadShares::share_out`].
    intervals: BTreeMap<String, Duration>,
    /// The inputs of the intervals; `None` if they have changed since.
    shared_out: Option<(Duration, f64)>,
}

impl ReadShares {
    /// A device is read for these namespaces; without any, it is not read.
    pub fn set(&mut self, id: &NodeId, namespaces: BTreeSet<String>) {
        let before = self.causes.get(id);
        if before.map_or(namespaces.is_empty(), |before| *before == namespaces) {
            return;
        }
        self.shared_out = None;
        if namespaces.is_empty() {
            self.causes.remove(id);
        } else {
            self.causes.insert(id.clone(), namespaces);
        }
    }

    /// Computes the intervals again if something has changed. `interval`: the minimum time between two reads
    /// of one device; `per_second`: the requests that the budget allows.
    pub fn share_out(&mut self, interval: Duration, per_second: f64) {
        if self.shared_out == Some((interval, per_second)) {
            return;
        }
        self.shared_out = Some((interval, per_second));
        let mut intervals = BTreeMap::new();
        let mut left = SHARE * per_second;
        let mut namespaces = self.counted();
        // The smallest first, as the others share what these leave.
        namespaces.sort_by_key(|(_, devices)| *devices);
        let all = namespaces.len();
        for (served, (namespace, devices)) in namespaces.into_iter().enumerate() {
            let share = left / as_float(all - served);
            // A namespace never gets more than it can use, so the others get the rest.
            let needed = as_float(devices) / interval.as_secs_f64();
            let given = needed.min(share);
            left -= given;
            let seconds = as_float(devices) / given;
            let own = Duration::try_from_secs_f64(seconds).unwrap_or(MAX_INTERVAL);
            intervals.insert(namespace.to_owned(), own.max(interval));
        }
        self.intervals = intervals;
    }

    /// How long it takes to read this many devices within the share of regular reads.
    pub fn share_of(devices: usize, per_second: f64) -> Duration {
        let seconds = as_float(devices) / (SHARE * per_second);
        Duration::try_from_secs_f64(seconds).unwrap_or(MAX_INTERVAL)
    }

    /// How old the reads of a device may be.
    pub fn interval(&self, id: &NodeId, least: Duration) -> Duration {
        let causes = self.causes.get(id).into_iter().flatten();
        let own = causes.filter_map(|namespace| self.intervals.get(namespace));
        // For the namespace that reads it most often: one read serves all.
        own.min().copied().unwrap_or(least).max(least)
    }

    /// The longest interval of any namespace.
    pub fn longest(&self, least: Duration) -> Duration {
        self.intervals
            .values()
            .max()
            .map_or(least, |it| least.max(*it))
    }

    /// The namespaces with their number of devices; each device counts for the namespace that has the fewest.
    fn counted(&self) -> Vec<(&str, usize)> {
        let mut devices: BTreeMap<&str, usize> = BTreeMap::new();
        for namespace in self.causes.values().flatten() {
            *devices.entry(namespace).or_default() += 1;
        }
        let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
        for causes in self.causes.values() {
            let fewest = causes.iter().min_by_key(|it| devices.get(it.as_str()));
            if let Some(fewest) = fewest {
                *counted.entry(fewest).or_default() += 1;
            }
        }
        counted.into_iter().collect()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of devices is far below 2^52"
)]
fn as_float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn node(number: usize) -> NodeId {
        format!("n{number}CNTRL").parse().unwrap()
    }

    fn readers(devices: impl IntoIterator<Item = (usize, &'static [&'static str])>) -> ReadShares {
        let mut readers = ReadShares::default();
        for (number, namespaces) in devices {
            let namespaces = namespaces.iter().map(ToString::to_string).collect();
            readers.set(&node(number), namespaces);
        }
        readers.share_out(MINUTE, 10.0);
        readers
    }

    /// The reads per second of all devices together.
    fn load(readers: &ReadShares) -> f64 {
        let intervals = readers.causes.keys().map(|id| readers.interval(id, MINUTE));
        intervals.map(|it| 1.0 / it.as_secs_f64()).sum()
    }

    #[test]
    fn a_namespace_with_many_devices_waits_longer_and_the_others_do_not() {
        let many = (0..2000).map(|number| (number, &["many"][..]));
        let few = (2000..2010).map(|number| (number, &["few"][..]));
        let readers = readers(many.chain(few));
        assert_eq!(readers.interval(&node(2005), MINUTE), MINUTE);
        // 3 reads a second, without the 10 reads a minute of the other namespace.
        let long = readers.interval(&node(5), MINUTE);
        assert!((700..710).contains(&long.as_secs()), "{long:?}");
        assert_eq!(readers.longest(MINUTE), long);
        assert!(load(&readers) <= 3.001);
    }

    #[test]
    fn a_device_of_several_namespaces_is_read_once_and_as_often_as_the_least_of_them_needs() {
        let many = (0..2000).map(|number| (number, &["many"][..]));
        let both = (2000..2010).map(|number| (number, &["few", "many"][..]));
        let readers = readers(many.chain(both));
        assert_eq!(readers.interval(&node(2005), MINUTE), MINUTE);
        assert!(load(&readers) <= 3.001);
    }

    #[test]
    fn namespaces_that_all_want_too_much_have_equal_shares() {
        let first = (0..1000).map(|number| (number, &["a"][..]));
        let second = (1000..3000).map(|number| (number, &["b"][..]));
        let mut readers = readers(first.chain(second));
        let (a, b) = (
            readers.interval(&node(0), MINUTE),
            readers.interval(&node(1000), MINUTE),
        );
        assert!((a * 2).abs_diff(b) < Duration::from_secs(1), "{a:?} {b:?}");
        for number in 1000..3000 {
            readers.set(&node(number), BTreeSet::new());
        }
        readers.share_out(MINUTE, 10.0);
        assert!(readers.interval(&node(0), MINUTE) < a);
    }
}
