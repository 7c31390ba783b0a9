//! The records of a policy in its status.

use std::collections::BTreeSet;

use super::{ready_state::ReadyState, release};
use crate::{api::TailscaleDevicePolicyStatus, model::AttributeKey, tailnet::PolicyReport};

/// Everything that must survive a restart.
pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &PolicyReport) {
    let record = &report.record;
    if let Some(bound) = &record.bound {
        status.node_id = Some(bound.node.to_string());
        status.node_owner = Some(bound.owner.to_string());
        status.bound_as = Some(bound.named.clone());
    }
    status.last_handled_reconcile_at.clone_from(&record.handled);
    status.managed_devices = release::managed_devices(&record.managed);
    let names: BTreeSet<&AttributeKey> = report.owned.names().collect();
    status.owned_attributes = names.into_iter().map(ToString::to_string).collect();
    status.attribute_record = report.owned.to_status(&report.uid, report.unrecorded);
}

/// On some devices the policy owns nothing, as they are too many to record.
pub(super) fn explain(ready: ReadyState, report: &PolicyReport) -> ReadyState {
    if report.unrecorded == 0 {
        return ready;
    }
    ready.and(&format!(
        " The status cannot record {} of the devices as managed, as they are too many: an attribute that \
         spec.postureAttributes no longer declares stays on them. Write several policies with narrower \
         selectors to have it deleted.",
        report.unrecorded
    ))
}
