//! Each part of a policy's entry alone: small inputs, no engine.

mod actions;
mod approval;
mod entry;
mod owned;
mod release;
mod targets;

use super::PolicyEntry;
use crate::plan::{Approvals, Policy, PolicyInput, PolicyRecord, StatusState};
use std::sync::Arc;

/// A policy as it is declared first, with this record in its status.
fn input(policy: Policy, record: PolicyRecord) -> PolicyInput {
    PolicyInput {
        key: policy.key.clone(),
        uid: "uid".to_owned(),
        generation: 1,
        policy: Ok(Arc::new(policy)),
        record,
        request: [None, None],
        approvals: Approvals::default(),
        status_state: StatusState::default(),
        deleting: None,
    }
}

/// The entry of a policy that the guardrails allow.
fn entry(policy: Policy) -> PolicyEntry {
    recorded_entry(policy, PolicyRecord::default())
}

/// The same, with this record in its status.
fn recorded_entry(policy: Policy, record: PolicyRecord) -> PolicyEntry {
    PolicyEntry::new(input(policy.clone(), record), Ok(Arc::new(policy)))
}

/// The entry of a policy whose spec has become invalid.
fn invalid_entry(policy: Policy, record: PolicyRecord) -> PolicyEntry {
    let declared = PolicyInput {
        policy: Err(vec!["spec.tags: found x".to_owned()]),
        ..input(policy.clone(), record)
    };
    PolicyEntry::new(declared, Ok(Arc::new(policy)))
}
