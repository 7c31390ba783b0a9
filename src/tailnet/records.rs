//! When the records of owned keys are written: many devices are recorded together.

use std::time::Duration;

use crate::plan::Capacity;

/// This many devices that wait for a record do not wait for more.
const MANY_WAITING: usize = 50;
/// How long a device waits to be recorded together with others.
const PATIENCE: Duration = Duration::from_secs(2);

/// Devices that wait until the record of the keys owned there is durable.
#[derive(Debug, Default)]
pub(super) struct Records {
    devices: usize,
    since: Option<Duration>,
    is_due: bool,
    /// The number of the last list after which absent devices were released.
    released_at: u64,
    /// The capacity of the record of the keys that a policy owns.
    capacity: Capacity,
}

impl Records {
    /// A device waits for a record.
    pub fn await_record(&mut self, now: Duration) {
        self.devices += 1;
        self.since.get_or_insert(now);
    }

    /// Decides whether the devices that wait are recorded now: they are many, they have waited long enough, or
    /// nothing else can come (`is_quiet`).
    pub fn decide(&mut self, is_quiet: bool, now: Duration) {
        self.is_due = self.since.is_some_and(|since| {
            self.devices >= MANY_WAITING || is_quiet || now >= since + PATIENCE
        });
        if self.is_due {
            self.devices = 0;
            self.since = None;
        }
    }

    /// Whether the devices that wait are recorded now.
    pub const fn is_due(&self) -> bool {
        self.is_due
    }

    /// When the waiting devices are recorded at the latest.
    pub fn due_at(&self) -> Option<Duration> {
        self.since.map(|since| since + PATIENCE)
    }

    /// Whether absent devices must be released: once for each list.
    pub fn take_list(&mut self, list: u64) -> bool {
        std::mem::replace(&mut self.released_at, list) != list
    }

    /// The capacity of the record of the keys that a policy owns.
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Limits the record, for tests.
    #[cfg(test)]
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn devices_wait_to_be_recorded_together_but_not_for_long() {
        let mut records = Records::default();
        records.decide(true, at(0));
        assert!(!records.is_due() && records.due_at().is_none());
        records.await_record(at(1));
        records.await_record(at(2));
        records.decide(false, at(2));
        assert!(!records.is_due());
        assert_eq!(records.due_at(), Some(at(3)));
        records.decide(false, at(3));
        assert!(records.is_due() && records.due_at().is_none());
        records.decide(false, at(4));
        assert!(!records.is_due());
    }

    #[test]
    fn many_devices_or_the_last_ones_do_not_wait() {
        let mut records = Records::default();
        records.await_record(at(1));
        records.decide(true, at(1));
        assert!(records.is_due());
        for _ in 0..MANY_WAITING {
            records.await_record(at(2));
        }
        records.decide(false, at(2));
        assert!(records.is_due());
    }

    #[test]
    fn absent_devices_are_released_once_for_each_list() {
        let mut records = Records::default();
        assert!(records.take_list(1) && !records.take_list(1) && records.take_list(2));
    }
}
