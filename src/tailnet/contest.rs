//! Somebody else who keeps changing a setting back.
//!
//! | seen                                               | done                                    |
//! |----------------------------------------------------|-----------------------------------------|
//! | what we wrote is something else again: a reversal  | it is written anew at once              |
//! | the third reversal of one field within an hour     | contested: one try an hour from then on |
//! | it has stayed for an hour, or a policy was edited  | forgotten                               |
//!
//! Kept in memory only: after a restart it begins anew.

use std::time::Duration;

use super::{Failure, Retry};
use crate::{
    api::Reason,
    plan::{Change, Difference, PolicyKey},
};

const HOUR: Duration = Duration::from_hours(1);
/// So many reversals within an hour are no accident.
const MAX_REVERSALS: usize = 3;

/// What was written to one field of a device, and what became of it.
#[derive(Debug)]
pub(super) struct Contest {
    owners: Vec<PolicyKey>,
    /// What was written last, and when; `None` once it was reversed.
    written: Option<(Change, Duration)>,
    /// The last reversals.
    reversals: Vec<Duration>,
    count: usize,
    contested: Option<Contested>,
}

#[derive(Debug)]
struct Contested {
    /// What it is changed back to, seen from here.
    change: Change,
    /// No try before.
    paused_until: Duration,
}

impl Contest {
    /// What begins with a write.
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

    /// Something was written.
    pub fn write(&mut self, difference: &Difference, now: Duration) {
        self.owners = difference.owners().cloned().collect();
        self.written = Some((difference.change.clone(), now));
    }

    /// The device was looked at right after a write, and is as it was before: the API may have ignored
    /// the call, or answer out of an older state. That is no reversal, unless there were many before.
    pub fn miss(&mut self) {
        if self.contested.is_none() {
            self.written = None;
        }
    }

    /// A difference has been seen. Says whether it is a reversal that makes the field contested, or
    /// keeps it so.
    pub fn see(&mut self, difference: &Difference, now: Duration) -> bool {
        let reversed =
            |(written, _): &mut (Change, Duration)| written.undone_by(&difference.change);
        let Some((_, written_at)) = self.written.take_if(reversed) else {
            return false;
        };
        if now >= written_at + HOUR {
            self.reversals.clear();
            self.count = 0;
            self.contested = None;
        }
        self.reversals.push(now);
        self.count += 1;
        if self.reversals.len() > MAX_REVERSALS {
            self.reversals.remove(0);
        }
        let of_this_hour = self.reversals.iter().filter(|at| now < **at + HOUR).count();
        if self.contested.is_none() && of_this_hour < MAX_REVERSALS {
            return false;
        }
        self.contested = Some(Contested {
            change: difference.change.clone(),
            paused_until: now + HOUR,
        });
        true
    }

    /// Why it is tried no more than once an hour, if so. `view`: as the policy is told of a change.
    pub fn failure_now(&self, view: impl Fn(&Change) -> Change) -> Option<Failure> {
        let change = view(&self.contested.as_ref()?.change);
        let field = change.field();
        Some(Failure {
            reason: Reason::Contested,
            message: format!(
                "Somebody else keeps changing it: {} times so far, the last time from {} to {}. It is \
                 tried once an hour now, until it has stayed for an hour. The tailnet's configuration \
                 log says who it is; let them stop, or take {field} out of the policy.",
                self.count,
                change.after(),
                change.before(),
            ),
            retry: Retry::Later,
            unknown_outcome: false,
        })
    }

    /// Whether it has been put up with for an hour, or nobody wishes it any more. What still differs
    /// is not over.
    pub fn is_over(&self, differs: bool, now: Duration) -> bool {
        !differs && now >= self.ends_at()
    }

    fn ends_at(&self) -> Duration {
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

    /// Whether it is tried no more than once an hour.
    pub const fn is_contested(&self) -> bool {
        self.contested.is_some()
    }

    /// Whether all of these policies are among those whose change was undone.
    pub fn is_of<'a>(&self, mut policies: impl Iterator<Item = &'a PolicyKey>) -> bool {
        policies.all(|policy| self.owners.contains(policy))
    }

    /// Whether nothing is tried now.
    pub fn is_paused(&self, now: Duration) -> bool {
        let contested = self.contested.as_ref();
        contested.is_some_and(|contested| now < contested.paused_until)
    }

    /// When something is to be done about it.
    pub fn wakes_at(&self) -> Option<Duration> {
        let contested = self.contested.as_ref()?;
        Some(match &self.written {
            Some(_) => self.ends_at(),
            None => contested.paused_until,
        })
    }
}
