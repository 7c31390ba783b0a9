//! Intake of the outcome of a change: made, refused, or ineffective.

use std::collections::BTreeMap;

use super::{
    actions::finish_action,
    backoff::next_backoff,
    changes::note_change,
    claims::reconsider_waiting,
    notify::notify,
    reads::{facts_changed, poll_now_after, rebind_single, request_finished},
    release::note_progress,
};
use crate::{
    model::{NodeId, Reason, SettingValue},
    plan::{AttributeWrites, Call, Change, Difference, TailnetWide, apply},
    tailnet::{
        Failure, Notification, Now, Retry, Settings, deadline::Progress, device_state::Scope,
        devices::Devices, dirty::Dirty, failure::Backoff, gate::Gate, halves::Half,
        mutants::mutant, observed::Observed, outbox::Outbox, policy_set::PolicySet,
    },
};

/// What the outcome of a request changes.
pub(super) struct Outcomes<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e mut Observed,
    pub policies: &'e mut PolicySet,
    pub tailnet_wide: &'e TailnetWide,
    pub devices: &'e mut Devices,
    pub dirty: &'e mut Dirty,
    pub outbox: &'e mut Outbox,
    pub rng: &'e mut fastrand::Rng,
}

impl Outcomes<'_> {
    /// A write was answered, for one of its devices.
    fn finish(&mut self, call: &Call, id: &NodeId) {
        let scope = Scope::of_write(call);
        request_finished(self.observed, self.devices, self.dirty, id, scope);
    }

    /// The API accepted a write.
    pub(super) fn take_written(&mut self, call: &Call, differences: &[Difference], now: Now) {
        for id in call.nodes() {
            self.finish(call, id);
            if matches!(call, Call::Set(_, SettingValue::Ipv4(_))) {
                // The previous address is free now: another device may wait for it.
                reconsider_waiting(self.tailnet_wide, self.observed, self.dirty, id);
            }
            if matches!(call, Call::Delete(_)) {
                self.take_deleted(id);
            }
            if mutant!(SnapshotIsNotUpdated) {
                continue;
            }
            if let Some(mut device) = self.observed.index().get(id).cloned() {
                // The change counts as made until a read shows otherwise (docs/decisions/0003).
                apply(call, &mut device);
                if self.observed.put(device) {
                    facts_changed(self.policies, self.dirty, id);
                }
            }
            let Some(node) = self.devices.get_mut(id) else {
                continue;
            };
            node.apply(id, call);
            // The first tag takes a device from its user, so its owner changes.
            if matches!(call, Call::SetTags(..)) {
                rebind_single(self.policies, self.devices, self.dirty, id);
            }
        }
        for difference in differences {
            if let Some(node) = self.devices.get_mut(&difference.node) {
                node.progress_mut().accepted(difference);
            }
            finish_action(self.policies, self.dirty, difference);
            for owner in difference.owners() {
                if let Some(entry) = self.policies.get_mut(owner) {
                    entry.approval_mut().done(difference);
                }
            }
            note_change(
                self.gate,
                self.policies,
                self.devices,
                self.outbox,
                difference,
                now,
            );
            let field = difference.change.field();
            let step = Progress::Changed(difference.node.clone(), field);
            note_progress(self.policies, self.devices, &step, now);
        }
    }

    /// A write of an earlier connection or term was answered: whatever its outcome, the device is read before
    /// anything else.
    pub(super) fn take_outdated(&mut self, call: &Call, differences: &[Difference], made: bool) {
        for id in call.nodes() {
            self.finish(call, id);
            let Some(node) = self.devices.get_mut(id) else {
                continue;
            };
            node.require_read_after(call);
            if made {
                let own = differences.iter().filter(|d| d.node == *id);
                node.progress_mut().lost(own);
            }
        }
    }

    /// A write failed, or its outcome is unknown.
    pub(super) fn take_refused(
        &mut self,
        call: &Call,
        differences: &[Difference],
        failure: &Failure,
        now: Now,
    ) {
        for id in call.nodes() {
            self.finish(call, id);
        }
        if let Call::WriteAttributes(writes) = call
            && self.gate.may_send(self.observed)
            && self.may_be_one_entry(failure, differences)
            // A batch of one entry cannot be split; its failure is that of the entry.
            && self.split(writes, failure.unknown_outcome)
        {
            return;
        }
        poll_now_after(self.observed, failure, now);
        for id in call.nodes() {
            let Some(node) = self.devices.get_mut(id) else {
                continue;
            };
            node.outdate_reads();
            let in_doubt = failure.unknown_outcome
                || (matches!(call, Call::WriteAttributes(_)) && node.is_batch_in_doubt());
            if in_doubt && !mutant!(LostAnswerIsFailure) {
                node.require_read_after(call);
                let own = differences.iter().filter(|d| d.node == *id);
                node.progress_mut().lost(own);
            }
        }
        // The entries of one batch are tried again together.
        let attempts = differences.iter().filter_map(|d| self.backoff_of(d));
        let before = attempts.max_by_key(|backoff| backoff.attempts).cloned();
        let backoff = next_backoff(
            self.settings,
            self.gate,
            self.rng,
            failure.clone(),
            before.as_ref(),
            now,
        );
        for difference in differences {
            self.back_off(difference, backoff.clone());
        }
    }

    /// One bad entry must not delay the others: a batch that is refused for good, or fails again, is split
    /// until the entry is found. A failure that affects every request is not caused by an entry.
    fn may_be_one_entry(&self, failure: &Failure, differences: &[Difference]) -> bool {
        let affects_all = matches!(
            failure.reason,
            Reason::PlanRefused
                | Reason::CredentialRejected
                | Reason::Forbidden
                | Reason::RateLimited
                | Reason::ApiUnreachable
        );
        let failed_before = differences.iter().any(|d| self.backoff_of(d).is_some());
        !affects_all && (failure.retry == Retry::Never || failed_before)
    }

    fn backoff_of(&self, difference: &Difference) -> Option<&Backoff> {
        let node = self.devices.get(&difference.node)?;
        node.progress().backoff(&difference.change.field())
    }

    /// Makes a field wait. A failure of the same kind as before is not reported again.
    fn back_off(&mut self, difference: &Difference, backoff: Backoff) {
        let failure = backoff.failure.clone();
        let Some(node) = self.devices.get_mut(&difference.node) else {
            return;
        };
        let field = difference.change.field();
        let quiet = backoff.is_quiet();
        let before = node.progress_mut().refused(field.clone(), backoff);
        let is_new = before
            .is_none_or(|before| before.is_quiet() || before.failure.reason != failure.reason);
        if !is_new || quiet {
            return;
        }
        let claims = &node.plan().owners;
        let reported: Vec<_> = difference
            .owners()
            .map(|owner| (owner.clone(), claims.mask(owner, &failure.message)))
            .collect();
        for (owner, message) in reported {
            let failed = Notification::Failed {
                device: difference.device.clone(),
                field: field.clone(),
                failure: Failure {
                    message,
                    ..failure.clone()
                },
            };
            notify(self.gate, self.outbox, &owner, failed);
        }
    }

    /// Emits one Event that another writer keeps changing a setting back.
    fn report_contested(&mut self, difference: &Difference) {
        let field = difference.change.field();
        let node = self.devices.get(&difference.node);
        let contest = node.and_then(|node| node.progress().contest(&field));
        let failures: Vec<_> = difference
            .owners()
            .filter_map(|owner| {
                let view =
                    |change: &Change| node.map(|node| node.plan().owners.view(owner, change));
                let failure =
                    contest?.failure_now(|change| view(change).unwrap_or(change.clone()))?;
                Some((owner.clone(), failure))
            })
            .collect();
        for (owner, failure) in failures {
            let failed = Notification::Failed {
                device: difference.device.clone(),
                field: field.clone(),
                failure,
            };
            notify(self.gate, self.outbox, &owner, failed);
        }
    }

    /// Compares the written changes with the reads since.
    pub(super) fn check_effect(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.devices.get_mut(id) else {
            return;
        };
        let compared = node.compare(now.monotonic);
        for difference in compared.contested {
            self.report_contested(&difference);
        }
        for difference in compared.made {
            let device = self.observed.index().get(id);
            // An action that is no longer planned need not have been made: the device must show it.
            if !difference.is_action() || difference.shows_action(device, now.wall) {
                note_change(
                    self.gate,
                    self.policies,
                    self.devices,
                    self.outbox,
                    &difference,
                    now,
                );
            }
        }
        for difference in compared.ineffective {
            let before = self.backoff_of(&difference).cloned();
            let backoff = next_backoff(
                self.settings,
                self.gate,
                self.rng,
                not_effective(&difference),
                before.as_ref(),
                now,
            );
            self.back_off(&difference, backoff);
        }
    }

    /// A device was deleted: it is no longer in the tailnet, even if a list that was requested earlier still
    /// has it.
    fn take_deleted(&mut self, id: &NodeId) {
        self.dirty.rematch(id);
        rebind_single(self.policies, self.devices, self.dirty, id);
        self.observed.note_deleted(id);
    }

    /// Splits a refused batch; `false` if it is a single entry. `in_doubt`: its answer was lost.
    fn split(&mut self, writes: &BTreeMap<NodeId, AttributeWrites>, in_doubt: bool) -> bool {
        let Some(halves) = Half::of(writes) else {
            return false;
        };
        for id in halves.iter().flat_map(Half::devices) {
            if let Some(node) = self.devices.get_mut(id) {
                // A device waits until all its parts are sent, so that its next step does not repeat them.
                node.part_waits(in_doubt);
            }
        }
        self.outbox.add_halves(halves);
        true
    }
}

fn not_effective(difference: &Difference) -> Failure {
    Failure {
        reason: Reason::NotEffective,
        // Not every owner may see all entries of a list.
        message: match &difference.change {
            Change::List(change) if change.setting().is_owned_by_entry() => format!(
                "The API accepted the change of {}, but the device did not change. The controller \
                 retries later.",
                difference.change.field(),
            ),
            change => format!(
                "The API accepted the change of {}, but the device still has {}. The controller retries \
                 later.",
                change.field(),
                change.before(),
            ),
        },
        retry: Retry::Later,
        unknown_outcome: false,
    }
}
