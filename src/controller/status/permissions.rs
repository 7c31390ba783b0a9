//! The guardrails of a policy in its status.

use super::ready_state::ReadyState;
use crate::{
    plan::Binding,
    tailnet::{PolicyReport, State},
};

/// The number of characters of `allowedPolicies` that a message quotes.
const RULES_SHOWN: usize = 300;

/// Names the devices that the policy can target, if guardrails restrict them. The message must not
/// reveal whether others match.
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
    ready.and(&format!(
        " The policy can only target devices that allowedPolicies allows policies of this namespace to \
         change: {shown}{rest}."
    ))
}
