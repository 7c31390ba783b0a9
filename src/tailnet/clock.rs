//! The API's clock, as a reference for the local one.
//!
//! Decisions that depend on the time (a device is inactive, the time of an expiry has come) must not depend
//! on the clock of the machine that runs the controller. Each list carries the API's time, and the monotonic
//! clock continues it until the next list. If the wall clock differs from it by more than [`TOLERANCE`], the
//! engine uses the API's time and begins no one-shot action.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Now;

/// The accepted difference between the two clocks: an answer takes a while to arrive, and no inactivity
/// period is as short as five minutes.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
/// The reported skew changes only if it differs by more than this.
const STEADY: SignedDuration = SignedDuration::from_mins(2);

/// The time according to the answers of the API.
#[derive(Debug, Default)]
pub(super) struct ApiClock {
    /// The API's time, and the monotonic time at which it arrived.
    read: Option<(Timestamp, Duration)>,
    /// How far the wall clock is ahead, as reported.
    skew: Option<SignedDuration>,
}

impl ApiClock {
    /// Takes the time of an answer. An answer without a time changes nothing.
    pub fn read(&mut self, date: Option<Timestamp>, now: Duration) {
        if let Some(date) = date {
            self.read = Some((date, now));
        }
    }

    /// Another API may have another clock.
    pub fn forget(&mut self) {
        self.read = None;
    }

    /// How far the wall clock is ahead of the API's (or behind it, if negative), if that is too far.
    pub const fn skew(&self) -> Option<SignedDuration> {
        self.skew
    }

    /// The time by the API's clock now.
    fn time(&self, now: Duration) -> Option<Timestamp> {
        let (date, at) = self.read?;
        let since = SignedDuration::try_from(now.saturating_sub(at)).ok()?;
        date.checked_add(since).ok()
    }

    /// The effective time: the wall clock's, or the API's if the two are too far apart. Returns also whether
    /// the reported skew has changed.
    pub fn effective(&mut self, now: Now) -> (Now, bool) {
        // In each step: the wall clock can be set at any time.
        let has_changed = self.compare(now);
        let effective = match (self.skew, self.time(now.monotonic)) {
            (Some(_), Some(wall)) => Now { wall, ..now },
            _ => now,
        };
        (effective, has_changed)
    }

    /// Compares the clocks. Returns whether the reported skew has changed.
    fn compare(&mut self, now: Now) -> bool {
        let skew = self
            .time(now.monotonic)
            .map(|time| now.wall.duration_since(time))
            .filter(|skew| skew.abs() > TOLERANCE)
            .map(whole_minutes);
        let same = match (skew, self.skew) {
            // Answers take different times to arrive, and each change of the skew writes statuses.
            (Some(skew), Some(before)) => (skew - before).abs() < STEADY,
            (skew, before) => skew.is_none() && before.is_none(),
        };
        if !same {
            self.skew = skew;
        }
        !same
    }
}

fn whole_minutes(time: SignedDuration) -> SignedDuration {
    let seconds = time.as_secs().saturating_add(30);
    SignedDuration::from_mins(seconds.div_euclid(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn at(seconds: u64, ahead: i64) -> Now {
        let monotonic = Duration::from_secs(seconds);
        let wall = START + monotonic + SignedDuration::from_secs(ahead);
        Now { monotonic, wall }
    }

    #[test]
    fn clocks_that_agree_within_minutes_are_not_reported() {
        let mut clock = ApiClock::default();
        assert!(!clock.compare(at(0, 100_000)));
        assert_eq!(clock.skew(), None);
        clock.read(Some(START), Duration::ZERO);
        assert!(!clock.compare(at(0, 299)) && !clock.compare(at(900, -299)));
        assert_eq!(clock.skew(), None);
    }

    #[test]
    fn a_clock_that_jumps_between_two_lists_is_noticed_at_once_and_reported_once() {
        let mut clock = ApiClock::default();
        clock.read(Some(START), Duration::ZERO);
        assert!(clock.compare(at(30, 3600)));
        assert_eq!(clock.skew(), Some(SignedDuration::from_hours(1)));
        assert_eq!(clock.time(at(30, 3600).monotonic), Some(at(30, 0).wall));
        // A second that the list spent on its way changes nothing.
        clock.read(Some(at(88, 0).wall), Duration::from_secs(90));
        assert!(!clock.compare(at(90, 3600)));
        assert!(clock.compare(at(100, -7200)));
        assert!(clock.compare(at(110, 0)));
        assert_eq!(clock.skew(), None);
    }

    #[test]
    fn an_answer_without_a_time_keeps_the_last_one_and_another_api_resets_it() {
        let mut clock = ApiClock::default();
        clock.read(Some(START), Duration::ZERO);
        clock.read(None, Duration::from_mins(1));
        assert!(clock.compare(at(60, 3600)));
        clock.forget();
        assert!(clock.compare(at(60, 3600)));
        assert_eq!(clock.skew(), None);
    }
}
