//! The state machine of one tailnet: its parts, and the phases of a step in their order.
//!
//! Each part owns its state and has a small API. It knows neither the engine nor the state of another part.
//! A phase is a function over the parts that it reads and changes; `parts` lists them, and the compiler holds
//! the phase to them. It marks in [`Dirty`] what follows from its changes. Data flows from the first phase to
//! the last; only marks flow back, into the next step.
//!
//! | phase | what it does | where |
//! |---|---|---|
//! | intake | takes an input: facts and what people declare | `intake`, `list`, `reads`, `writes`, `declared` |
//! | targeting | policies → devices | `targeting`, `evaluation`, `release`, `sign_ins` |
//! | planning | devices → plans, within the change limit | `planning`, `ownership`, `actions`, `claims`, `limit` |
//! | dispatch | plans → requests | `dispatch`, `send`, `poll` |
//! | closing | decides what is reported: freezes plans, ends deletions | `closing`, `reserve`, `deleting` |
//! | publish | emits what has changed | `publish`, `policy_report`, `selector_report`, `tailnet_report`, `reports` |

mod actions;
mod activity;
mod approved_plan;
mod backoff;
mod changes;
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
mod notify;
mod ownership;
mod parts;
mod planning;
mod policy_report;
mod poll;
mod publish;
mod reads;
mod release;
mod reports;
mod reserve;
mod selector_report;
mod send;
mod sign_ins;
mod tailnet_report;
mod targeting;
mod unsent;
mod writes;

use std::time::Duration;

use self::{
    actions::expire_deletions,
    deleting::next_cleanup,
    limit::expire_changes,
    lookup::find_device,
    poll::poll,
    send::{next_lookup, still_wants},
};
use super::{
    Doubt, Effect, Failure, Input, Now, Settings, Ticket,
    change_budget::ChangeBudget,
    devices::Devices,
    dirty::{Dirty, Phases},
    gate::Gate,
    lanes::Queues,
    matching::Matching,
    observed::Observed,
    outbox::Outbox,
    policy_set::PolicySet,
    records::Records,
    status_book::StatusBook,
};
use crate::{
    model::NodeId,
    plan::{Binding, DeviceTarget, TailnetWide},
    tailscale::Haste,
};

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
            self.targeting().find_targets(now);
            self.planning().plan(now);
            if self.gate.may_send(&self.observed) {
                self.dispatching().dispatch(now);
            }
        }
        self.poll(now);
        let due = self.closing().close(now);
        self.publishing().publish(due);
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
        // An expiry may have passed meanwhile.
        self.dirty.plan_all(self.devices.take_fired(now.monotonic));
        expire_changes(&mut self.change_budget, &self.devices, &mut self.dirty, now);
        expire_deletions(
            &mut self.change_budget,
            &self.policies,
            &mut self.dirty,
            now,
        );
    }

    fn poll(&mut self, now: Now) {
        poll(&self.gate, &mut self.observed, &mut self.outbox, now);
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

    /// Whether the reasons for a write that waits to be sent still hold: this process leads, the connection
    /// is the one that the write was decided for, and the plan still has exactly these changes.
    #[must_use]
    pub fn still_wants(&self, ticket: Ticket, now: Now) -> bool {
        still_wants(
            &self.gate,
            &self.observed,
            &self.devices,
            &self.outbox,
            ticket,
            now,
        )
    }

    /// Whether anything may be written to the tailnet at all.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.gate.leads() && self.gate.is_connected() && !self.policies.guardrails().suspended()
    }

    /// Finds a device in the last lists for another controller, and tells why the result is in doubt.
    pub(super) fn find(
        &mut self,
        target: &DeviceTarget,
        bound: Option<&NodeId>,
    ) -> Result<(Binding, Option<Doubt>), Failure> {
        find_device(&self.gate, &mut self.observed, target, bound)
    }

    /// The number of devices with something to do, and of policies whose selector has devices left to match.
    #[must_use]
    pub fn backlog(&self) -> (usize, usize) {
        (self.queues.len(), self.matching.left())
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
            next_cleanup(&self.gate, &self.policies),
            self.records.due_at().filter(|_| self.gate.leads()),
        ];
        let evaluation = (self.gate.may_decide(&self.observed) && self.matching.is_evaluating())
            .then_some(Duration::ZERO);
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
            next_lookup(&self.gate, &self.observed, &self.outbox),
        ];
        own.into_iter().chain(ends).flatten().min()
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

    /// Whether the engine has a state for this device, for the simulation.
    pub(super) fn remembers(&self, id: &NodeId) -> bool {
        self.devices.get(id).is_some()
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
