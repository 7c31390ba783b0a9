//! Decides when a report that could not be written is tried again.
//!
//! If the status of one object cannot be written, that object alone waits, with a growing backoff. If several
//! fail in a row, the cause is not the objects (a missing role, an API server that does not answer): then one
//! is tried at a time, and the others wait.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::failure::backoff_up_to;
use crate::plan::PolicyKey;

/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// This many failures in a row are no fault of a single object.
const IN_A_ROW: u32 = 5;

/// Whose report it is: a policy's, or the tailnet's.
pub(super) type Subject = Option<PolicyKey>;

/// The backoffs of a queue of reports.
#[derive(Debug, Default)]
pub(super) struct Retries {
    pauses: BTreeMap<Subject, Pause>,
    failed_in_a_row: u32,
    all_until: Option<Instant>,
}

#[derive(Debug)]
struct Pause {
    failures: u32,
    until: Instant,
}

impl Retries {
    /// Whether any report may be tried now, beside `writing` others.
    pub fn allow_any(&self, writing: usize, now: Instant) -> bool {
        // One at a time shows whether the API server is back, without all of them waiting for its timeout.
        let alone = self.failed_in_a_row < IN_A_ROW || writing == 0;
        alone && self.all_until.is_none_or(|until| until <= now)
    }

    /// Whether this report's own pause is over.
    pub fn allow(&self, subject: &Subject, now: Instant) -> bool {
        let pause = self.pauses.get(subject);
        pause.is_none_or(|pause| pause.until <= now)
    }

    /// A report was written, or its object is gone.
    pub fn succeeded(&mut self, subject: &Subject) {
        self.pauses.remove(subject);
        // A success shows that the cause does not concern all.
        self.failed_in_a_row = 0;
        self.all_until = None;
    }

    /// A report was not written. Returns when a report may be tried again.
    pub fn failed(&mut self, subject: Subject, now: Instant) -> Instant {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        let failures = self.pauses.get(&subject).map_or(1, |it| it.failures + 1);
        let until = now + pause(failures);
        self.pauses.insert(subject, Pause { failures, until });
        // A few objects that fail on their own must not delay the others.
        if self.failed_in_a_row < IN_A_ROW {
            return until;
        }
        let all_until = now + pause(self.failed_in_a_row - IN_A_ROW + 1);
        self.all_until = Some(all_until);
        all_until.max(until)
    }

    /// Its object is gone.
    pub fn forget(&mut self, subject: &Subject) {
        self.pauses.remove(subject);
    }
}

fn pause(failures: u32) -> Duration {
    backoff_up_to(MAX_PAUSE, failures, &mut fastrand::Rng::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tailnet::tests::key;

    #[test]
    fn an_object_that_refuses_its_status_waits_alone_and_ever_longer() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let (bad, good) = (Some(key("bad")), Some(key("good")));
        let mut tries = 0;
        let end = now + Duration::from_mins(10);
        while now < end {
            if retries.allow_any(0, now) && retries.allow(&bad, now) {
                tries += 1;
                retries.failed(bad.clone(), now);
                assert!(
                    retries.allow_any(1, now) && retries.allow(&good, now),
                    "after {tries} tries"
                );
                retries.succeeded(&good);
            }
            now += Duration::from_millis(100);
        }
        assert!((18..=32).contains(&tries), "{tries} tries in ten minutes");
    }

    #[test]
    fn if_nothing_can_be_written_few_are_tried() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        let subjects: Vec<Subject> = (0..200).map(|n| Some(key(&n.to_string()))).collect();
        let mut tries = 0;
        let end = now + Duration::from_secs(30);
        while now < end {
            let mut writing = 0;
            for subject in &subjects {
                if writing < 8 && retries.allow_any(writing, now) && retries.allow(subject, now) {
                    writing += 1;
                    tries += 1;
                    retries.failed(subject.clone(), now);
                }
            }
            now += Duration::from_millis(50);
        }
        assert!((5..=16).contains(&tries), "{tries} tries in 30 s");
        // Once one is written, all may be tried.
        let later = end + MAX_PAUSE * 2;
        retries.succeeded(&subjects[0]);
        assert!(retries.allow_any(7, later));
        assert!(subjects.iter().all(|subject| retries.allow(subject, later)));
    }
}
