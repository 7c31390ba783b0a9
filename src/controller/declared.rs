//! From an object of the cluster to a policy as the plan takes it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Resource as _, core::DeserializeGuard};

use super::finalizer;
use crate::{
    api::{APPROVE, LOOK_REQUESTS, TailscaleDevicePolicy},
    plan::{self, Approvals, Declared, LookRequest, Memory, PolicyKey},
};

/// The policy as the plan takes it; one that cannot be read is refused with what is wrong.
pub(crate) fn declared(
    key: &PolicyKey,
    object: &DeserializeGuard<TailscaleDevicePolicy>,
    clear_timeout: Duration,
) -> Declared {
    let meta = object.meta();
    let uid = meta.uid.clone().unwrap_or_default();
    let generation = meta.generation.unwrap_or_default();
    let created = meta
        .creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let mut declared = match &object.0 {
        Ok(policy) => plan::parse(
            key.clone(),
            uid,
            generation,
            created,
            &policy.spec,
            policy.status.as_ref(),
        ),
        Err(invalid) => Declared {
            key: key.clone(),
            uid,
            generation,
            policy: Err(vec![format!(
                "the object cannot be read: {}",
                invalid.error
            )]),
            memory: Memory::default(),
            request: LookRequest::default(),
            approvals: Approvals::default(),
            leaving: None,
        },
    };
    if !finalizer::stands_on(meta) {
        // Holdings are kept by both: the status alone does not outlive a deletion.
        declared.memory.holdings = Arc::default();
    }
    let deleted = meta.deletion_timestamp.as_ref();
    declared.leaving = deleted.map(|time| time.0 + clear_timeout);
    let annotation = |name: &str| meta.annotations.as_ref()?.get(name);
    declared.approvals = Approvals::parse(annotation(APPROVE).map(String::as_str));
    declared.request = LOOK_REQUESTS.map(|name| annotation(name).cloned());
    declared
}
