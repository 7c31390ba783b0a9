//! A policy as an engine holds it.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::{
    Abandoned, PolicyReport, actions::DeletionQueue, deadline::Deadline, evaluation::Evaluation,
    owned::KeyRecord,
};
use crate::{
    model::NodeId,
    plan::{
        AllowedRules, Approvals, Binding, Changes, FrozenPlan, Policy, PolicyInput, PolicyRecord,
        ReconcileRequest, Refusal, Selector, StatusState, Target,
    },
};

/// A policy that the engine looks after.
#[derive(Debug)]
pub(super) struct PolicyEntry {
    pub uid: String,
    pub generation: i64,
    /// What is declared, or what is wrong with it.
    pub declared: Result<Policy, Vec<String>>,
    /// What counts of it, or why nothing does.
    pub policy: Result<Policy, Refusal>,
    /// What else is known of its object.
    pub status_state: StatusState,
    /// What it last validly declared.
    pub last_valid: Option<Policy>,
    /// What its status recorded when last watched; a term starts with it.
    pub watched_record: PolicyRecord,
    /// What is surely kept: a crash would not lose it.
    pub durable_record: PolicyRecord,
    /// What must be remembered.
    pub needed_record: PolicyRecord,
    /// Which devices it means, as of the last look; each counts it among its policies.
    pub binding: Option<Binding>,
    /// Devices of which the expression of its selector cannot tell; they are not meant.
    pub selector_errors: BTreeSet<NodeId>,
    /// How far it is with comparing devices with its selector, if it has one.
    pub evaluation: Option<Evaluation>,
    /// What counted before the last edit, until the devices are known that it targets now.
    pub before_edit: Option<Policy>,
    /// Another process may have acted for it already, and this one has not found out yet which devices it
    /// targets.
    pub awaited: bool,
    /// New or edited, and not seen through yet: goes before routine work.
    pub urgent: bool,
    pub changed_at: Option<Timestamp>,
    pub last_report: Option<PolicyReport>,
    /// The looks that its annotations ask for.
    pub request: ReconcileRequest,
    /// What its annotation approves.
    pub approvals: Approvals,
    /// What waits for an approval.
    pub frozen_plan: Option<FrozenPlan>,
    /// What was approved on it and is not done yet.
    pub approved: Changes,
    /// What was approved in spite of the tailnet's limit and is not done yet.
    pub approved_over_limit: Changes,
    /// Under `Clear`, it is about more devices than can be kept: nothing is sent for it.
    pub too_many: bool,
    /// It is being deleted; what is not cleared in this time is given up.
    pub deleting: Option<Deadline>,
    /// What it leaves behind, once it has been given up.
    pub abandoned: Option<Abandoned>,
    /// What it is doing once.
    pub actions: DeletionQueue,
    /// How the keys that it owns are recorded.
    pub keys: KeyRecord,
}

impl PolicyEntry {
    pub fn new(declared: PolicyInput, policy: Result<Policy, Refusal>) -> Self {
        let mut held = Self {
            uid: declared.uid,
            generation: declared.generation,
            last_valid: declared.policy.as_ref().ok().cloned(),
            declared: declared.policy,
            status_state: declared.status_state,
            policy,
            watched_record: declared.record.clone(),
            durable_record: declared.record.clone(),
            needed_record: declared.record,
            binding: None,
            selector_errors: BTreeSet::new(),
            evaluation: None,
            before_edit: None,
            awaited: false,
            urgent: true,
            changed_at: None,
            last_report: None,
            request: declared.request,
            approvals: declared.approvals,
            frozen_plan: None,
            approved: Changes::default(),
            approved_over_limit: Changes::default(),
            too_many: false,
            deleting: None,
            abandoned: None,
            actions: DeletionQueue::default(),
            keys: KeyRecord::default(),
        };
        held.note_finalizer();
        held
    }

    /// Without the finalizer the status alone does not outlive a deletion: what it records of managed
    /// devices counts as not recorded until the finalizer is back. Says whether that is so.
    pub fn note_finalizer(&mut self) -> bool {
        let lost = self.status_state.lacks_finalizer && !self.durable_record.managed.is_empty();
        if lost {
            self.durable_record.managed = Arc::default();
        }
        lost
    }

    /// Whether its spec is invalid: what is recorded of it is left as it is.
    pub fn is_invalid(&self) -> bool {
        self.declared.is_err()
    }

    /// The request for a look that its status is to name once that is granted.
    pub fn asked(&self) -> Option<&String> {
        self.request.iter().flatten().next()
    }

    pub fn asks_for_reconcile(&self) -> bool {
        self.asked().is_some() && self.asked() != self.needed_record.handled.as_ref()
    }

    /// The devices that it means, as of the last look.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.binding.iter().flat_map(Binding::nodes)
    }

    /// Whatever it may change: the devices that it targets, and those that it has released and that
    /// are not cleared yet.
    pub fn managed(&self) -> BTreeSet<&NodeId> {
        let mut managed = self.needed_record.managed.release();
        managed.extend(self.nodes());
        managed
    }

    /// The device that it is recorded to be bound to, as long as the manifest names the device so.
    pub fn bound_node(&self) -> Option<&NodeId> {
        let Target::Device(target) = &self.policy.as_ref().ok()?.target else {
            return None;
        };
        let bound = self.needed_record.bound.as_ref()?;
        (bound.named == target.identity.to_string()).then_some(&bound.node)
    }

    /// Its selector, if it is about many devices, and the devices among which it selects.
    pub fn selector(&self) -> Option<(&Selector, &AllowedRules)> {
        let policy = self.policy.as_ref().ok()?;
        match &policy.target {
            Target::Selector(selector) => Some((selector, &policy.allowance)),
            Target::Device(_) => None,
        }
    }

    /// Forgets what this process made of it in an earlier term: only what is stored counts.
    pub fn start_term(&mut self) {
        self.discard();
        self.needed_record = self.watched_record.clone();
        self.durable_record = self.watched_record.clone();
        self.last_report = None;
        // Another leader may have changed something since.
        self.changed_at = None;
        self.actions = DeletionQueue::default();
        self.keys = KeyRecord::default();
        self.note_finalizer();
    }
}
