//! Answers lookups of other controllers from the last lists.

use std::collections::BTreeSet;

use crate::{
    model::{NodeId, Reason},
    plan::{
        Approvals, Binding, Bound, DeviceTarget, Identity, Owner, PolicyRecord, Target, may_change,
    },
    tailnet::{Failure, Retry, Settings, device_lookup::Doubt, gate::Gate, observed::Observed},
};

/// Finds a device in the last lists, and tells why the result is in doubt.
pub(super) fn find_device(
    gate: &Gate,
    observed: &mut Observed,
    target: &DeviceTarget,
    bound: Option<&NodeId>,
) -> Result<(Binding, Option<Doubt>), Failure> {
    // Without a connection the lists are of an earlier time, and prove nothing.
    if let Some(failure) = gate.disconnected() {
        return Err(failure.clone());
    }
    let bound = bound.or(match &target.identity {
        Identity::NodeId(id) => Some(id),
        _ => None,
    });
    if let Some(failure) = observed.polling().outage() {
        return Err(failure.clone());
    }
    let list_at = observed.polling().last();
    let looked_up = &mut observed.absence_mut().looked_up;
    // Noted even before the first list, so that later snapshots include the device.
    looked_up.note(&target.identity, bound, list_at);
    if observed.lists() == 0 {
        return Err(Failure {
            reason: Reason::NotStarted,
            message: "The controller is reading the first list of devices.".to_owned(),
            retry: Retry::Later,
            unknown_outcome: false,
        });
    }
    if let Some(id) = bound.filter(|id| observed.has_lost(id)) {
        if observed.absence().is_reported(id, observed.lists()) {
            // One incomplete list proves nothing; now more than one in a row lacks the device.
            return Ok((Binding::Missing(id.clone()), None));
        }
        observed.compare_soon();
        return Ok((Binding::Device(id.clone()), Some(Doubt::NotListed)));
    }
    let binding = bind_looked_up(observed, target, bound);
    let doubt = doubt(gate, observed, target, bound, &binding);
    if doubt.is_some() {
        observed.compare_soon();
    }
    Ok((binding, doubt))
}

fn bind_looked_up(observed: &Observed, target: &DeviceTarget, bound: Option<&NodeId>) -> Binding {
    let device = bound.and_then(|id| observed.index().get(id));
    let record = PolicyRecord {
        bound: device.map(|device| Bound {
            node: device.node_id.clone(),
            owner: Owner::of(device),
            named: target.identity.to_string(),
        }),
        ..PolicyRecord::default()
    };
    let target = Target::Device(target.clone());
    crate::plan::bind(&target, &record, &Approvals::default(), observed.index())
}

pub(super) fn doubt(
    gate: &Gate,
    observed: &Observed,
    target: &DeviceTarget,
    bound: Option<&NodeId>,
    binding: &Binding,
) -> Option<Doubt> {
    let Binding::Device(id) = binding else {
        return None;
    };
    if observed.absence().is_missing(id) {
        return Some(Doubt::NotListed);
    }
    // A name may be claimed by another device, so one list is not enough to bind it.
    let is_new = bound != Some(id) && may_change(&target.identity);
    (is_new && !gate.can_compare_lists(observed)).then_some(Doubt::OneList)
}

/// The looked-up devices of the snapshot. Forgets old lookups.
pub(super) fn looked_up_devices(settings: &Settings, observed: &mut Observed) -> BTreeSet<NodeId> {
    // An invite that exists is checked as rarely as attributes are read.
    let kept_for = 2 * observed.longest_read_interval(settings.attributes_interval);
    let since = observed.polling().last().saturating_sub(kept_for);
    observed.absence_mut().looked_up.forget_before(since);
    let named = observed.absence().looked_up.named();
    let found = named.flat_map(|identity| observed.index().find(identity));
    found.map(|device| device.node_id.clone()).collect()
}
