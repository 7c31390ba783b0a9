//! Fourth phase: from plans to requests. Decides the next step of each device, and sends what can be sent.

use std::{collections::BTreeMap, time::Duration};

use super::{
    actions::{Actions, have_begun},
    evaluation::{awaits_next_list, awaits_policies, is_undecided},
    limit::ChangeLimit,
    poll::poll,
};
use crate::{
    model::NodeId,
    plan::{AttributeWrites, Call, Difference, PolicyKey},
    tailnet::{
        Now, Request, Settings,
        change_budget::ChangeBudget,
        device_state::{Cause, DeviceState, Scope, Step, StepContext},
        devices::Devices,
        dirty::Dirty,
        gate::Gate,
        lanes::{Lane, Queues},
        matching::Matching,
        mutants::mutant,
        observed::Observed,
        outbox::Outbox,
        policy_set::PolicySet,
    },
};

/// More devices than this are verified by one list instead of a read of each. A policy with more devices is
/// not urgent, as it would delay all others for long.
const MANY: usize = 20;
/// How long a batch waits while others keep joining or taking the turns.
const BATCH_LIMIT: Duration = Duration::from_secs(4);
/// The number of devices in one batch of attribute writes (from the design; the API documents none).
const BATCH_SIZE: usize = 50;

/// What this phase reads and changes.
pub(super) struct Dispatch<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e mut PolicySet,
    pub matching: &'e Matching,
    pub devices: &'e mut Devices,
    pub queues: &'e mut Queues,
    pub change_budget: &'e mut ChangeBudget,
    pub dirty: &'e mut Dirty,
    pub outbox: &'e mut Outbox,
}

