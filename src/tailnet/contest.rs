//! Detects another writer that keeps changing a setting back.
//!
//! | observed                                           | response                                |
//! |----------------------------------------------------|-----------------------------------------|
//! | the written value was changed back: a reversal     | the value is written again at once      |
//! | the third reversal of one field within an hour     | contested: one try an hour from then on |
//! | the value stays for an hour, or a policy is edited | the contest is forgotten                |
//!
//! Contests are in memory only: a restart forgets them.

use std::time::Duration;

use super::{Failure, Retry};
use crate::{
    model::Reason,
    plan::{Change, Difference, PolicyKey},
};

const HOUR: Duration = Duration::from_hours(1);
/// This many reversals within an hour are no accident.
const MAX_REVERSALS: usize = 3;

/// A field of a device that was written, and the reversals since.
#[derive(Debug)]
pub(super) struct Contest {
    owners: Vec<PolicyKey>,
    /// The last write and its time; `None` once it was reversed.
    written: Option<(Change, Duration)>,
    /// The times of the last reversals.
    reversals: Vec<Duration>,
    count: usize,
    contested: Option<Box<Contested>>,
}

#[derive(Debug)]
struct Contested {
    /// The change that would set the desired value again.
    change: Change,
    /// No write before this time.
    paused_until: Duration,
}

impl Contest {
    /// Starts with a write.
    pub fn new(written: &Difference, now: Duration) -> Self {
        let mut contest = Self {
            owners: Vec::new(),
            written: None,
            reversals: Vec::new(),
            count: 0,
            contested: None,
        };
        contest.write(written, now);
        contest
    }

    /// Notes a write.
    pub fn write(&mut self, difference: &Difference, now: Duration) {
        // Those of the last write: entries of other owners in the same list are not contested.
        self.owners = difference.owners().cloned().collect();
        self.written = Some((difference.change.clone(), now));
    }

    /// The read right after a write shows the value from before: the API may have ignored the request, or
    /// answered from an older state. That is no reversal, unless the field is contested already.
    pub fn note_ineffective(&mut self) {
        if self.contested.is_none() {
            self.written = None;
        }
    }

    /// Takes an observed difference. Returns whether it is a reversal that makes the field contested or keeps
    /// it contested.
    pub fn observe(&mut self, difference: &Difference, now: Duration) -> bool {
        // Taken, so that one write counts as one reversal, however often it is compared.
        let Some((_, written_at)) = self
            .written
            .take_if(|(written, _)| written.undone_by(&difference.change))
        else {
            return false;
        };
        // The value has stayed for an hour, so the other writer has given up.
        if now >= written_at + HOUR {
            self.reversals.clear();
            self.count = 0;
            self.contested = None;
        }
        self.reversals.push(now);
        self.count += 1;
        // Only the last ones decide, and a contest can go on for months.
        if self.reversals.len() > MAX_REVERSALS {
            self.reversals.remove(0);
        }
        let of_this_hour = self.reversals.iter().filter(|at| now < **at + HOUR).count();
        if self.contested.is_none() && of_this_hour < MAX_REVERSALS {
            return false;
        }
        self.contested = Some(Box::new(Contested {
            change: difference.change.clone(),
            paused_until: now + HOUR,
        }));
        true
    }

    /// The failure to report, if the field is contested. `view`: the change as the policy may see it.
    pub fn failure_now(&self, view: impl Fn(&Change) -> Change) -> Option<Failure> {
        let change = view(&self.contested.as_ref()?.change);
        let field = change.field();
        Some(Failure {
            reason: Reason::Contested,
            message: format!(
                "Another writer keeps changing it back: {} times so far, the last time from {} to {}. The \
                 controller writes it once an hour until it stays for an hour. Find the writer in the \
                 tailnet's configuration log and stop it, or remove {field} from the policy.",
                self.count,
                change.after(),
                change.before(),
            ),
            retry: Retry::Later,
            unknown_outcome: false,
        })
    }

    /// Whether the contest is over: the value has stayed for an hour. A field that still differs is not over.
    pub fn is_over(&self, differs: bool, now: Duration) -> bool {
        !differs && now >= self.ends_at()
    }

    fn ends_at(&self) -> Duration {
        // The hour starts again with each write, or a write at its end would end the contest unseen.
        let written = self.written.as_ref().map(|(_, at)| *at);
        written
            .or(self.reversals.last().copied())
            .unwrap_or_default()
            + HOUR
    }

