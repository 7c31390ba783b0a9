//! The stored object that a status of a policy is derived from and written over.

use kube::Resource as _;

use super::{finalizer, object_cache::Known};
use crate::api::{
    DeserializeGuard, TailscaleDevicePolicy, TailscaleDevicePolicySpec,
    TailscaleDevicePolicyStatus, TailscaleTailnet, TailscaleTailnetStatus,
};

/// The part of a stored policy that the controller writes.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controller) struct StoredPolicy {
    /// The tailnet that it belongs to: only the engine of this tailnet writes its status.
    pub tailnet: String,
    /// Its status.
    pub status: TailscaleDevicePolicyStatus,
    /// Whether it has the controller's finalizer.
    pub held_up: bool,
}

/// `before`: the tailnet that it belonged to as far as is known, for one whose spec cannot be read.
pub(in crate::controller) fn policy(
    object: &DeserializeGuard<TailscaleDevicePolicy>,
    before: Option<&str>,
) -> Known<StoredPolicy> {
    let meta = object.meta();
    let (tailnet, status) = match &object.0 {
        Ok(policy) => {
            let status = policy.status.clone().unwrap_or_default();
            (policy.spec.tailnet_name().to_owned(), status)
        }
        Err(unreadable) => {
            let named = || unreadable.spec::<TailscaleDevicePolicySpec>().0;
            let tailnet = before.map(str::to_owned);
            let tailnet = tailnet.unwrap_or_else(|| named().tailnet_name().to_owned());
            (tailnet, unreadable.status())
        }
    };
    Known {
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        version: meta.resource_version.clone().unwrap_or_default(),
        status: StoredPolicy {
            tailnet,
            status,
            held_up: finalizer::is_on(meta),
        },
    }
}

/// A tailnet as it is stored, as far as the controller writes it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controller) struct StoredTailnet {
    /// Its status, or what can be read of it.
    pub status: TailscaleTailnetStatus,
    /// Whether this version can read the object. If not, it writes only the conditions: the rest of the
    /// status may be a newer release's.
    pub readable: bool,
}

pub(in crate::controller) fn tailnet(
    object: &DeserializeGuard<TailscaleTailnet>,
) -> Known<StoredTailnet> {
    let meta = object.meta();
    let status = match &object.0 {
        Ok(tailnet) => tailnet.status.clone().unwrap_or_default(),
        Err(unreadable) => unreadable.status(),
    };
    Known {
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        version: meta.resource_version.clone().unwrap_or_default(),
        status: StoredTailnet {
            status,
            readable: object.0.is_ok(),
        },
    }
}
