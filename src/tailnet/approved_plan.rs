//! An engine that carries out one approved plan, and is finished then.
//!
//! It reads everything again before the first write, as always. It holds every difference that is not in the
//! approved plan ([`crate::plan::Hold::NotInApprovedPlan`]), so that it sends nothing that no one has seen.

use std::{collections::BTreeSet, time::Duration};

use super::{Failure, device_state::DeviceState, failure::Backoff};
use crate::plan::{Changes, Difference, PolicyKey};

/// The plan that a person has approved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovedPlan {
    /// The only changes that may be made.
    pub changes: Changes,
    /// The policies that the change limit held. Their share of shared lists stays as it was in the plan,
    /// however many devices are changed meanwhile.
    pub limited: BTreeSet<PolicyKey>,
}

/// A difference that remains.
#[derive(Debug)]
pub struct RemainingChange<'a> {
    /// The difference.
    pub difference: &'a Difference,
    /// Why the change failed, if it was tried.
    pub failure: Option<Failure>,
}

impl DeviceState {
    /// Whether a failed request will be tried again: the device's timer fires for it, or before it.
    pub fn is_tried_again(&self, wake_at: Duration) -> bool {
        let mut backoffs = self.backoffs_in_force();
        backoffs.any(|backoff| backoff.retry_at >= wake_at && !backoff.is_given_up())
    }

    /// The backoffs that delay a change or a read that is needed.
    fn backoffs_in_force(&self) -> impl Iterator<Item = &Backoff> {
        let open = self
            .plan()
            .differences
            .iter()
            .filter(|difference| difference.hold.is_none());
        let of_fields =
            open.filter_map(|difference| self.progress().backoff(&difference.change.field()));
        of_fields.chain(self.reads_in_force())
    }

    pub fn failure_of(&self, difference: &Difference) -> Option<Failure> {
        let field = difference.change.field();
        let contest = self.progress().contest(&field);
        let contested = contest.and_then(|contest| contest.failure_now(Clone::clone));
        let backoff = self.progress().backoff(&field);
        let backoff = backoff.filter(|_| difference.hold.is_none());
        contested.or(backoff.map(|backoff| backoff.failure.clone()))
    }
}
