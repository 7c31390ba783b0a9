//! A policy and its state in the engine.
//!
//! The entry owns everything that the engine knows of one policy. Its parts have a file each; the phases of
//! the engine read them, and change them by methods that say what happens.

mod actions;
mod approval;
mod cleanup;
mod fields;
mod key_record;
mod owned;
mod records;
mod release;
mod targets;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;

use self::{
    approval::Approval, cleanup::Cleanup, key_record::KeyRecord, records::PolicyRecords,
    targets::Targets,
};
use super::{actions::DeletionQueue, evaluation::Evaluation};
use crate::{
    model::NodeId,
    plan::{
        AllowedRules, Approvals, Binding, Bound, DeviceIndex, FrozenPlan, History, PlanHash,
        Policy, PolicyInput, PolicyRecord, ReconcileRequest, Refusal, Rivals, Selector,
        StatusState, Target, recorded,
    },
};

/// The policy that is in force, or why none is.
pub(in crate::tailnet) type InForce = Result<Arc<Policy>, Refusal>;

/// A policy of the engine.
#[derive(Debug)]
pub(super) struct PolicyEntry {
    uid: String,
    generation: i64,
    /// The declared policy, or the errors of its spec.
    declared: Result<Arc<Policy>, Vec<String>>,
    /// The policy that is in force, or why none is.
    policy: InForce,
    /// The last valid declaration.
    last_valid: Option<Arc<Policy>>,
    /// The state of its object's status.
    status_state: StatusState,
    /// The reconciles that its annotations request.
    request: ReconcileRequest,
    records: PolicyRecords,
    targets: Targets,
    approval: Approval,
    /// The state of its one-shot actions.
    actions: DeletionQueue,
    /// The record of the keys that it owns.
    keys: KeyRecord,
    cleanup: Cleanup,
    /// New or edited, and not completed yet: it goes before routine work.
    urgent: bool,
    changed_at: Option<Timestamp>,
    /// What the status said of this generation before this process.
    history: History,
}

/// What changes for a policy because its object was declared again, with the same spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Redeclared {
    /// Its annotations request another reconcile.
    pub asks: bool,
    /// Its finalizer is gone, and with it the protection of its record.
    pub has_lost_finalizer: bool,
    /// Its annotation approves something else.
    pub has_other_approvals: bool,
}

impl PolicyEntry {
    pub fn new(declared: PolicyInput, policy: InForce) -> Self {
        let mut entry = Self {
            uid: declared.uid,
            generation: declared.generation,
            last_valid: declared.policy.as_ref().ok().cloned(),
            declared: declared.policy,
            policy,
            history: declared.status_state.history.unwrap_or(History::New),
            status_state: declared.status_state,
            request: declared.request,
            records: PolicyRecords::new(declared.record),
            targets: Targets::default(),
            approval: Approval::new(declared.approvals),
            actions: DeletionQueue::default(),
            keys: KeyRecord::default(),
            cleanup: Cleanup::default(),
            // A new policy goes before routine work.
            urgent: true,
            changed_at: None,
        };
        entry.share_policy();
        entry.note_finalizer();
        entry
    }

    /// Holds one copy where the policy in force differs from the declared one only in the rules that allow it:
    /// each admission sets those anew.
    fn share_policy(&mut self) {
        if let (Ok(declared), Ok(admitted)) = (&mut self.declared, &self.policy)
            && declared.mode == admitted.mode
        {
            *declared = Arc::clone(admitted);
            self.last_valid = Some(Arc::clone(admitted));
        }
    }

    /// Takes what its object says besides the spec, and leaves the spec.
    pub fn redeclare(&mut self, declared: &mut PolicyInput) -> Redeclared {
        let asks = self.request != declared.request;
        self.request = std::mem::take(&mut declared.request);
        self.records.watch(std::mem::take(&mut declared.record));
        self.status_state = std::mem::take(&mut declared.status_state);
        let approvals = std::mem::take(&mut declared.approvals);
        Redeclared {
            asks,
            has_lost_finalizer: self.note_finalizer(),
            has_other_approvals: self.approval.set_given(approvals),
        }
    }

    /// Takes an edited spec, and the policy that is in force for it. Returns the one that was.
    pub fn edit(
        &mut self,
        generation: i64,
        declared: Result<Arc<Policy>, Vec<String>>,
        policy: InForce,
    ) -> InForce {
        self.generation = generation;
        self.history = History::New;
        if let Ok(valid) = &declared {
            // An invalid edit leaves the last valid spec, which keeps its precedence (docs/decisions/0018).
            self.last_valid = Some(valid.clone());
        }
        self.declared = declared;
        self.replace(policy)
    }

    /// The guardrails allow something else. Returns the policy that was in force.
    pub fn replace(&mut self, policy: InForce) -> InForce {
        let before = std::mem::replace(&mut self.policy, policy);
        self.share_policy();
        self.targets.note_edit(before.as_ref().ok());
        before
    }

