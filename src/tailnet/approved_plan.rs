//! An engine that carries out one approved plan, and is finished then.
//!
//! It reads everything again before the first write, as always. It holds every difference that is not in the
//! approved plan ([`crate::plan::Hold::NotAgreed`]), so that it sends nothing that nobody has seen.

use std::{collections::BTreeSet, time::Duration};

use super::{Engine, Failure, Settings, device_state::DeviceState, failure::Backoff, gate::Gate};
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

impl Engine {
    /// An engine that makes these changes, tries each a few times at most, and is finished then.
    #[must_use]
    pub fn for_approved_plan(settings: Settings, seed: u64, approved: ApprovedPlan) -> Self {
        Self {
            gate: Gate::for_approved_plan(approved),
            ..Self::new(settings, seed)
        }
    }

    /// Whether each change of the approved plan is made, or has failed for good. Always `false` for an engine
    /// that was not made by [`Engine::for_approved_plan`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if self.gate.approved_plan().is_none() || !self.is_idle() {
            return false;
        }
        if self.given_up().is_some() {
            return true;
        }
        self.gate.leads()
            && self.gate.has_listed_policies()
            && self.gate.is_connected()
            && self.observed.polling().is_closed()
            && self.dirty.awaiting_step().next().is_none()
            && !self.matching.is_evaluating()
            && self.queues.at_work().next().is_none()
            && !self.devices.iter().any(|(id, node)| {
                let timer = self.devices.timer_of(id);
                timer.is_some_and(|wake_at| node.is_tried_again(wake_at))
            })
    }

    /// Why the engine gave up polling, if it did.
    #[must_use]
    pub fn given_up(&self) -> Option<&Failure> {
        self.observed.polling().gave_up()
    }

    /// Whether the list of devices has been read.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.observed.lists() > 0
    }

    /// The differences that remain, by device, except those of policies that do not act.
    pub fn remaining(&self) -> impl Iterator<Item = RemainingChange<'_>> {
        self.devices.values().flat_map(|node| {
            let differences = node.plan.differences.iter();
            differences.map(|difference| RemainingChange {
                difference,
                failure: node.failure_of(difference),
            })
        })
    }

    /// The devices that could not be read, by name, with the failure.
    pub fn unread(&self) -> impl Iterator<Item = (String, &Failure)> {
        self.devices.iter().flat_map(|(id, node)| {
            let label = self
                .observed
                .index()
                .get(id)
                .map(|device| device.label().to_string());
            let label = label.unwrap_or_else(|| id.to_string());
            let backoffs = node.reads_in_force();
            backoffs.map(move |backoff| (label.clone(), &backoff.failure))
        })
    }
}

impl DeviceState {
    /// Whether a failed request will be tried again: the device's timer fires for it, or before it.
    fn is_tried_again(&self, wake_at: Duration) -> bool {
        let mut backoffs = self.backoffs_in_force();
        backoffs.any(|backoff| backoff.retry_at >= wake_at && !backoff.is_given_up())
    }

    /// The backoffs that delay a change or a read that is needed.
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
