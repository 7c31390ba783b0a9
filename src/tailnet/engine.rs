use std::time::Duration;

use super::{
    Answer, Effect, Failure, Input, Now, Term,
    change_budget::ChangeBudget,
    device_state::{DeviceState, StepContext},
    devices::Devices,
    dirty::{Dirty, Phases},
    failure::Backoff,
    gate::Gate,
    lanes::Queues,
    matching::Matching,
    observed::Observed,
    outbox::Outbox,
    policy_entry::PolicyEntry,
    policy_set::PolicySet,
    records::Records,
    schedule::BATCH_PATIENCE,
    status_book::StatusBook,
};
use crate::{
    model::{ChangeLimit, NodeId},
    plan::{Guardrails, PolicyInput, PolicyKey, TailnetWide},
    tailscale::Haste,
};

/// The settings of a tailnet.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The time between two lists.
    pub poll_interval: Duration,
    /// The minimum time between two reads of the attributes of one device.
    pub attributes_interval: Duration,
    /// Requests per second that the budget allows.
    pub requests_per_second: f64,
    /// How many devices may be changed within an hour.
    pub limit: ChangeLimit,
    /// What the tailnet allows.
    pub guardrails: Guardrails,
}

/// The state machine of one tailnet: see the module's documentation.
#[derive(Debug)]
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) rng: fastrand::Rng,
    /// What may be done at all.
    pub(super) gate: Gate,
    /// What the API has reported.
    pub(super) observed: Observed,
    pub(super) policies: PolicySet,
    /// Which policies still have devices to match.
    pub(super) matching: Matching,
    /// Settings that are unique in the tailnet: who declares them and which device has them.
    pub(super) tailnet_wide: TailnetWide,
    pub(super) devices: Devices,
    /// The devices with something to do.
    pub(super) queues: Queues,
    pub(super) change_budget: ChangeBudget,
    /// When records are written.
    pub(super) records: Records,
    /// What must be computed again.
    pub(super) dirty: Dirty,
    /// What was reported last.
    pub(super) statuses: StatusBook,
    /// What leaves the engine.
    pub(super) outbox: Outbox,
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
        if let Input::Answered(_, Ok(Answer::Devices { date, .. })) = &input {
            self.observed.read_clock(*date, now.monotonic);
        }
        let now = self.effective_time(now);
        match input {
            Input::Policy(declared) => self.take_policy(*declared, now),
            Input::PolicyGone(key) => self.drop_policy(&key),
            Input::PoliciesListed => self.gate.note_policies_listed(),
            Input::Connection {
                settings,
                connected,
            } => {
                if let Some(settings) = settings {
                    self.take_settings(*settings, now);
                }
                self.observed.forget_clock();
                self.gate.connect(connected);
                self.start_over(now);
                self.report_all();
            }
            Input::Settings(settings) => self.take_settings(settings, now),
            Input::Namespace(name, labels) => self.take_labels(name, labels),
            Input::StatusEdited(policy) => self.statuses.note_edit(policy),
            Input::Tailnet(declared) => self.take_tailnet(declared, now),
            // While the list fails, its own backoff counts: nobody may shorten it.
            Input::Poll if self.observed.polling().failure().is_some() => {}
            Input::Poll => self.observed.poll_now(now.monotonic),
            Input::Term(term) => self.take_term(term, now),
            Input::Turn => self.outbox.grant_turn(),
            Input::NotSent(ticket) => self.not_sent(ticket, now),
            Input::Answered(ticket, result) => self.answered(ticket, result, now),
            Input::Recorded { key, uid, record } => self.recorded(&key, &uid, record),
            Input::TailnetRecorded(revision) => self.tailnet_recorded(revision),
            Input::Wake => {}
            Input::Stop => self.gate.stop(),
        }
        self.reconcile(now);
        self.outbox.end_step(self.queues.is_quick(now.monotonic))
    }

    /// Whether a request waits for a turn ([`Input::Turn`]). Which request it is, is decided only then.
    #[must_use]
    pub fn wants_turn(&self) -> Option<Haste> {
        self.outbox.wants_turn()
    }

    /// The time (monotonic) at which [`Input::Wake`] should come, if nothing else does before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
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
        .then_some(self.queues.batch_grew + BATCH_PATIENCE);
        let lane = self
            .outbox
            .lane_opens_at()
            .filter(|_| self.gate.may_send(&self.observed));
        let ends = [
            self.limit_ends(),
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

    /// Whether no request is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outbox.is_idle()
    }

    fn take_settings(&mut self, settings: Settings, now: Now) {
        if settings == self.settings {
            return;
        }
        self.take_guardrails(&settings);
        self.settings = settings;
        // The ages at which things are read again may have changed.
        self.dirty.step_all(self.devices.ids().cloned());
        self.observed.poll_now(now.monotonic);
    }

    fn take_policy(&mut self, declared: PolicyInput, now: Now) {
        let key = declared.key.clone();
        let known = self
            .policies
            .get_mut(&key)
            .filter(|entry| entry.uid == declared.uid);
        let Some(entry) = known else {
            self.drop_policy(&key);
            self.dirty.rebind(&key);
            self.dirty.report(&key);
            let deleting = declared.deleting;
            let known = declared.status_state.readable.as_ref();
            let policy = self.policies.admit(&declared.policy, known);
            let entry = PolicyEntry::new(declared, policy);
            let asks = entry.asks_for_reconcile();
            self.redeclare(None, entry.policy.as_ref().ok());
            self.policies.insert(key.clone(), entry);
            self.begin_cleanup(&key, deleting);
            if asks {
                self.request_reconcile(&key, now);
            }
            return;
        };
        let asks = entry.request != declared.request;
        entry.request = declared.request;
        entry.watched_record = declared.record;
        entry.status_state = declared.status_state;
        if entry.note_finalizer() {
            self.statuses.forget(&key);
            self.dirty.report(&key);
        }
        if entry.approvals != declared.approvals {
            entry.approvals = declared.approvals;
            self.dirty.approve(&key);
            self.dirty.rebind(&key);
            self.dirty.report(&key);
        }
        let edited = entry.generation != declared.generation;
        if edited {
            let known = self.policies.get(&key);
            let known = known.and_then(|entry| {
                entry
                    .last_valid
                    .as_ref()
                    .or(entry.status_state.readable.as_ref())
            });
            let policy = self.policies.admit(&declared.policy, known);
            let after = policy.as_ref().ok().cloned();
            let before = self.policies.get_mut(&key).and_then(|entry| {
                entry.generation = declared.generation;
                entry.last_valid = declared
                    .policy
                    .as_ref()
                    .ok()
                    .cloned()
                    .or(entry.last_valid.take());
                entry.declared = declared.policy;
                let before = std::mem::replace(&mut entry.policy, policy).ok();
                entry.note_edit(before.as_ref());
                before
            });
            self.redeclare(before.as_ref(), after.as_ref());
            self.take_edit(&key);
            self.begin_cleanup(&key, declared.deleting);
        }
        if asks {
            self.request_reconcile(&key, now);
        }
    }

    pub(super) fn take_edit(&mut self, key: &PolicyKey) {
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        entry.urgent = true;
        self.matching.forget_moves(key);
        // The frozen plan and the approved changes belong to the previous spec.
        entry.discard();
        for id in entry
            .nodes()
            .chain(entry.needed_record.managed.released_devices())
        {
            if let Some(node) = self.devices.get_mut(id) {
                node.forget_backoffs_of(key);
                self.dirty.plan(id);
            }
        }
        self.dirty.report(key);
        self.dirty.rebind(key);
    }

    fn drop_policy(&mut self, key: &PolicyKey) {
        self.end_evaluation(key);
        if let Some(entry) = self.policies.remove(key) {
            self.redeclare(entry.policy.as_ref().ok(), None);
            for id in entry.nodes() {
                self.release_binding(id, key);
            }
            self.forget_released(key, &entry.needed_record.managed);
        }
        self.matching.forget_moves(key);
        self.dirty.forget_policy(key);
        self.statuses.forget(key);
    }

    /// Starts a term of leadership, or ends one. A new leader reads everything again before the first write,
    /// as the previous leader may have changed something a moment ago. Only stored statuses count as records:
    /// neither what this process found while it only watched, nor what it recorded in an earlier term, as
    /// another leader may have released it since.
    fn take_term(&mut self, term: Option<Term>, now: Now) {
        if !self.gate.set_term(term) {
            return;
        }
        self.statuses.forget_tailnet();
        self.start_counting(now);
        if term.is_none() {
            return;
        }
        self.policies.restart_cleanup();
        self.statuses.forget_policies();
        for entry in self.policies.values_mut() {
            entry.start_term();
        }
        let asking = self
            .policies
            .iter()
            .filter(|(_, entry)| entry.asks_for_reconcile());
        let asking: Vec<PolicyKey> = asking.map(|(key, _)| key.clone()).collect();
        for key in asking {
            self.request_reconcile(&key, now);
        }
        self.start_over(now);
        // No list will arrive, so nothing else would trigger the reports of the failure.
        if !self.gate.is_connected() {
            self.report_all();
        }
    }

    /// Forgets everything that was read, and reads it again.
    fn start_over(&mut self, now: Now) {
        self.drop_halves();
        self.observed.restart(now.monotonic);
        self.devices.forget_reads();
        self.dirty.plan_all(self.devices.ids().cloned());
        self.dirty.rebind_all(self.policies.keys().cloned());
    }

    pub(super) fn step_context(
        &self,
        id: &NodeId,
        node: &DeviceState,
        now: Duration,
    ) -> StepContext {
        let is_recorded = |key: &PolicyKey| {
            let entry = self.policies.get(key);
            entry.is_some_and(|entry| entry.durable_record.covers_at(id, &entry.needed_record))
        };
        StepContext {
            missing: self.observed.absence().is_missing(id),
            recorded: node.all_policies().all(is_recorded) && self.may_change(id),
            refresh: self
                .observed
                .read_interval(id, self.settings.attributes_interval),
            list_trusted: self.observed.polling().is_trusted(now),
            fresh_for: self.fresh_for(),
            now,
        }
    }

    /// The effective time: see [`Observed::effective_time`].
    fn effective_time(&mut self, now: Now) -> Now {
        let (now, has_changed) = self.observed.effective_time(now);
        if has_changed {
            self.dirty.plan_all(self.devices.ids().cloned());
            self.report_all();
        }
        now
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
        let rare = (self.settings.poll_interval * 10).max(Duration::from_secs(10));
        let backoff = Backoff::new(failure, before, now.monotonic, rare, &mut self.rng);
        match &self.gate.approved_plan() {
            Some(_) => backoff.or_give_up(),
            None => backoff,
        }
    }
}