    /// Puts an edit in force that was set aside. Returns the policy that was in force.
    pub fn put_in_force(&mut self, policy: InForce) -> InForce {
        let before = std::mem::replace(&mut self.policy, policy);
        self.share_policy();
        before
    }

    /// Without the finalizer, the status does not survive a deletion: its record of managed devices counts as
    /// not durable until the finalizer is back. Returns whether that is the case.
    fn note_finalizer(&mut self) -> bool {
        self.status_state.lacks_finalizer && self.records.lose_managed()
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub const fn generation(&self) -> i64 {
        self.generation
    }

    /// The policy that is in force, or why none is.
    pub const fn policy(&self) -> &InForce {
        &self.policy
    }

    /// The declared policy, or the errors of its spec.
    pub const fn declared(&self) -> &Result<Arc<Policy>, Vec<String>> {
        &self.declared
    }

    /// What counts as declared while the spec is invalid: its last valid declaration, or the one that the
    /// status says.
    pub fn last_valid(&self) -> Option<&Arc<Policy>> {
        let readable = self.status_state.readable.as_ref();
        self.last_valid.as_ref().or(readable)
    }

    /// Whether a newer version wrote its status, which stays as it is.
    pub const fn is_left_alone(&self) -> bool {
        self.status_state.left_alone
    }

    /// The record that is needed.
    pub fn needed_record(&self) -> &PolicyRecord {
        self.records.needed()
    }

    /// The record that is needed, to be reported.
    pub fn record_to_report(&self) -> Arc<PolicyRecord> {
        Arc::clone(self.records.needed())
    }

    /// Holds equal records once.
    pub fn share_records(&mut self) {
        self.records.share();
    }

    /// How much of the record is durable.
    pub const fn records(&self) -> &PolicyRecords {
        &self.records
    }

    /// A report with this record is stored.
    pub fn confirm(&mut self, record: Arc<PolicyRecord>) {
        self.records.confirm(record);
    }

    /// Whether it is new or edited and not completed yet: it goes before routine work.
    pub const fn is_urgent(&self) -> bool {
        self.urgent
    }

    pub const fn set_urgent(&mut self, urgent: bool) {
        self.urgent = urgent;
    }

    /// What the status said of this generation before this process.
    pub const fn history(&self) -> History {
        self.history
    }

    /// When a device was changed for it last.
    pub const fn changed_at(&self) -> Option<Timestamp> {
        self.changed_at
    }

    pub const fn note_change(&mut self, at: Timestamp) {
        self.changed_at = Some(at);
    }

    /// The devices that it targets.
    pub const fn targets(&self) -> &Targets {
        &self.targets
    }

    pub const fn targets_mut(&mut self) -> &mut Targets {
        &mut self.targets
    }

    /// The devices that it targets, as of the last reconcile.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.targets.nodes()
    }

    /// Its selector, if it has one, and the devices among which it selects.
    pub fn selector(&self) -> Option<(&Selector, &AllowedRules)> {
        let policy = self.policy.as_deref().ok()?;
        match &policy.target {
            Target::Selector(selector) => Some((selector, &policy.allowance)),
            Target::Device(_) => None,
        }
    }

    /// The policy that is in force, or will be once its devices are known.
    pub fn intended(&self) -> &InForce {
        let next = self.targets.evaluation().and_then(Evaluation::next);
        next.unwrap_or(&self.policy)
    }

    /// Sets an edit aside until its devices are known. Until then the policy keeps its precedence on its
    /// former devices, and sends nothing. Returns the edited policy and the one in force.
    pub fn set_aside(&mut self) -> Option<(InForce, Arc<Policy>)> {
        let before = self.targets.take_before_edit()?;
        // As an invalid policy does, it holds back others and sends nothing itself.
        let before = Arc::new(Policy::clone(&before).while_invalid());
        let edited = std::mem::replace(&mut self.policy, Ok(before.clone()));
        if let Some(evaluation) = self.targets.evaluation_mut() {
            evaluation.set_aside(edited.clone());
        }
        Some((edited, before))
    }

    /// What is pending approval, and what is approved.
    pub const fn approval(&self) -> &Approval {
        &self.approval
    }

    pub const fn approval_mut(&mut self) -> &mut Approval {
        &mut self.approval
    }

    /// Freezes a plan, and records its hash. Returns whether the hash is new.
    pub fn freeze(&mut self, plan: FrozenPlan) -> bool {
        let record = self.records.needed_mut();
        // A restart freezes the same plan again: people were told of it already.
        let is_new = record.held.as_ref() != Some(&plan.hash);
        record.held = Some(plan.hash.clone());
        self.approval.freeze(plan);
        is_new
    }

    /// Uses the approval of the frozen plan, if its annotation or the tailnet's (`on_tailnet`) has one. The
    /// record of a used approval must be durable before the first request for it.
    pub fn use_approval(&mut self, on_tailnet: &Approvals) -> Option<FrozenPlan> {
        let plan = self.approval.take_approved(on_tailnet)?;
        let record = self.records.needed_mut();
        record.approvals_used = record.approvals_used.saturating_add(1);
        record.approved = Some(plan.hash.clone());
        Some(plan)
    }