impl Dispatch<'_> {
    /// Decides the next steps, and sends what can be sent.
    pub(super) fn dispatch(&mut self, now: Now) {
        for id in self.dirty.take_steps() {
            // The record comes first: the step depends on whether the deletion has begun.
            self.actions().begin_deletions(&id, now);
            self.decide_step(&id, now);
        }
        if self.outbox.has_lane(now.monotonic) {
            // Their devices do nothing else before all of their parts are sent.
            self.send_halves(now);
        }
        // Requests for new and edited policies go before everything that can wait, such as a lookup.
        if !self.queues.has_urgent() {
            self.send_lookups(now);
        }
        // A full queue must not keep the batch from being sent.
        if self.queues.batch_waits(BATCH_LIMIT, now.monotonic)
            && !self.outbox.last_turn_went_to_batch()
        {
            self.write_attributes(now);
        }
        loop {
            while self.outbox.has_lane(now.monotonic)
                && let Some(id) = self.queues.next_ready()
                && self.outbox.take_turn()
            {
                self.begin(&id, now);
            }
            self.write_attributes(now);
            self.verify_writes(now);
            // A device that left the batch may be ready now.
            if !self.outbox.has_lane(now.monotonic)
                || self.queues.next_ready().is_none()
                || !self.outbox.has_turn()
            {
                return;
            }
        }
    }

    /// Decides the next step of a device and its lane.
    fn decide_step(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.devices.get(id) else {
            self.queues.remove(id);
            self.change_budget.reservations_mut().ask(id, false);
            return;
        };
        if is_undecided(self.matching, self.policies, id)
            || awaits_policies(self.matching, self.policies, self.observed, id)
            || awaits_next_list(self.matching, node)
        {
            self.queues.put(id, Lane::Blocked, now.monotonic);
            return;
        }
        let step = node.next_step(id, self.step_context(id, node, now.monotonic));
        // A device with a request in flight waits for its answer, not for a reservation.
        let waits = matches!(step, Step::Blocked(Cause::Parts | Cause::Record));
        let waits = waits && self.limit().counts_changes();
        self.change_budget.reservations_mut().ask(id, waits);
        let lane = match &step {
            Step::Rest(_) => Lane::Idle,
            Step::Blocked(_) => Lane::Blocked,
            Step::Read(_) | Step::Call(..) if is_urgent(self.policies, node) => Lane::Urgent,
            Step::Read(_) | Step::Call(..) => Lane::Routine,
            Step::WriteAttributes(..) => Lane::Batch,
            Step::Verify => Lane::Verify,
        };
        // In any case, the device is planned again when an attribute expires or the time of an action comes.
        let wakes = node
            .plan()
            .owners
            .next_expiry()
            .into_iter()
            .chain(node.plan().wakes)
            .min();
        let expiry = wakes.map(|expiry| {
            let left = Duration::try_from(expiry.duration_since(now.wall));
            // A negative duration has passed already: the device is planned again at once.
            now.monotonic + left.unwrap_or_default()
        });
        let retry = match step {
            Step::Rest(until) => until,
            _ => None,
        };
        let timer = retry.into_iter().chain(expiry).min();
        self.devices.set_timer(id, timer);
        let namespace = cause_of(self.policies, self.devices, id, &step);
        self.queues.put_for(id, lane, &namespace, now.monotonic);
        if lane == Lane::Idle {
            idle(self.policies, self.devices, self.dirty, id, now.monotonic);
        }
    }

    /// Sends the next request of a device, if it has one of its own; otherwise the turn is given back.
    pub(super) fn begin(&mut self, id: &NodeId, now: Now) {
        self.outbox.give_back_turn();
        let step = self
            .devices
            .get(id)
            .map(|node| node.next_step(id, self.step_context(id, node, now.monotonic)));
        match step {
            Some(Step::Read(request)) => self.send_for(id, request, Vec::new(), now),
            // A one-shot action is recorded first.
            Some(Step::Call(_, differences))
                if !have_begun(
                    self.change_budget,
                    self.policies,
                    self.devices,
                    &differences,
                    now,
                ) =>
            {
                self.queues.put(id, Lane::Blocked, now.monotonic);
                self.dirty.step_later(id);
            }
            Some(Step::Call(call, differences)) => {
                self.send_for(id, Request::Write(call), differences, now);
            }
            // The step has changed since the device was queued, so its lane is decided again.
            Some(_) => self.decide_step(id, now),
            None => self.queues.remove(id),
        }
    }

    fn send_for(&mut self, id: &NodeId, request: Request, removed: Vec<Difference>, now: Now) {
        if let Some(node) = self.devices.get_mut(id)
            && self.outbox.take_turn()
        {
            node.request_sent(Scope::of(&request));
            self.queues.put(id, Lane::Blocked, now.monotonic);
            self.send(request, removed, now);
        }
    }

    /// Verifies writes: by a read of each device, or by one list for all.
    fn verify_writes(&mut self, now: Now) {
        let on_the_way = self.queues.on_the_way() + self.queues.batch_size();
        // A device that does not answer may take long.
        let on_the_way = on_the_way.saturating_sub(self.outbox.slow_requests(now.monotonic));
        let written = self.queues.written();
        if written.is_empty() {
            return;
        }
        if written.len() + on_the_way <= MANY {
            for id in written.clone() {
                self.verify_one(&id, now);
            }
        // A list that is read while writes are under way could not verify them.
        } else if on_the_way == 0 {
            for id in written.clone() {
                self.verify_among_many(&id, now);
            }
            if !self.queues.written().is_empty() {
                self.observed.poll_after_writes(now.monotonic);
                poll(self.gate, self.observed, self.outbox, now);
            }
        }
    }

    fn verify_one(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.devices.get(id) else {
            return;
        };
        // The attributes follow with the next step, as a device has one request in flight.
        let request = if node.progress().has_unverified_settings() {
            Request::Device(id.clone())
        } else {
            Request::Attributes(id.clone())
        };
        if self.outbox.has_lane(now.monotonic) {
            self.send_for(id, request, Vec::new(), now);
        }
    }

    /// This many reads of attributes would cost more than they are worth: the next regular read verifies
    /// them. Settings wait for the list.
    fn verify_among_many(&mut self, id: &NodeId, now: Now) {
        let node = self.devices.get_mut(id);
        if node.is_some_and(|node| node.progress_mut().leave_attributes()) {
            self.dirty.plan(id);
            self.decide_step(id, now);
        }
    }

    /// Sends attribute writes together: as soon as the batch is full, no other device is about to join, or
    /// none has joined for a while.
    fn write_attributes(&mut self, now: Now) {
        while self.outbox.has_lane(now.monotonic) {
            let chunk = self.queues.batch(BATCH_SIZE);
            let patient = self.queues.on_the_way() > self.outbox.slow_requests(now.monotonic)
                && now.monotonic < self.queues.batch_waits_until()
                && !self.queues.batch_waits(BATCH_LIMIT, now.monotonic);
            if chunk.is_empty() || (chunk.len() < BATCH_SIZE && patient) || !self.outbox.take_turn()
            {
                return;
            }
            self.send_batch(&chunk, now);
        }
    }

    fn send_batch(&mut self, chunk: &[NodeId], now: Now) {
        let mut writes: BTreeMap<NodeId, AttributeWrites> = BTreeMap::new();
        let mut differences: Vec<Difference> = Vec::new();
        for id in chunk {
            let step = self
                .devices
                .get(id)
                .map(|node| node.next_step(id, self.step_context(id, node, now.monotonic)));
            let Some(Step::WriteAttributes(own, removed)) = step else {
                // The device needs something else first, such as a read.
                self.decide_step(id, now);
                continue;
            };
            if let Some(node) = self.devices.get_mut(id) {
                node.request_sent(Scope::Attributes);
            }
            self.queues.put(id, Lane::Blocked, now.monotonic);
            writes.insert(id.clone(), own);
            differences.extend(removed);
        }
        if writes.is_empty() {
            self.outbox.give_back_turn();
        } else {
            self.queues.batch_sent(now.monotonic);
            self.send(
                Request::Write(Call::WriteAttributes(writes)),
                differences,
                now,
            );
        }
    }

    /// What the next step of a device rests on beside its own state.
    pub(super) fn step_context(
        &self,
        id: &NodeId,
        node: &DeviceState,
        now: Duration,
    ) -> StepContext {
        // Of every policy of the device: a record that is lost would leave a setting that nothing clears.
        let is_recorded = node.all_policies().all(|key| {
            let entry = self.policies.get(key);
            entry.is_some_and(|entry| entry.records().are_durable_at(id))
        });
        StepContext {
            missing: self.observed.absence().is_missing(id),
            recorded: (is_recorded || mutant!(RequestBeforeRecord)) && self.limit().may_change(id),
            refresh: self
                .observed
                .read_interval(id, self.settings.attributes_interval),
            list_trusted: self.observed.polling().is_trusted(now),
            fresh_for: self.settings.fresh_for(),
            now,
        }
    }

    const fn limit(&self) -> ChangeLimit<'_> {
        ChangeLimit {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            change_budget: self.change_budget,
        }
    }

    const fn actions(&mut self) -> Actions<'_> {
        Actions {
            settings: self.settings,
            gate: self.gate,
            observed: self.observed,
            policies: self.policies,
            devices: self.devices,
            change_budget: self.change_budget,
            dirty: self.dirty,
            outbox: self.outbox,
        }
    }
}

