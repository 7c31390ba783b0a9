//! How long a policy that is being deleted may take to clear its devices, before it is given up.
//!
//! The time is counted by a clock that never jumps, from the moment when this process leads and sees
//! that the policy is being deleted. When the deletion was asked for decides nothing: no controller
//! may have run since, and the clocks of two machines differ.
//!
//! | meanwhile                                                 | the time                            |
//! |-----------------------------------------------------------|-------------------------------------|
//! | an approval or room under the limit is what it waits for  | stands still                        |
//! | its record cannot be kept, so that nothing may be sent    | stands still                        |
//! | the tailnet cannot be asked                               | runs, counted by itself             |
//! | anything else                                             | runs                                |
//! | a device is read or changed for the first time, or clear  | begins anew: that is progress       |

use std::{collections::BTreeSet, time::Duration};

use crate::{model::NodeId, plan::Field};

/// What a policy that is being deleted waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// A person, or the hour of the limit: no time is counted.
    #[default]
    Held,
    /// An answer of the tailnet, which cannot be asked.
    Unreachable,
    /// Its devices.
    Clearing,
}

/// A step towards a clear device. Each counts once, so that what repeats is no progress for ever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// A read of this kind was answered.
    Read(NodeId, &'static str),
    /// A change of this field was accepted.
    Changed(NodeId, Field),
    /// Nothing is left on the device.
    Cleared(NodeId),
}

/// The time that is left to a policy that is being deleted.
#[derive(Debug)]
pub(super) struct Deadline {
    patience: Duration,
    clearing: Duration,
    unreachable: Duration,
    waits: Waits,
    /// Until when the time is counted; `None` before the first step as the leader.
    counted_at: Option<Duration>,
    steps: BTreeSet<Progress>,
}

impl Deadline {
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            clearing: Duration::ZERO,
            unreachable: Duration::ZERO,
            waits: Waits::default(),
            counted_at: None,
            steps: BTreeSet::new(),
        }
    }

    /// Counts nothing of what was before.
    pub fn restart(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Counts the time since the last call for what it waited for then.
    pub fn count(&mut self, waits: Waits, now: Duration) {
        let passed = self.counted_at.map(|at| now.saturating_sub(at));
        match self.waits {
            Waits::Held => {}
            Waits::Unreachable => self.unreachable += passed.unwrap_or_default(),
            Waits::Clearing => self.clearing += passed.unwrap_or_default(),
        }
        self.waits = waits;
        self.counted_at = Some(now);
    }

    pub fn progress(&mut self, step: Progress, now: Duration) {
        if self.steps.insert(step) {
            self.clearing = Duration::ZERO;
            self.unreachable = Duration::ZERO;
            self.counted_at = self.counted_at.map(|_| now);
        }
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// When the time is over, if what it waits for stays the same.
    pub fn ends_at(&self) -> Option<Duration> {
        let spent = match self.waits {
            Waits::Held => return None,
            Waits::Unreachable => self.unreachable,
            Waits::Clearing => self.clearing,
        };
        Some(self.counted_at? + self.patience.saturating_sub(spent))
    }

    pub fn is_over(&self) -> bool {
        self.ends_at().is_some() && self.ends_at() <= self.counted_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn node(number: usize) -> NodeId {
        format!("n{number}CNTRL").parse().unwrap()
    }

    #[test]
    fn the_time_runs_while_it_clears_stands_still_while_it_is_held_and_begins_anew_with_progress() {
        let mut deadline = Deadline::new(10 * MINUTE);
        deadline.count(Waits::Clearing, 100 * MINUTE);
        assert_eq!(deadline.ends_at(), Some(110 * MINUTE));
        deadline.count(Waits::Held, 104 * MINUTE);
        assert_eq!(deadline.ends_at(), None);
        deadline.count(Waits::Clearing, 500 * MINUTE);
        assert_eq!(deadline.ends_at(), Some(506 * MINUTE));
        deadline.progress(Progress::Cleared(node(1)), 505 * MINUTE);
        assert_eq!(deadline.ends_at(), Some(515 * MINUTE));
        // The same is no progress again.
        deadline.progress(Progress::Cleared(node(1)), 510 * MINUTE);
        deadline.count(Waits::Clearing, 515 * MINUTE);
        assert!(deadline.is_over());
    }

    #[test]
    fn an_outage_has_a_time_of_its_own_and_ends_nothing_by_coming_back() {
        let mut deadline = Deadline::new(10 * MINUTE);
        let mut now = Duration::ZERO;
        let mut count = |deadline: &mut Deadline, waits, minutes| {
            deadline.count(waits, now);
            now += minutes * MINUTE;
        };
        for _ in 0..3 {
            count(&mut deadline, Waits::Unreachable, 3);
            count(&mut deadline, Waits::Clearing, 1);
            assert!(!deadline.is_over());
        }
        count(&mut deadline, Waits::Unreachable, 1);
        count(&mut deadline, Waits::Unreachable, 0);
        assert!(deadline.is_over());
    }
}
