//! What a policy must not forget, as its status records it.

use std::collections::BTreeSet;

use super::{Verdict, clear};
use crate::{api::TailscaleDevicePolicyStatus, model::AttributeKey, tailnet::PolicyReport};

/// What must be there after a restart.
pub(super) fn describe(status: &mut TailscaleDevicePolicyStatus, report: &PolicyReport) {
    let memory = &report.memory;
    if let Some(bound) = &memory.bound {
        status.node_id = Some(bound.node.to_string());
        status.node_owner = Some(bound.owner.to_string());
        status.bound_as = Some(bound.named.clone());
    }
    status.last_handled_reconcile_at.clone_from(&memory.handled);
    status.holdings = clear::holdings(&memory.holdings);
    let names: BTreeSet<&AttributeKey> = report.owned.names().collect();
    status.owned_attributes = names.into_iter().map(ToString::to_string).collect();
    status.attribute_record = report.owned.to_status(&report.uid, report.unrecorded);
}

/// On some devices the policy owns nothing, as they are too many to be recorded.
pub(super) fn explain(verdict: Verdict, report: &PolicyReport) -> Verdict {
    if report.unrecorded == 0 {
        return verdict;
    }
    let message = format!(
        "{} A status has no room to record {} of the devices as managed: an attribute that \
         spec.postureAttributes no longer declares stays on them. Write several policies with narrower \
         selectors to have it deleted.",
        verdict.message, report.unrecorded
    );
    Verdict { message, ..verdict }
}
