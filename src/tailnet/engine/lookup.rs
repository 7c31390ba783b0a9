//! Answers lookups of other controllers from the last lists.

use std::collections::BTreeSet;

use super::Engine;
use crate::{
    model::{NodeId, Reason},
    plan::{
        Approvals, Binding, Bound, DeviceTarget, Identity, Owner, PolicyRecord, Target, may_change,
    },
    tailnet::{
        Failure, Retry,
        device_lookup::{Doubt, is_lacking},
    },
};

impl Engine {
    /// Finds a device in the last lists, and tells why the result is in doubt.
    pub(in crate::tailnet) fn find(
        &mut self,
        target: &DeviceTarget,
        bound: Option<&NodeId>,
    ) -> Result<(Binding, Option<Doubt>), Failure> {
        // Without a connection the lists are of an earlier time, and prove nothing.
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
        // Noted even before the first list, so that later snapshots include the device.
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
                // One incomplete list proves nothing; now more than one in a row lacks the device.
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
        crate::plan::bind(
            &target,
            &record,
            &Approvals::default(),
            self.observed.index(),
        )
    }

    pub(super) fn doubt(
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
        // A name may be claimed by another device, so one list is not enough to bind it.
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
