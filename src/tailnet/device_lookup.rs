//! Lookups for other controllers. They use the tailnet's client and its budget.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Failure, Settings};
use crate::{
    model::NodeId,
    plan::{Binding, DeviceIndex, DeviceTarget, Identity},
    tailscale::Client,
};

/// Finds the targeted device and how to reach it. Costs no request: the last lists answer.
#[derive(Debug)]
pub struct DeviceLookup {
    /// The device to find.
    pub target: DeviceTarget,
    /// The device that is recorded as the targeted one. No other device takes its place before it is proven
    /// to have left the tailnet.
    pub bound: Option<NodeId>,
    /// The channel for the result.
    pub reply: oneshot::Sender<Result<LookupResult, Failure>>,
}

/// The result of a lookup.
#[derive(Debug)]
pub struct LookupResult {
    /// The device, or why there is none.
    pub binding: Binding,
    /// Why nothing may be created for the device yet.
    pub doubt: Option<Doubt>,
    /// The tailnet's own client.
    pub client: Client,
    /// The settings of the tailnet.
    pub settings: Settings,
    /// Cancelled as soon as nothing may be written based on this result any longer: another connection
    /// replaces this one, the tailnet is suspended, or this process no longer leads.
    pub writable: CancellationToken,
}

/// Why the device that was found is not certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Only one list has been read: another device of the name may be missing from it.
    OneList,
    /// The last list lacks the device.
    NotListed,
}

/// The recent lookups. A device that only a lookup concerns is given up as carefully as one that a policy
/// targets.
#[derive(Debug, Default)]
pub(super) struct LookedUpDevices {
    /// The identities that were looked up, by their text, with the time of the last list then.
    named: BTreeMap<String, (Identity, Duration)>,
    bound: BTreeMap<NodeId, Duration>,
}

impl LookedUpDevices {
    pub fn note(&mut self, identity: &Identity, bound: Option<&NodeId>, now: Duration) {
        let named = (identity.clone(), now);
        self.named.insert(identity.to_string(), named);
        self.bound.extend(bound.map(|id| (id.clone(), now)));
    }

    /// Forgets lookups older than this time.
    pub fn forget_before(&mut self, since: Duration) {
        self.named.retain(|_, (_, at)| *at >= since);
        self.bound.retain(|_, at| *at >= since);
    }

    /// The devices that are recorded as targeted.
    pub fn bound(&self) -> impl Iterator<Item = &NodeId> {
        self.bound.keys()
    }

    /// The identities that were looked up.
    pub fn named(&self) -> impl Iterator<Item = &Identity> {
        self.named.values().map(|(identity, _)| identity)
    }
}

/// Whether a list lacks a device, or has it only as one that is shared in.
pub(super) fn is_lacking(listed: &DeviceIndex, id: &NodeId) -> bool {
    listed.get(id).is_none_or(|device| device.external)
}
