//! A policy and its state in the engine.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::{
    Abandoned, actions::DeletionQueue, deadline::Deadline, evaluation::Evaluation, owned::KeyRecord,
};
use crate::{
    model::NodeId,
    plan::{
        AllowedRules, Approvals, Binding, Bound, Changes, DeviceIndex, FrozenPlan, Policy,
        PolicyInput, PolicyRecord, ReconcileRequest, Refusal, Rivals, Selector, StatusState,
        Target, recorded,
    },
};

/// A policy of the engine.
#[derive(Debug)]
pub(super) struct PolicyEntry {
    pub uid: String,
    pub generation: i64,
    /// The declared policy, or the errors of its spec.
    pub declared: Result<Policy, Vec<String>>,
    /// The policy that is in force, or why none is.
    pub policy: Result<Policy, Refusal>,
    /// The state of its object's status.
    pub status_state: StatusState,
    /// The last valid declaration.
    pub last_valid: Option<Policy>,
    /// The record in the last watched status; a term starts with it.
    pub watched_record: PolicyRecord,
    /// The record that is durable: a crash does not lose it.
    pub durable_record: PolicyRecord,
    /// The record that is needed.
    pub needed_record: PolicyRecord,
    /// The devices that it targets, as of the last reconcile. Each of them lists the policy.
    pub binding: Option<Binding>,
    /// Devices on which the expression of its selector fails; it does not target them.
    pub selector_errors: BTreeSet<NodeId>,
    /// The progress of its selector, if it has one.
    pub evaluation: Option<Evaluation>,
    /// The policy before the last edit, until the devices that it targets now are known.
    pub before_edit: Option<Policy>,
    /// Another process may have acted for it already, and this one does not know yet which devices it
    /// targets.
    pub awaited: bool,
    /// New or edited, and not completed yet: it goes before routine work.
    pub urgent: bool,
    pub changed_at: Option<Timestamp>,
    /// The reconciles that its annotations request.
    pub request: ReconcileRequest,
    /// The approvals in its annotation.
    pub approvals: Approvals,
    /// The plan that is pending approval.
    pub frozen_plan: Option<FrozenPlan>,
    /// Changes that are approved on the policy and not made yet.
    pub approved: Changes,
    /// Changes that are approved over the change limit and not made yet.
    pub approved_over_limit: Changes,
    /// Under `Clear`, it targets more devices than its status can record: nothing is sent for it.
    pub too_many: bool,
    /// It is being deleted; settings that are not cleared in this time are abandoned.
    pub deleting: Option<Deadline>,
    /// The settings that it leaves behind, once the engine has given up.
    pub abandoned: Option<Abandoned>,
    /// The state of its one-shot actions.
    pub actions: DeletionQueue,
    /// The record of the keys that it owns.
    pub keys: KeyRecord,
}

impl PolicyEntry {
    pub fn new(declared: PolicyInput, policy: Result<Policy, Refusal>) -> Self {
        let mut entry = Self {
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
            // A new policy goes before routine work.
            urgent: true,
            changed_at: None,
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
        entry.note_finalizer();
        entry
    }

    /// Without the finalizer, the status does not survive a deletion: its record of managed devices counts as
    /// not durable until the finalizer is back. Returns whether that is the case.
    pub fn note_finalizer(&mut self) -> bool {
        let lost = self.status_state.lacks_finalizer && !self.durable_record.managed.is_empty();
        if lost {
            self.durable_record.managed = Arc::default();
        }
        lost
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
        self.asked().is_some() && self.asked() != self.needed_record.handled.as_ref()
    }

    /// The devices that it targets, as of the last reconcile.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.binding.iter().flat_map(Binding::nodes)
    }

    /// The devices that it may change: those that it targets, and those that it has released and that are not
    /// cleared yet.
    pub fn managed(&self) -> BTreeSet<&NodeId> {
        let mut managed = self.needed_record.managed.released_devices();
        managed.extend(self.nodes());
        managed
    }

    /// The recorded bound device, as long as the spec names the device in the same way.
    pub fn bound_node(&self) -> Option<&NodeId> {
        let Target::Device(target) = &self.policy.as_ref().ok()?.target else {
            return None;
        };
        let bound = self.needed_record.bound.as_ref()?;
        target.names(&bound.named).then_some(&bound.node)
    }

    /// The recorded devices that have the name of the spec, while the policy is bound to none of them.
    pub fn rivals(&self) -> impl Iterator<Item = &NodeId> {
        let target = match self.policy.as_ref().map(|policy| &policy.target) {
            Ok(Target::Device(target)) => Some(target),
            _ => None,
        };
        let rivals = self.needed_record.rivals.iter();
        let rivals = rivals.filter(move |it| target.is_some_and(|target| target.names(&it.named)));
        rivals.flat_map(|it| &it.nodes)
    }

    /// The rivals to record with a binding; they stay as before while it is undecided.
    pub fn rivals_of(&self, binding: Option<&Binding>) -> Option<Arc<Rivals>> {
        match (self.policy.as_ref().map(|policy| &policy.target), binding) {
            (Ok(Target::Device(target)), Some(Binding::Ambiguous(nodes))) => {
                Some(Arc::new(Rivals::of(target, nodes)))
            }
            (_, Some(Binding::Missing(_))) => self.needed_record.rivals.clone(),
            (Ok(_), Some(_)) => None,
            _ => self.needed_record.rivals.clone(),
        }
    }

    /// Its selector, if it has one, and the devices among which it selects.
    pub fn selector(&self) -> Option<(&Selector, &AllowedRules)> {
        let policy = self.policy.as_ref().ok()?;
        match &policy.target {
            Target::Selector(selector) => Some((selector, &policy.allowance)),
            Target::Device(_) => None,
        }
    }

    /// Forgets the state of an earlier term: only the stored record counts.
    pub fn start_term(&mut self) {
        self.discard();
        self.needed_record = self.watched_record.clone();
        self.durable_record = self.watched_record.clone();
        // Another leader may have changed something since.
        self.changed_at = None;
        self.actions = DeletionQueue::default();
        self.keys = KeyRecord::default();
        self.note_finalizer();
    }

    /// The record of the bound device. It stays as before while no device is found; selectors have none.
    pub fn record_of(&self, binding: Option<&Binding>, index: &DeviceIndex) -> Option<Bound> {
        let before = self.needed_record.bound.clone();
        let Ok(policy) = self.policy.as_ref() else {
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
