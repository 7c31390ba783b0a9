//! The state machine of one tailnet: its parts, and the phases of a step in their order.
//!
//! Each part owns its state and has a small API. It knows neither the engine nor the state of another part.
//! The phases read all parts, change them, and mark in [`Dirty`] what follows from that. Data flows from the
//! first phase to the last; only marks flow back, into the next step.
//!
//! | phase | what it does | where |
//! |---|---|---|
//! | intake | takes an input: facts and what people declare | `intake`, `list`, `writes`, `declared` |
//! | targeting | policies → devices | `targeting`, `evaluation`, `release` |
//! | planning | devices → plans, within the change limit | `planning`, `ownership`, `actions`, `claims`, `limit` |
//! | dispatch | plans → requests | `dispatch`, `send` |
//! | closing | decides what is reported: freezes plans, ends deletions | `closing`, `reserve`, `deleting` |
//! | publish | emits what has changed | `publish`, `reports` |

mod actions;
mod approved_plan;
mod claims;
mod closing;
mod declared;
mod deleting;
mod dispatch;
mod evaluation;
mod intake;
mod limit;
mod list;
mod lookup;
mod ownership;
mod planning;
mod publish;
mod release;
mod reports;
mod reserve;
mod selector_report;
mod send;
mod sign_ins;
mod targeting;
mod writes;

use std::time::Duration;

use super::{
    Effect, Failure, Input, Notification, Now, Settings,
    change_budget::ChangeBudget,
    device_state::{DeviceState, StepContext},
    devices::Devices,
    dirty::{Dirty, Phases},
    failure::Backoff,
    gate::Gate,
    lanes::Queues,
    matching::Matching,
    mutants::mutant,
    observed::Observed,
    outbox::Outbox,
    policy_set::PolicySet,
    records::Records,
    status_book::StatusBook,
};
use crate::{
    model::NodeId,
    plan::{PolicyKey, TailnetWide},
    tailscale::Haste,
};

/// The minimum time for which a read counts as fresh for a request that sends unmanaged values along.
const FRESH: Duration = Duration::from_secs(10);

/// The state machine of one tailnet: see the module's documentation.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    rng: fastrand::Rng,
    /// What may be done at all.
    gate: Gate,
    /// What the API has reported.
    observed: Observed,
    policies: PolicySet,
    /// Which policies still have devices to match.
    matching: Matching,
    /// Settings that are unique in the tailnet: who declares them and which device has them.
    tailnet_wide: TailnetWide,
    devices: Devices,
    /// The devices with something to do.
    queues: Queues,
    change_budget: ChangeBudget,
    /// When records are written.
    records: Records,
    /// What must be computed again.
    dirty: Dirty,
    /// What was reported last.
    statuses: StatusBook,
    /// What leaves the engine.
    outbox: Outbox,
}

