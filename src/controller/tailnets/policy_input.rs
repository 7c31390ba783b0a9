//! Converts an object of the cluster into the planner's input.

use std::time::Duration;

use jiff::Timestamp;
use kube::Resource as _;

use crate::{
    api::{
        APPROVE, DeserializeGuard, RECONCILE_ANNOTATIONS, TailscaleDevicePolicy,
        TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus, Unreadable,
    },
    controller::write::finalizer,
    convert,
    plan::{Approvals, PolicyInput, PolicyKey},
};

/// Characters of a request that are repeated in the status once it is handled: a time has about 35, and an
/// annotation may be far larger than a status.
const MAX_REQUEST: usize = 256;

/// A request for an immediate reconcile, as the status repeats it.
fn handled(request: &str) -> String {
    request.chars().take(MAX_REQUEST).collect()
}

/// The planner's input for a policy; one that cannot be parsed is invalid with its errors.
pub(crate) fn policy_input(
    key: &PolicyKey,
    object: &DeserializeGuard<TailscaleDevicePolicy>,
    clear_timeout: Duration,
) -> PolicyInput {
    let meta = object.meta();
    let uid = meta.uid.clone().unwrap_or_default();
    let generation = meta.generation.unwrap_or_default();
    let created = meta
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let mut declared = match &object.0 {
        Ok(policy) => convert::policy(
            key.clone(),
            uid,
            generation,
            created,
            &policy.spec,
            policy.status.as_ref(),
        ),
        Err(unreadable) => unread_spec(key.clone(), uid, generation, created, unreadable),
    };
    declared.status_state.lacks_finalizer = !finalizer::is_on(meta);
    let status = object.0.as_ref().ok().and_then(|it| it.status.as_ref());
    declared.status_state.history = Some(convert::history(status, generation));
    // When the deletion was asked for says nothing: no controller may have run since.
    declared.deleting = meta.deletion_timestamp.as_ref().map(|_| clear_timeout);
    let annotation = |name: &str| meta.annotations.as_ref()?.get(name);
    declared.approvals = Approvals::parse(annotation(APPROVE).map(String::as_str));
    declared.request =
        RECONCILE_ANNOTATIONS.map(|name| annotation(name).map(|request| handled(request)));
    declared
}

/// The readable fields of an object count, so that it keeps its precedence and its records.
fn unread_spec(
    key: PolicyKey,
    uid: String,
    generation: i64,
    created: Timestamp,
    object: &Unreadable,
) -> PolicyInput {
    let (spec, mut fields) = object.spec::<TailscaleDevicePolicySpec>();
    if fields.is_empty() {
        // Something else cannot be read, such as the spec as a whole.
        fields.push("device".to_owned());
    }
    let status: TailscaleDevicePolicyStatus = object.status();
    let mut declared =
        convert::readable_policy(key, uid, generation, created, &spec, Some(&status), &fields);
    declared.policy = Err(vec![format!(
        "the object cannot be parsed: {}",
        object.error
    )]);
    declared.status_state.left_alone = object.has_status();
    declared
}
