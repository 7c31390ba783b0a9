//! Finishes the deletion of a policy under `deletionPolicy: Clear`: once its devices are cleared, or once the
//! engine gives up. It gives up at once if the rest cannot be cleared, otherwise after a bounded time without
//! progress ([`Deadline`]), and never while an approval is pending.

use std::{collections::BTreeSet, time::Duration};

use super::{
    activity::must_record, closing::Closing, release::forget_released, reports::clear_report,
};
use crate::{
    model::{NodeId, Reason},
    plan::{Difference, Hold, ManagedSettings, Mode, PolicyKey, Refusal, Suspender, Why},
    tailnet::{
        Now,
        abandoned::Abandoned,
        deadline::{Deadline, Waits},
        devices::Devices,
        dirty::Dirty,
        gate::Gate,
        observed::Observed,
        policy_entry::PolicyEntry,
        policy_set::PolicySet,
        release::blocker,
    },
};

/// The number of devices that a message about abandoned settings names.
const NAMED: usize = 3;

impl Closing<'_> {
    /// Finishes the deletion of policies that have nothing left to clear, and of those that cannot finish.
    pub(super) fn finish_deletions(&mut self, now: Now) {
        // Until all policies are known, another one may declare what this one would give up.
        if !self.gate.may_end_deletions() {
            return;
        }
        let deleting: Vec<PolicyKey> = self.policies.deleting().cloned().collect();
        for key in deleting {
            let waits = self.waits(&key);
            let Some(entry) = self.policies.get_mut(&key) else {
                continue;
            };
            // In each step, also without a list: the deadline must pass while the API does not answer.
            entry.cleanup_mut().count(waits, now.monotonic);
            let Some(entry) = self.policies.get(&key) else {
                continue;
            };
            if entry.needed_record().managed.is_empty() || entry.retains() {
                self.end(&key, None);
            } else if let Some(why) = self.why_cleanup_cannot_finish(entry, &key) {
                self.end(&key, Some(why));
            }
        }
    }

    /// What a policy that is being deleted waits for. While it is held, no deadline passes, even if the API
    /// does not answer meanwhile: a person may take any time.
    pub(super) fn waits(&self, key: &PolicyKey) -> Waits {
        let frozen = self
            .policies
            .get(key)
            .is_some_and(|entry| entry.approval().frozen_plan().is_some());
        if frozen || self.change_budget.held().contains(key) {
            return Waits::Held;
        }
        if !self.gate.is_connected() || !self.observed.polling().is_closed() {
            return Waits::Unreachable;
        }
        // Nothing is sent before the record is durable, so the time is not that of the devices.
        if must_record(self.policies, self.records, key) {
            return Waits::Held;
        }
        Waits::Clearing
    }

    pub(super) fn end(&mut self, key: &PolicyKey, why: Option<String>) {
        self.policies.end_cleanup(key);
        self.dirty.report(key);
        // Before the record is taken, as the message names what it holds.
        let abandoned = why.map(|why| abandon(self.observed, self.policies, key, why));
        let Some(entry) = self.policies.get_mut(key) else {
            return;
        };
        entry.cleanup_mut().end(abandoned);
        let managed = entry.take_managed();
        forget_released(self.devices, self.dirty, key, &managed);
    }

    /// Why the remaining settings will not be cleared; `None` while they may be.
    fn why_cleanup_cannot_finish(&self, entry: &PolicyEntry, key: &PolicyKey) -> Option<String> {
        let deadline = entry.cleanup().deadline();
        let is_over = deadline.is_some_and(Deadline::is_over);
        let policy = match entry.policy() {
            Ok(policy) => policy,
            Err(refusal @ Refusal::Invalid(_)) => {
                return Some(format!("the policy is invalid: {refusal}"));
            }
            Err(refusal) if self.gate.may_be_allowed_yet(refusal) && !is_over => return None,
            Err(refusal) => return Some(format!("the policy is not allowed: {refusal}")),
        };
        match policy.mode {
            Mode::Suspended(Suspender::Invalid) => {
                let errors = entry.declared().as_ref().err();
                let errors = errors.map(|errors| errors.join("; "));
                return Some(format!(
                    "the policy is invalid: {}",
                    errors.unwrap_or_default()
                ));
            }
            Mode::Suspended(Suspender::Policy) => {
                return Some("the policy is suspended".to_owned());
            }
            Mode::Suspended(Suspender::Tailnet) => {
                return Some("the TailscaleTailnet is suspended".to_owned());
            }
            // Such a policy never sends a request, so time does not help.
            Mode::Observe => return Some("the policy only observes".to_owned()),
            // A policy that is being deleted has released its device.
            Mode::Approve | Mode::Enforce | Mode::Suspended(Suspender::Identity) => {}
        }
        let connection = self.gate.disconnected();
        // Without its TailscaleTailnet there is no API to wait for.
        if let Some(failure) = connection.filter(|it| it.reason == Reason::TailnetNotFound) {
            return Some(failure.message.clone());
        }
        if let Some(forbidden) = forbidden(self.devices, entry, key) {
            return Some(forbidden);
        }
        if !is_over {
            return None;
        }
        let blocker =
            clear_report(&self.limit(), self.devices, key).and_then(|report| report.blocker);
        let patience = deadline.map(Deadline::patience).unwrap_or_default();
        Some(blocker.unwrap_or_else(|| {
            let seconds = patience.as_secs();
            format!("nothing was cleared for {seconds} seconds (--clear-timeout)")
        }))
    }
}

