//! How long a policy that is being deleted may take to clear its devices before the engine gives up.
//!
//! The time is measured with the monotonic clock, from the moment when this process leads and knows of the
//! deletion. The deletion timestamp plays no part: no controller may have run since, and the clocks of two
//! machines differ.
//!
//! | the policy waits for                                      | the time                            |
//! |-----------------------------------------------------------|-------------------------------------|
//! | an approval, or the change limit                          | stands still                        |
//! | its record to become durable: nothing is sent before      | stands still                        |
//! | the API, which does not answer                            | runs, counted separately            |
//! | anything else                                             | runs                                |
//! | (a device is read, changed or cleared for the first time) | starts again: that is progress      |

use std::{collections::BTreeSet, time::Duration};

use crate::{model::NodeId, plan::Field};

/// What a policy that is being deleted waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// A person or the change limit: no time is counted.
    #[default]
    Held,
    /// The API, which does not answer.
    Unreachable,
    /// Its devices.
    Clearing,
}

/// A step towards a cleared device. Each step counts once, so that repeating it is not endless progress.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// A read of this kind was answered.
    Read(NodeId, &'static str),
    /// A change of this field was accepted.
    Changed(NodeId, Field),
    /// Nothing is left on the device.
    Cleared(NodeId),
}

/// The deadline of a policy that is being deleted.
#[derive(Debug)]
pub(super) struct Deadline {
    patience: Duration,
    clearing: Duration,
    unreachable: Duration,
    waits: Waits,
    /// Up to when the time is counted; `None` before the first step as the leader.
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

    /// Starts to count again from zero.
    pub fn restart(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Counts the time since the last call towards what the policy waited for then.
    pub fn count(&mut self, waits: Waits, now: Duration) {
        // Before the first step as the leader nobody could clear anything, so no time has passed.
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
        // Only the first time: a step that repeats must not keep the finalizer for ever.
        if self.steps.insert(step) {
            self.clearing = Duration::ZERO;
            self.unreachable = Duration::ZERO;
            self.counted_at = self.counted_at.map(|_| now);
        }
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// When the deadline passes, if the policy keeps waiting for the same thing.
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
    fn the_time_runs_while_clearing_stands_still_while_held_and_restarts_with_progress() {
        let mut deadline = Deadline::new(10 * MINUTE);
        deadline.count(Waits::Clearing, 100 * MINUTE);
        assert_eq!(deadline.ends_at(), Some(110 * MINUTE));
        deadline.count(Waits::Held, 104 * MINUTE);
        assert_eq!(deadline.ends_at(), None);
        deadline.count(Waits::Clearing, 500 * MINUTE);
        assert_eq!(deadline.ends_at(), Some(506 * MINUTE));
        deadline.progress(Progress::Cleared(node(1)), 505 * MINUTE);
        assert_eq!(deadline.ends_at(), Some(515 * MINUTE));
        // The same step is no progress again.
        deadline.progress(Progress::Cleared(node(1)), 510 * MINUTE);
        deadline.count(Waits::Clearing, 515 * MINUTE);
        assert!(deadline.is_over());
    }

    #[test]
    fn an_outage_has_its_own_time_and_intermittent_outages_do_not_pass_the_deadline() {
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