/// Whether a device belongs to a policy that was just edited.
pub(super) fn is_urgent(policies: &PolicySet, node: &DeviceState) -> bool {
    node.all_policies().any(|key| makes_urgent(policies, key))
}

fn makes_urgent(policies: &PolicySet, key: &PolicyKey) -> bool {
    policies.get(key).is_some_and(|entry| {
        entry.is_urgent()
            && entry.nodes().nth(MANY).is_none()
            && entry.needed_record().managed.released_count() <= MANY
    })
}

/// The namespace that causes the next request for a device: of the change, of the edited policy, or of
/// one of the policies that target it.
fn cause_of(policies: &PolicySet, devices: &Devices, id: &NodeId, step: &Step) -> String {
    let owner = match step {
        Step::Call(_, differences) => differences.first().map(|it| &it.owner),
        _ => None,
    };
    let node = devices.get(id);
    let all = || node.into_iter().flat_map(DeviceState::all_policies);
    let owner = owner
        .or_else(|| all().find(|key| makes_urgent(policies, key)))
        .or_else(|| all().next());
    owner.map(|key| key.namespace.clone()).unwrap_or_default()
}

fn idle(
    policies: &mut PolicySet,
    devices: &mut Devices,
    dirty: &mut Dirty,
    id: &NodeId,
    now: Duration,
) {
    let Some(node) = devices.get_mut(id) else {
        return;
    };
    node.drop_unneeded_reads(now);
    let done = node.is_done();
    let keys: Vec<PolicyKey> = node.all_policies().cloned().collect();
    for key in keys {
        // An edited policy stays urgent until its devices are done.
        if done && let Some(entry) = policies.get_mut(&key) {
            entry.set_urgent(false);
        }
        dirty.report(&key);
    }
}
