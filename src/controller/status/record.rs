//! What the status of a policy cannot record.

use super::ready_state::ReadyState;
use crate::tailnet::PolicyReport;

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
