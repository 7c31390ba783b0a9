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
    /// The unreadable fields of its device that keep it unknown who owns the device.
    ///
    /// A policy that names its device by a name that can change gets nothing there: it is unknown whether someone
    /// else has signed in on the device, and without an owner the binding cannot be recorded before a request.
    pub(in crate::plan) fn owner_unknown_by(&self, device: &Device) -> UnreadableFields {
        match &self.target {
            Target::Device(target) if may_change(&target.identity) => Owner::unknown(device),
            Target::Device(_) | Target::Selector(_) => UnreadableFields::default(),
        }
    }

    /// The policy as it counts on a device that someone else has signed in on; `None` on any other device.
    pub(in crate::plan) fn on_taken_over(
        &self,
        record: &PolicyRecord,
        device: &Device,
    ) -> Option<Self> {
        let (Target::Device(target), Some(bound)) = (&self.target, &record.bound) else {
            return None;
        };
        // A record of another name or device says nothing about this one.
        if bound.node != device.node_id || !target.names(&bound.named) {
            return None;
        }
        let acts = matches!(self.mode, Mode::Enforce | Mode::Approve);
        (acts && target.is_taken_over(bound, device)).then(|| Self {
            mode: Mode::Suspended(Suspender::Identity),
            ..self.clone()
        })
    }
}
