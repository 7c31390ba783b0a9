//! A bound device that someone else has signed in on.
//!
//! A policy that names its device by what a machine can claim follows the machine only as long as its owner is
//! the same. Its differences on a device of another owner are held, and it keeps its precedence there: see
//! [`super::Binding::taken_over`].

use super::may_change;
use crate::{
    model::{Device, UnreadableFields},
    plan::{Bound, DeviceTarget, Mode, Owner, Policy, PolicyRecord, Suspender, Target},
};

impl DeviceTarget {
    /// Whether someone else has signed in on the bound device.
    pub(in crate::plan) fn is_taken_over(&self, bound: &Bound, device: &Device) -> bool {
        let is_known = Owner::unknown(device).is_empty();
        let owner = Owner::of(device);
        // Tags are given by an admin, or by the policy itself.
        let is_of_another = matches!(owner, Owner::User(_)) && owner != bound.owner;
        may_change(&self.identity) && is_known && is_of_another
    }
}

impl Policy {
    /// What this policy must know of a device to which its record binds it by a name.
    fn bound_by_name<'a>(
        &'a self,
        record: &'a PolicyRecord,
        device: &Device,
    ) -> Option<(&'a DeviceTarget, &'a Bound)> {
        let Target::Device(target) = &self.target else {
            return None;
        };
        let bound = record.bound.as_ref()?;
        let is_bound = bound.node == device.node_id && target.names(&bound.named);
        (is_bound && may_change(&target.identity)).then_some((target, bound))
    }

    /// The unreadable fields of the bound device that keep it unknown whether someone else has signed in on it.
    pub(in crate::plan) fn owner_unknown_by(
        &self,
        record: &PolicyRecord,
        device: &Device,
    ) -> UnreadableFields {
        match self.bound_by_name(record, device) {
            Some(_) => Owner::unknown(device),
            None => UnreadableFields::default(),
        }
    }

    /// The policy as it counts on a device that someone else has signed in on; `None` on any other device.
    pub(in crate::plan) fn on_taken_over(
        &self,
        record: &PolicyRecord,
        device: &Device,
    ) -> Option<Self> {
        let (target, bound) = self.bound_by_name(record, device)?;
        let acts = matches!(self.mode, Mode::Enforce | Mode::Approve);
        (acts && target.is_taken_over(bound, device)).then(|| Self {
            mode: Mode::Suspended(Suspender::Identity),
            ..self.clone()
        })
    }
}
