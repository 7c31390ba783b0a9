//! Fields that a policy manages, and fields that its spec no longer declares: it releases them.
//!
//! A status has no former spec, so the record says which fields the policy manages. Under `Clear`, the record of
//! its devices says what to clear on each.

use std::collections::BTreeSet;

use crate::{model::PolicyField, plan::Policy};

/// The fields that a policy manages, and those that its last edit released.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ManagedFields {
    /// The fields that it has set on a device, or found in sync there. A policy that sends nothing manages
    /// none. Without `postureAttributes`, whose keys [`crate::plan::PolicyRecord::owned`] records.
    pub fields: BTreeSet<PolicyField>,
    /// The fields that it released and that stay as they are.
    pub released: Option<ReleasedFields>,
}

/// Fields that an edit removed from a spec, and that stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ReleasedFields {
    /// The generation of the spec that no longer declares them.
    pub generation: i64,
    /// The fields.
    pub fields: BTreeSet<PolicyField>,
    /// How many devices the policy targeted then.
    pub devices: usize,
}

impl ManagedFields {
    /// Notes what an edit released.
    pub(super) fn note_edit(&mut self, policy: &Policy, edit: Edit, stays: BTreeSet<PolicyField>) {
        let declared = policy.desired.fields();
        let before = self.released.take();
        // The status must not lose what an earlier edit released before anyone could see it.
        let before = before.filter(|it| it.generation == edit.generation || !edit.is_reported);
        let mut released = before.unwrap_or_default();
        released.generation = edit.generation;
        released.devices = released.devices.max(edit.devices);
        released.fields.extend(stays);
        released.fields.retain(|field| !declared.contains(field));
        self.released = (!released.fields.is_empty()).then_some(released);
    }
}

/// The edit that may release fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// The generation of the spec.
    pub generation: i64,
    /// How many devices the policy targets.
    pub devices: usize,
    /// Which devices these are is certain: something may be sent to them.
    pub is_certain: bool,
    /// The status has what the edit before this one released.
    pub is_reported: bool,
}
