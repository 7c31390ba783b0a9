//! The stored object that a status of a policy is derived from and written over.

use kube::Resource as _;

use super::{finalizer, object_cache::Known};
use crate::{
    api::{
        DeserializeGuard, TailscaleDevicePolicy, TailscaleDevicePolicySpec,
        TailscaleDevicePolicyStatus, TailscaleTailnet, TailscaleTailnetStatus,
    },
    controller::status,
};

/// The part of a stored policy that the controller writes.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controller) struct StoredPolicy {
    /// The tailnet that it belongs to: only the engine of this tailnet writes its status.
    tailnet: String,
    status: StoredStatus,
    /// Whether it is ready, as its status says.
    is_ready: bool,
    /// Whether changes of it are held, as its status says.
    is_held: bool,
    /// Whether it has the controller's finalizer.
    has_finalizer: bool,
}

/// The status of a policy as JSON: there is one for each policy, it is read only before it is written again, and
/// its fields take several times as much memory.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controller) struct StoredStatus(Box<[u8]>);

impl StoredStatus {
    fn of(status: &TailscaleDevicePolicyStatus) -> Self {
        // Its maps have strings as keys, so that it can always be serialized.
        Self(serde_json::to_vec(status).unwrap_or_default().into())
    }

    pub fn read(&self) -> TailscaleDevicePolicyStatus {
        serde_json::from_slice(&self.0).unwrap_or_default()
    }
}

impl StoredPolicy {
    pub fn tailnet(&self) -> &str {
        &self.tailnet
    }

    pub fn status(&self) -> &StoredStatus {
        &self.status
    }

    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    pub fn is_held(&self) -> bool {
        self.is_held
    }

    pub fn has_finalizer(&self) -> bool {
        self.has_finalizer
    }

    pub fn set_status(&mut self, status: &TailscaleDevicePolicyStatus) {
        self.status = StoredStatus::of(status);
        self.is_ready = status::is_ready(&status.conditions);
        self.is_held = status::is_held(status);
    }

    pub fn set_finalizer(&mut self, has_finalizer: bool) {
        self.has_finalizer = has_finalizer;
    }
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
            // An edit that cannot be parsed must not move the policy to another tailnet.
            let tailnet = before.map_or_else(
                || {
                    let (spec, _) = unreadable.spec::<TailscaleDevicePolicySpec>();
                    spec.tailnet_name().to_owned()
                },
                str::to_owned,
            );
            (tailnet, unreadable.status())
        }
    };
    let stored = StoredPolicy {
        tailnet,
        is_ready: status::is_ready(&status.conditions),
        is_held: status::is_held(&status),
        status: StoredStatus::of(&status),
        has_finalizer: finalizer::is_on(meta),
    };
    Known::new(meta, stored)
}

/// A tailnet as it is stored, as far as the controller writes it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::controller) struct StoredTailnet {
    /// Its status, or what can be read of it.
    status: TailscaleTailnetStatus,
    readable: bool,
}

impl StoredTailnet {
    pub fn status(&self) -> &TailscaleTailnetStatus {
        &self.status
    }

    /// Whether this version can read the object. If not, it writes only the conditions: the rest of the
    /// status may be a newer release's.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    pub fn set_status(&mut self, status: TailscaleTailnetStatus) {
        self.status = status;
    }
}

pub(in crate::controller) fn tailnet(
    object: &DeserializeGuard<TailscaleTailnet>,
) -> Known<StoredTailnet> {
    let status = match &object.0 {
        Ok(tailnet) => tailnet.status.clone().unwrap_or_default(),
        Err(unreadable) => unreadable.status(),
    };
    let stored = StoredTailnet {
        status,
        readable: object.0.is_ok(),
    };
    Known::new(object.meta(), stored)
}