impl Engine {
    /// An engine that knows nothing yet and may not write. `seed` determines the jitter.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            policies: PolicySet::new(settings.guardrails.clone()),
            settings,
            rng: fastrand::Rng::with_seed(seed),
            gate: Gate::default(),
            observed: Observed::default(),
            matching: Matching::default(),
            tailnet_wide: TailnetWide::default(),
            devices: Devices::default(),
            queues: Queues::default(),
            change_budget: ChangeBudget::default(),
            records: Records::default(),
            dirty: Dirty::default(),
            statuses: StatusBook::default(),
            outbox: Outbox::default(),
        }
    }

    /// Takes an input and returns the effects to carry out.
    #[must_use]
    pub fn step(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let now = self.absorb(input, now);
        self.begin_step(now);
        if self.gate.may_decide(&self.observed) {
            self.find_targets(now);
            self.plan(now);
            if self.gate.may_send(&self.observed) {
                self.dispatch(now);
            }
        }
        self.poll(now);
        let due = self.close(now);
        self.publish(due);
        self.outbox.end_step(self.queues.is_quick(now.monotonic))
    }

    /// Begins a step: time has passed.
    fn begin_step(&mut self, now: Now) {
        self.dirty.begin_step();
        self.outbox.begin_step();
        // The poll does not take every turn if others wait too.
        if !self.outbox.last_turn_went_to_list() {
            self.poll(now);
        }
        self.fire_timers(now.monotonic);
        self.expire_changes(now);
        self.expire_deletions(now);
    }

    /// The settings of the tailnet.
    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a request waits for a turn ([`Input::Turn`]). Which request it is, is decided only then.
    #[must_use]
    pub fn wants_turn(&self) -> Option<Haste> {
        self.outbox.wants_turn()
    }

    /// Whether no request is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outbox.is_idle()
    }

    /// The time (monotonic) at which [`Input::Wake`] should come, if nothing else does before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        // Nothing new is begun while the engine stops, so no time is worth waking up for.
        if self.gate.is_stopping() {
            return None;
        }
        // While something waits for a turn, the turn is the next occasion to send anything.
        let waits_for_turn = self.outbox.waits_for_turn();
        let poll = (self.gate.is_connected() && !waits_for_turn)
            .then(|| self.observed.polling().wake_at())
            .flatten();
        let timer = self.devices.next_timer();
        // Without a free lane, the batch waits for the next answer.
        let batch = (self.gate.may_send(&self.observed)
            && !waits_for_turn
            && self.queues.batch_size() > 0
            && self.outbox.lane_opens_at().is_none())
        .then(|| self.queues.batch_waits_until());
        let lane = self
            .outbox
            .lane_opens_at()
            .filter(|_| self.gate.may_send(&self.observed));
        let ends = [
            self.change_budget.holds_until(),
            self.next_cleanup(),
            self.records.due_at().filter(|_| self.gate.leads()),
        ];
        let evaluation = self.evaluates_at();
        let may_run = Phases {
            decide: self.gate.may_decide(&self.observed),
            approve: self.gate.leads(),
            send: self.gate.may_send(&self.observed),
        };
        let dirty = self.dirty.is_due(may_run).then_some(Duration::ZERO);
        let own = [
            poll,
            timer,
            batch,
            lane,
            evaluation,
            dirty,
            self.next_lookup(),
        ];
        own.into_iter().chain(ends).flatten().min()
    }

    pub(super) fn step_context(
        &self,
        id: &NodeId,
        node: &DeviceState,
        now: Duration,
    ) -> StepContext {
        let is_recorded = |key: &PolicyKey| {
            let entry = self.policies.get(key);
            entry.is_some_and(|entry| entry.records().are_durable_at(id))
        };
        StepContext {
            missing: self.observed.absence().is_missing(id),
            recorded: (node.all_policies().all(is_recorded) || mutant!(RequestBeforeRecord))
                && self.may_change(id),
            refresh: self
                .observed
                .read_interval(id, self.settings.attributes_interval),
            list_trusted: self.observed.polling().is_trusted(now),
            fresh_for: self.fresh_for(),
            now,
        }
    }

    pub(super) fn report_all(&mut self) {
        self.dirty.report_all(self.policies.keys().cloned());
    }

    pub(super) fn backoff(
        &mut self,
        failure: Failure,
        before: Option<&Backoff>,
        now: Now,
    ) -> Backoff {
        // What only an edit can fix is tried rarely, as the edit may be made elsewhere, such as in tagOwners.
        let rare = (self.settings.poll_interval * 10).max(Duration::from_secs(10));
        let backoff = Backoff::new(failure, before, now.monotonic, rare, &mut self.rng);
        match &self.gate.approved_plan() {
            Some(_) => backoff.or_give_up(),
            None => backoff,
        }
    }

    /// The maximum age of attributes of any device.
    pub(super) fn refresh(&self) -> Duration {
        self.observed
            .longest_read_interval(self.settings.attributes_interval)
    }

    /// How old a read may be for a request that sends unmanaged values along: a few seconds, or as long as
    /// the budget needs for the request to follow the read.
    pub(super) fn fresh_for(&self) -> Duration {
        let two_requests = 2.0 / self.settings.requests_per_second;
        FRESH.max(Duration::try_from_secs_f64(two_requests).unwrap_or_default())
    }

    /// Notifies the authors of a policy.
    pub(super) fn notify(&mut self, key: &PolicyKey, notification: Notification) {
        if self.gate.leads() {
            self.outbox.notify(key, notification);
        }
    }
}

#[cfg(test)]
impl Engine {
    /// What the engine knows, for the simulation.
    pub(super) const fn observed(&self) -> &Observed {
        &self.observed
    }

    /// The policies, for the simulation.
    pub(super) const fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// Whether selectors are left to match, for the simulation.
    pub(super) fn is_evaluating(&self) -> bool {
        self.matching.is_evaluating()
    }

    /// Makes the share of matching in one step small.
    pub(super) fn set_evaluation_share(&mut self, share: usize) {
        self.matching.set_share(share);
    }

    /// Limits the record of owned keys.
    pub(super) fn set_record_capacity(&mut self, capacity: crate::plan::Capacity) {
        self.records.set_capacity(capacity);
    }
}
