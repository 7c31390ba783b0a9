//! What a status says of the rules that hold for its policy.

use super::ReadyState;
use crate::{
    plan::Binding,
    tailnet::{PolicyReport, State},
};

/// So much of the rules of `allowedPolicies` is repeated in a message.
const RULES_SHOWN: usize = 300;

/// Which devices are considered, where rules bound that: whether there are others that match is not the
/// author's to know.
pub(super) fn within(ready: ReadyState, report: &PolicyReport) -> ReadyState {
    let selects = match &report.state {
        State::Selector(_) => true,
        State::Unbound { binding, .. } => *binding == Binding::NotFound,
        _ => false,
    };
    let Some(devices) = report.within.as_ref().filter(|_| selects) else {
        return ready;
    };
    let shown: String = devices.chars().take(RULES_SHOWN).collect();
    let rest = if shown == *devices { "" } else { "…" };
    let message = format!(
        "{} Only devices that allowedPolicies lets policies of this namespace change are considered: \
         {shown}{rest}.",
        ready.message
    );
    ReadyState { message, ..ready }
}
