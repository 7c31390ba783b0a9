//! An engine that carries out one approved plan, and is finished then: see
//! [`crate::tailnet::approved_plan`].

use super::Engine;
use crate::{
    plan::Difference,
    tailnet::{
        Failure, Settings,
        approved_plan::{ApprovedPlan, RemainingChange},
        device_state::DeviceState,
        gate::Gate,
    },
};

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
        // Without a list nothing more can be done, so waiting for the rest would never end.
        if self.given_up().is_some() {
            return true;
        }
        self.gate.leads()
            && self.gate.has_listed_policies()
            && self.gate.is_connected()
            // While lists fail, nothing is sent: the run goes on until they succeed, or until it gives up.
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

    /// Whether a read since the start shows that a change is made already.
    #[must_use]
    pub fn has_seen_made(&self, difference: &Difference) -> bool {
        let Some(device) = self.observed.index().get(&difference.node) else {
            return false;
        };
        let attributes = self.devices.get(&difference.node);
        let attributes = attributes.and_then(DeviceState::attributes);
        // Without a list there is no device. What was not read since is unknown, and no reason to call it in sync.
        difference.change.is_made_in(device, attributes) == Some(true)
    }

    /// The differences that remain, by device, except those of policies that do not act.
    pub fn remaining(&self) -> impl Iterator<Item = RemainingChange<'_>> {
        self.devices.values().flat_map(|node| {
            let differences = node.plan().differences.iter();
            differences.map(|difference| RemainingChange {
                difference,
                failure: node.failure_of(difference),
            })
        })
    }

    /// The devices that could not be read, by name, with the failure.
    pub fn unread(&self) -> impl Iterator<Item = (String, &Failure)> {
        self.devices.iter().flat_map(|(id, node)| {
            let device = self.observed.index().get(id);
            let label = device.map_or_else(|| id.to_string(), |it| it.label().to_string());
            let backoffs = node.reads_in_force();
            backoffs.map(move |backoff| (label.clone(), &backoff.failure))
        })
    }
}
