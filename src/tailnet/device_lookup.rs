//! Lookups for other controllers. They use the tailnet's client and its budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Engine, Failure, Retry, Settings};
use crate::{
    model::{NodeId, Reason},
    plan::{
        self, Approvals, Binding, Bound, DeviceIndex, DeviceTarget, Identity, Owner, PolicyRecord,
        Target, may_change,
    },
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
    fn note(&mut self, identity: &Identity, bound: Option<&NodeId>, now: Duration) {
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

impl Engine {
    /// Finds a device in the last lists, and tells why the result is in doubt.
    pub(super) fn find(
        &mut self,
        target: &DeviceTarget,
        bound: Option<&NodeId>,
    ) -> Result<(Binding, Option<Doubt>), Failure> {
        if let Some(failure) = self.gate.disconnected() {
            return Err(failure.clone());
        }
        let bound = bound.or(match &target.identity {
            Identity::NodeId(id) => Some(id),
            _ => None,
        });
        if let Some(failure) = self.observed.polling().outage() {
            return Err(failure.clone());
        }
        let list_at = self.observed.polling().last();
        let looked_up = &mut self.observed.absence_mut().looked_up;
        looked_up.note(&target.identity, bound, list_at);
        if self.observed.lists() == 0 {
            return Err(Failure {
                reason: Reason::NotStarted,
                message: "The controller is reading the first list of devices.".to_owned(),
                retry: Retry::Later,
                unknown_outcome: false,
            });
        }
        let lost = bound.filter(|id| {
            is_lacking(self.observed.index(), id) && !self.observed.absence().is_gone(id)
        });
        if let Some(id) = lost {
            if self
                .observed
                .absence()
                .is_reported(id, self.observed.lists())
            {
                return Ok((Binding::Missing(id.clone()), None));
            }
            self.observed.compare_soon();
            return Ok((Binding::Device(id.clone()), Some(Doubt::NotListed)));
        }
        let binding = self.bind_looked_up(target, bound);
        let doubt = self.doubt(target, bound, &binding);
        if doubt.is_some() {
            self.observed.compare_soon();
        }
        Ok((binding, doubt))
    }

    fn bind_looked_up(&self, target: &DeviceTarget, bound: Option<&NodeId>) -> Binding {
        let device = bound.and_then(|id| self.observed.index().get(id));
        let record = PolicyRecord {
            bound: device.map(|device| Bound {
                node: device.node_id.clone(),
                owner: Owner::of(device),
                named: target.identity.to_string(),
            }),
            ..PolicyRecord::default()
        };
        let target = Target::Device(target.clone());
        plan::bind(
            &target,
            &record,
            &Approvals::default(),
            self.observed.index(),
        )
    }

    fn doubt(
        &self,
        target: &DeviceTarget,
        bound: Option<&NodeId>,
        binding: &Binding,
    ) -> Option<Doubt> {
        let Binding::Device(id) = binding else {
            return None;
        };
        if self.observed.absence().is_missing(id) {
            return Some(Doubt::NotListed);
        }
        let is_new = bound != Some(id) && may_change(&target.identity);
        (is_new && !self.can_compare_lists()).then_some(Doubt::OneList)
    }

    /// The looked-up devices of the snapshot. Forgets old lookups.
    pub(super) fn looked_up_devices(&mut self) -> BTreeSet<NodeId> {
        // An invite that exists is checked as rarely as attributes are read.
        let kept_for = 2 * self.refresh();
        let since = self.observed.polling().last().saturating_sub(kept_for);
        self.observed.absence_mut().looked_up.forget_before(since);
        let named = self.observed.absence().looked_up.named();
        let found = named.flat_map(|identity| self.observed.index().find(identity));
        found.map(|device| device.node_id.clone()).collect()
    }
}

/// Whether a list lacks a device, or has it only as one that is shared in.
pub(super) fn is_lacking(listed: &DeviceIndex, id: &NodeId) -> bool {
    listed.get(id).is_none_or(|device| device.external)
}