    /// Whether this hash was the last one to be approved.
    pub fn has_used(&self, hash: &PlanHash) -> bool {
        self.needed_record().approved.as_ref() == Some(hash)
    }

    /// The cleanup after its deletion.
    pub const fn cleanup(&self) -> &Cleanup {
        &self.cleanup
    }

    pub const fn cleanup_mut(&mut self) -> &mut Cleanup {
        &mut self.cleanup
    }

    /// Begins to clean up, with this time without progress. `None`: it is not being deleted, or its status is
    /// one of a newer version and waits for a controller that can read it. Returns whether a cleanup begins.
    pub fn begin_cleanup(&mut self, patience: Option<Duration>) -> bool {
        // What a newer version recorded is not understood here (docs/decisions/0024).
        let patience = patience.filter(|_| !self.is_left_alone());
        self.cleanup.begin(patience);
        patience.is_some()
    }

    /// Whether it is being deleted.
    pub const fn is_deleting(&self) -> bool {
        self.cleanup.has_begun()
    }

    /// Whether its spec is invalid: its record then stays as it is.
    pub fn is_invalid(&self) -> bool {
        self.declared.is_err()
    }

    /// The reconcile request that its status names once it is complete.
    pub fn asked(&self) -> Option<&String> {
        self.request.iter().flatten().next()
    }

    pub fn asks_for_reconcile(&self) -> bool {
        self.asked().is_some() && self.asked() != self.needed_record().handled.as_ref()
    }

    /// The devices that it may change: those that it targets, and those that it has released and that are not
    /// cleared yet.
    pub fn managed(&self) -> BTreeSet<&NodeId> {
        let mut managed = self.needed_record().managed.released_devices();
        managed.extend(self.nodes());
        managed
    }

    /// The recorded bound device, as long as the spec names the device in the same way.
    pub fn bound_node(&self) -> Option<&NodeId> {
        let Target::Device(target) = &self.policy.as_deref().ok()?.target else {
            return None;
        };
        let bound = self.needed_record().bound.as_ref()?;
        target.names(&bound.named).then_some(&bound.node)
    }

    /// The recorded devices that have the name of the spec, while the policy is bound to none of them.
    pub fn rivals(&self) -> impl Iterator<Item = &NodeId> {
        let target = match self.policy.as_deref().map(|policy| &policy.target) {
            Ok(Target::Device(target)) => Some(target),
            _ => None,
        };
        let rivals = self
            .needed_record()
            .rivals
            .iter()
            .filter(move |it| target.is_some_and(|target| target.names(&it.named)));
        rivals.flat_map(|it| &it.nodes)
    }

    /// The rivals to record with a binding; they stay as before while it is undecided.
    pub fn rivals_of(&self, binding: Option<&Binding>) -> Option<Arc<Rivals>> {
        match (self.policy.as_deref().map(|policy| &policy.target), binding) {
            (Ok(Target::Device(target)), Some(Binding::Ambiguous(nodes))) => {
                Some(Arc::new(Rivals::of(target, nodes)))
            }
            // A list may lack one of them, which is no choice between the others.
            (_, Some(Binding::Missing(_))) => self.needed_record().rivals.clone(),
            (Ok(_), Some(_)) => None,
            _ => self.needed_record().rivals.clone(),
        }
    }

    /// Records the bound device and the devices among which it cannot choose. Returns whether they differ.
    pub fn record_binding(&mut self, bound: Option<Bound>, rivals: Option<Arc<Rivals>>) -> bool {
        let record = self.records.needed_mut();
        let differ = record.bound != bound || record.rivals != rivals;
        record.bound = bound;
        record.rivals = rivals;
        differ
    }

    /// The reconcile that its annotations request is complete.
    pub fn finish_request(&mut self) {
        // The status names the request, so that a restart does not poll for it again.
        self.records.needed_mut().handled = self.asked().cloned();
    }

    /// Forgets the state of an earlier term: only the stored record counts.
    pub fn start_term(&mut self) {
        self.approval.discard();
        self.records.start_term();
        // Another leader may have changed something since.
        self.changed_at = None;
        self.actions = DeletionQueue::default();
        self.keys = KeyRecord::default();
        self.note_finalizer();
    }

    /// The record of the bound device. It stays as before while no device is found; selectors have none.
    pub fn record_of(&self, binding: Option<&Binding>, index: &DeviceIndex) -> Option<Bound> {
        let before = self.needed_record().bound.clone();
        let Ok(policy) = self.policy.as_deref() else {
            return before;
        };
        if self.is_invalid() {
            return before;
        }
        match (&policy.target, binding) {
            (Target::Selector(_), _) => None,
            (Target::Device(target), Some(Binding::Device(id))) => {
                let device = index.get(id);
                device
                    .and_then(|device| recorded(target, device))
                    .or(before)
            }
            _ => before,
        }
    }
}
