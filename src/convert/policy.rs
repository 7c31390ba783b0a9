//! Reads a policy from the spec and the status of its object.

use std::sync::Arc;

use jiff::Timestamp;

use super::{record, spec_errors::SpecErrors};
use crate::{
    api::{self, TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus},
    plan::{
        AllowedRules, Approvals, Deletion, Mode, Ownership, Policy, PolicyInput, PolicyKey,
        ReconcileRequest, StatusState, Suspender,
    },
};

/// Parses a policy. The API server's rules refuse most errors at apply. An error here is in an object that is
/// older than the rule, or in a file.
#[must_use]
pub fn policy(
    key: PolicyKey,
    uid: String,
    generation: i64,
    created: Timestamp,
    spec: &TailscaleDevicePolicySpec,
    status: Option<&TailscaleDevicePolicyStatus>,
) -> PolicyInput {
    readable_policy(key, uid, generation, created, spec, status, &[])
}

/// Parses the readable part of a policy; `unread` are the unreadable fields of its spec.
#[must_use]
pub fn readable_policy(
    key: PolicyKey,
    uid: String,
    generation: i64,
    created: Timestamp,
    spec: &TailscaleDevicePolicySpec,
    status: Option<&TailscaleDevicePolicyStatus>,
    unread: &[String],
) -> PolicyInput {
    let mut errors = SpecErrors::default();
    let target = errors.target(spec);
    let desired = errors.desired(spec);
    let policy = Policy {
        key: key.clone(),
        uid: uid.clone(),
        generation,
        priority: spec.priority.unwrap_or_default(),
        created,
        target,
        desired,
        ownership: ownership(spec),
        mode: mode(spec),
        allowance: AllowedRules::default(),
        allowed: spec.allow_disruption.iter().copied().collect(),
        deletion: deletion(spec),
    };
    // Last, so that the errors of the readable fields come first.
    for field in unread {
        errors.add(field, "this version of the controller cannot read it");
    }
    let record = status
        .map(|status| record::record(status, &uid, spec.tailnet_name()))
        .unwrap_or_default();
    let mut status_state = StatusState::default();
    // An invalid policy keeps its place: what is readable holds back the policies of lower rank.
    let policy = match errors.or(()) {
        Ok(()) => Ok(Arc::new(policy)),
        Err(errors) => {
            status_state.readable = policy.readable_part(&errors, &record).map(Arc::new);
            Err(errors)
        }
    };
    PolicyInput {
        key,
        generation,
        policy,
        record,
        status_state,
        // The rest is not in the spec: the controller adds it from the metadata.
        request: ReconcileRequest::default(),
        approvals: Approvals::default(),
        deleting: None,
        uid,
    }
}

fn deletion(spec: &TailscaleDevicePolicySpec) -> Deletion {
    match spec.deletion_policy {
        Some(api::DeletionPolicy::Clear) => Deletion::Clear,
        Some(api::DeletionPolicy::Retain) | None => Deletion::Retain,
    }
}

pub(super) fn ownership(spec: &TailscaleDevicePolicySpec) -> Ownership {
    let given = spec.ownership.unwrap_or_default();
    Ownership {
        tags: given.tags.unwrap_or_default(),
        enabled_routes: given.enabled_routes.unwrap_or_default(),
        attributes: given.posture_attributes.unwrap_or_default(),
    }
}

/// A policy that observes owns nothing, suspended or not.
fn mode(spec: &TailscaleDevicePolicySpec) -> Mode {
    match (spec.enforcement(), spec.suspend) {
        (api::Enforcement::Observe, _) => Mode::Observe,
        (api::Enforcement::Enforce | api::Enforcement::Approve, Some(true)) => {
            Mode::Suspended(Suspender::Policy)
        }
        (api::Enforcement::Enforce, Some(false) | None) => Mode::Enforce,
        (api::Enforcement::Approve, Some(false) | None) => Mode::Approve,
    }
}