    /// Whether it concerns one of these policies.
    pub fn concerns<'a>(&self, mut policies: impl Iterator<Item = &'a PolicyKey>) -> bool {
        policies.any(|policy| self.owners.contains(policy))
    }

    /// Whether the field is written once an hour at most.
    pub const fn is_contested(&self) -> bool {
        self.contested.is_some()
    }

    /// Whether the reversed change was made for all of these policies.
    pub fn is_of<'a>(&self, mut policies: impl Iterator<Item = &'a PolicyKey>) -> bool {
        policies.all(|policy| self.owners.contains(policy))
    }

    /// Whether nothing is written now.
    pub fn is_paused(&self, now: Duration) -> bool {
        let contested = self.contested.as_ref();
        contested.is_some_and(|contested| now < contested.paused_until)
    }

    /// When to write again or to end the contest.
    pub fn wakes_at(&self) -> Option<Duration> {
        let contested = self.contested.as_ref()?;
        Some(match &self.written {
            Some(_) => self.ends_at(),
            None => contested.paused_until,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::SettingValue, plan::Why, tailnet::tests::key};

    const MINUTE: Duration = Duration::from_mins(1);

    /// The policy `owner` wants a device authorized that is not.
    fn difference() -> Difference {
        Difference {
            node: "n1CNTRL".parse().unwrap(),
            device: "fra".to_owned(),
            change: Change::Setting {
                before: Some(SettingValue::Authorized(false)),
                after: SettingValue::Authorized(true),
            },
            why: Why::Declared,
            cause: None,
            owner: key("owner"),
            others: Vec::new(),
            hold: None,
        }
    }

    /// A contest after so many reversals, one a minute, the first after a minute.
    fn reversed(times: u32) -> Contest {
        let mut contest = Contest::new(&difference(), Duration::ZERO);
        for time in 1..=times {
            contest.observe(&difference(), MINUTE * time);
            contest.write(&difference(), MINUTE * time);
        }
        contest
    }

    #[test]
    fn the_third_reversal_within_an_hour_pauses_the_field_for_an_hour() {
        let mut contest = reversed(2);
        assert!(!contest.is_contested() && !contest.is_paused(MINUTE * 2));
        assert!(contest.failure_now(Clone::clone).is_none());
        assert!(contest.observe(&difference(), MINUTE * 3));
        assert!(contest.is_contested() && contest.is_paused(MINUTE * 62));
        assert_eq!(contest.wakes_at(), Some(MINUTE * 63));
        assert!(!contest.is_paused(MINUTE * 63));
        let failure = contest.failure_now(Clone::clone).unwrap();
        assert_eq!(failure.reason, Reason::Contested);
        assert!(failure.message.contains("3 times so far"), "{failure:?}");
    }

    #[test]
    fn reversals_far_apart_are_no_contest() {
        let mut contest = Contest::new(&difference(), Duration::ZERO);
        for time in [1, 31, 62, 93] {
            assert!(!contest.observe(&difference(), MINUTE * time));
            contest.write(&difference(), MINUTE * time);
        }
        assert!(!contest.is_contested());
    }

    #[test]
    fn a_difference_counts_once_for_each_write() {
        let mut contest = Contest::new(&difference(), Duration::ZERO);
        for time in 1..9 {
            contest.observe(&difference(), MINUTE * time);
        }
        assert!(!contest.is_contested());
    }

    #[test]
    fn a_write_without_effect_is_no_reversal() {
        let mut contest = reversed(2);
        contest.note_ineffective();
        assert!(!contest.observe(&difference(), MINUTE * 3));
        assert!(!contest.is_contested());
    }

    #[test]
    fn a_contest_is_over_once_the_value_has_stayed_for_an_hour() {
        let contest = reversed(3);
        assert!(contest.is_contested());
        assert!(!contest.is_over(false, MINUTE * 62));
        assert!(contest.is_over(false, MINUTE * 63));
        assert!(!contest.is_over(true, MINUTE * 63));
        assert_eq!(contest.wakes_at(), Some(MINUTE * 63));
    }

    #[test]
    fn a_contest_concerns_the_policies_whose_change_was_reversed() {
        let contest = reversed(3);
        let both = [key("owner"), key("other")];
        assert!(contest.concerns(both.iter()) && !contest.concerns(both[1..].iter()));
        assert!(contest.is_of(both[..1].iter()) && !contest.is_of(both.iter()));
    }
}