/// Starts to clean up after a policy that is being deleted. `patience`: the time without progress that it
/// may take.
pub(super) fn begin_cleanup(
    policies: &mut PolicySet,
    dirty: &mut Dirty,
    key: &PolicyKey,
    patience: Option<Duration>,
) {
    let Some(entry) = policies.get_mut(key) else {
        return;
    };
    if entry.begin_cleanup(patience) {
        policies.begin_cleanup(key);
        dirty.rebind(key);
        dirty.report(key);
    }
}

/// When the next deadline passes.
pub(super) fn next_cleanup(gate: &Gate, policies: &PolicySet) -> Option<Duration> {
    if !gate.may_end_deletions() {
        return None;
    }
    let deleting = policies.deleting();
    deleting
        .filter_map(|key| policies.get(key)?.cleanup().deadline()?.ends_at())
        .min()
}

/// The reason, if guardrails deny all remaining changes: waiting does not help then.
fn forbidden(devices: &Devices, entry: &PolicyEntry, key: &PolicyKey) -> Option<String> {
    let mut first = None;
    for id in entry.needed_record().managed.released_devices() {
        let node = devices.get(id)?;
        let own = || node.plan().of(key).filter(|d| d.why == Why::Released);
        // A read or an answer may still show that something can be cleared.
        if !node.plan().complete() || node.is_busy() || !own().all(is_forbidden) {
            return None;
        }
        first = first.or(blocker(node, key, own().next()?));
    }
    first
}

fn is_forbidden(difference: &Difference) -> bool {
    matches!(difference.hold, Some(Hold::Protected | Hold::NotAllowed(_)))
}

fn abandon(observed: &Observed, policies: &PolicySet, key: &PolicyKey, why: String) -> Abandoned {
    let mut settings = ManagedSettings::default();
    let mut devices: BTreeSet<&NodeId> = BTreeSet::new();
    if let Some(entry) = policies.get(key) {
        let managed = &entry.needed_record().managed;
        if !managed.nodes.is_empty() {
            settings.keys = entry.needed_record().owned.names();
            settings.routes.clone_from(&managed.routes);
        }
        let due = managed.released.keys();
        due.for_each(|due| settings.merge(due));
        devices = managed.nodes.iter().collect();
        devices.extend(managed.released_devices());
    }
    Abandoned {
        total: devices.len(),
        devices: devices
            .iter()
            .take(NAMED)
            .map(|id| match observed.index().get(id) {
                Some(device) => format!("{} ({id})", device.label()),
                None => id.to_string(),
            })
            .collect(),
        settings,
        why,
    }
}
