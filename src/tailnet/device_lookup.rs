//! Questions of those who work beside the engine, through the same client and so the same budget.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Engine, Failure, Retry, Settings};
use crate::{
    api::Reason,
    model::NodeId,
    plan::{
        self, Approvals, Binding, Bound, DeviceIndex, DeviceTarget, Identity, Owner, PolicyRecord,
        Target, may_change,
    },
    tailscale::Client,
};

/// Which device is targeted, and how to reach it? Costs no request: the last lists answer.
#[derive(Debug)]
pub struct DeviceLookup {
    /// The device in question.
    pub target: DeviceTarget,
    /// The device that is recorded as the targeted one: no other one takes its place before it is
    /// proven that it has left the tailnet.
    pub bound: Option<NodeId>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<LookupResult, Failure>>,
}

/// What an inquiry finds.
#[derive(Debug)]
pub struct LookupResult {
    /// The device, or why there is none.
    pub binding: Binding,
    /// Why nothing may be made for the device yet.
    pub doubt: Option<Doubt>,
    /// The tailnet's own client.
    pub client: Client,
    /// How the tailnet is looked after.
    pub settings: Settings,
    /// Cancelled as soon as nothing may be written to the tailnet any longer by what was found: another
    /// connection takes the place of this one, the tailnet is suspended, or this process no longer leads.
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

/// What was asked for a short while ago. A device that only an inquiry is about is given up as
/// carefully as one that a policy is about.
#[derive(Debug, Default)]
pub(super) struct LookedUpDevices {
    /// How a device was named, by that as a text, and when (the time of the last list then).
    named: BTreeMap<String, (Identity, Duration)>,
    bound: BTreeMap<NodeId, Duration>,
}

impl LookedUpDevices {
    fn note(&mut self, identity: &Identity, bound: Option<&NodeId>, now: Duration) {
        let named = (identity.clone(), now);
        self.named.insert(identity.to_string(), named);
        self.bound.extend(bound.map(|id| (id.clone(), now)));
    }

    /// Forgets what nobody has asked for since a time.
    pub fn forget_before(&mut self, since: Duration) {
        self.named.retain(|_, (_, at)| *at >= since);
        self.bound.retain(|_, at| *at >= since);
    }

    /// The devices that are recorded as the targeted ones.
    pub fn bound(&self) -> impl Iterator<Item = &NodeId> {
        self.bound.keys()
    }

    /// How devices were named.
    pub fn named(&self) -> impl Iterator<Item = &Identity> {
        self.named.values().map(|(identity, _)| identity)
    }
}

impl Engine {
    /// Finds a device by the last lists, and says why it is not certain.
    pub(super) fn find(
        &mut self,
        target: &DeviceTarget,
        bound: Option<&NodeId>,
    ) -> Result<(Binding, Option<Doubt>), Failure> {
        self.connection.clone()?;
        let bound = bound.or(match &target.identity {
            Identity::NodeId(id) => Some(id),
            _ => None,
        });
        if let Some(failure) = self.polling.outage() {
            return Err(failure.clone());
        }
        self.absence
            .inquired
            .note(&target.identity, bound, self.polling.last());
        if self.polling.seen == 0 {
            return Err(Failure {
                reason: Reason::NotStarted,
                message: "The first list of devices is being read.".to_owned(),
                retry: Retry::Later,
                unknown_outcome: false,
            });
        }
        let lost = bound.filter(|id| is_lacking(&self.index, id) && !self.absence.is_gone(id));
        if let Some(id) = lost {
            if self.absence.is_reported(id, self.polling.seen) {
                return Ok((Binding::Missing(id.clone()), None));
            }
            self.polling.compare_soon();
            return Ok((Binding::Device(id.clone()), Some(Doubt::NotListed)));
        }
        let binding = self.bind_inquired(target, bound);
        let doubt = self.doubt(target, bound, &binding);
        if doubt.is_some() {
            self.polling.compare_soon();
        }
        Ok((binding, doubt))
    }

    fn bind_inquired(&self, target: &DeviceTarget, bound: Option<&NodeId>) -> Binding {
        let device = bound.and_then(|id| self.index.get(id));
        let record = PolicyRecord {
            bound: device.map(|device| Bound {
                node: device.node_id.clone(),
                owner: Owner::of(device),
                named: target.identity.to_string(),
            }),
            ..PolicyRecord::default()
        };
        let target = Target::Device(target.clone());
        plan::bind(&target, &record, &Approvals::default(), &self.index)
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
        if self.absence.is_missing(id) {
            return Some(Doubt::NotListed);
        }
        let is_new = bound != Some(id) && may_change(&target.identity);
        (is_new && !self.can_compare_lists()).then_some(Doubt::OneList)
    }

    /// The devices of this list that inquiries are about, and forgets what is no longer asked for.
    pub(super) fn inquired_devices(&mut self) -> BTreeSet<NodeId> {
        // An inquiry about a device that has its invite comes as rarely as attributes are read.
        let kept_for = 2 * self.refresh();
        let since = self.polling.last().saturating_sub(kept_for);
        self.absence.inquired.forget_before(since);
        let named = self.absence.inquired.named();
        let found = named.flat_map(|identity| self.index.find(identity));
        found.map(|device| device.node_id.clone()).collect()
    }
}

/// Whether a list has a device not among the tailnet's own.
pub(super) fn is_lacking(listed: &DeviceIndex, id: &NodeId) -> bool {
    listed.get(id).is_none_or(|device| device.external)
}
