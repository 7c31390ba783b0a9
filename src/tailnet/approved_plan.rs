//! An engine that carries out one plan that somebody has agreed to, and is finished then.
//!
//! It looks at everything anew before the first write, as always. What it finds to differ otherwise
//! than was agreed to is held ([`crate::plan::Hold::NotAgreed`]), so that nothing is sent that nobody has seen.

use std::collections::BTreeSet;

use super::{Engine, Failure, Settings, device_state::DeviceState, failure::Backoff};
use crate::plan::{Changes, Difference, PolicyKey};

/// What somebody has agreed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovedPlan {
    /// The changes that are made: no others.
    pub changes: Changes,
    /// The policies that the limit of changed devices held. They have the same part in shared lists
    /// as they had then, however many devices are changed meanwhile.
    pub limited: BTreeSet<PolicyKey>,
}

/// What differs still.
#[derive(Debug)]
pub struct RemainingChange<'a> {
    /// The difference.
    pub difference: &'a Difference,
    /// Why it could not be removed, where that was tried.
    pub failure: Option<Failure>,
}

impl Engine {
    /// An engine that makes these changes, tries each a few times at most, and is finished then.
    #[must_use]
    pub fn for_approved_plan(settings: Settings, seed: u64, approved: ApprovedPlan) -> Self {
        Self {
            approved_plan: Some(approved),
            ..Self::new(settings, seed)
        }
    }

    /// Whether all that it was to do is done, or has failed for good. Never so for one that was not made
    /// by [`Engine::once`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if self.approved_plan.is_none() || !self.is_idle() {
            return false;
        }
        if self.given_up().is_some() {
            return true;
        }
        self.leads()
            && self.policies_listed
            && self.connection.is_ok()
            && self.polling.is_closed()
            && self.dirty_steps.is_empty()
            && !self.is_evaluating()
            && self.queues.at_work().next().is_none()
            && !self.devices.values().any(DeviceState::is_tried_again)
    }

    /// Why the tailnet cannot be asked, if it has given up to ask.
    #[must_use]
    pub fn given_up(&self) -> Option<&Failure> {
        self.polling.gave_up()
    }

    /// Whether the list of devices has been seen.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.polling.seen > 0
    }

    /// What differs still, by device, but for what policies that do not act wish.
    pub fn remaining(&self) -> impl Iterator<Item = RemainingChange<'_>> {
        self.devices.values().flat_map(|node| {
            let differences = node.plan.differences.iter();
            differences.map(|difference| RemainingChange {
                difference,
                failure: node.failure_of(difference),
            })
        })
    }

    /// The devices that could not be looked at as was needed: their names, and why.
    pub fn unread(&self) -> impl Iterator<Item = (String, &Failure)> {
        self.devices.iter().flat_map(|(id, node)| {
            let label = self.index.get(id).map(|device| device.label().to_string());
            let label = label.unwrap_or_else(|| id.to_string());
            let backoffs = node.reads_in_force();
            backoffs.map(move |backoff| (label.clone(), &backoff.failure))
        })
    }
}

impl DeviceState {
    /// Whether something that failed will be tried again: its alarm rings for it, or before it.
    fn is_tried_again(&self) -> bool {
        let mut backoffs = self.backoffs_in_force();
        self.timer.is_some_and(|alarm| {
            backoffs.any(|backoff| backoff.retry_at >= alarm && !backoff.is_the_last())
        })
    }

    /// What makes something wait that is to be done.
    fn backoffs_in_force(&self) -> impl Iterator<Item = &Backoff> {
        let open = self.plan.differences.iter();
        let open = open.filter(|difference| difference.hold.is_none());
        let of_fields = open.filter_map(|difference| self.backoffs.get(&difference.change.field()));
        of_fields.chain(self.reads_in_force())
    }

    fn failure_of(&self, difference: &Difference) -> Option<Failure> {
        let field = difference.change.field();
        let contest = self.contests.get(&field);
        let contested = contest.and_then(|contest| contest.failure_now(Clone::clone));
        let backoff = self.backoffs.get(&field);
        contested.or(backoff.map(|backoff| backoff.failure.clone()))
    }
}
