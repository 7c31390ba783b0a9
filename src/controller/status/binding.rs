//! A policy or an invite whose device is not found.

use super::ready_state::ReadyState;
use crate::{
    api::{APPROVE, Reason},
    model::NodeId,
    plan::{Binding, Owner},
};

pub(in crate::controller) fn unbound(named: &str, binding: &Binding) -> ReadyState {
    let (reason, message) = match binding {
        Binding::NotFound | Binding::Device(_) | Binding::Selector(_) => (
            Reason::DeviceNotFound,
            format!(
                "No device of the tailnet has the {named}. Nothing is sent. Correct spec.device, or \
                 bring the device into the tailnet."
            ),
        ),
        Binding::Missing(node) => (
            Reason::DeviceNotFound,
            format!(
                "The last lists of devices lack {node}, the bound device with the {named}, and the API has \
                 not confirmed that it has left the tailnet. Nothing is sent to it, and no other device \
                 takes its place, until a list has it again or the API confirms that it is gone."
            ),
        ),
        Binding::Unmet { node, lacks } => (
            Reason::DeviceNotFound,
            format!(
                "The device with the {named} is {node}, but {lacks}, as spec.device requires. Nothing \
                 is sent until it does."
            ),
        ),
        Binding::Ambiguous(nodes) => (
            Reason::Ambiguous,
            format!(
                "{} devices have the {named}: {}. Nothing is sent. Write spec.device.nodeId instead.",
                nodes.len(),
                nodes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
        ),
        Binding::Unreadable { node, fields } => (
            Reason::DeviceUnreadable,
            format!(
                "The bound device is gone, and {node} has the {named} now. The API reports its owner in a \
                 form that cannot be read ({fields}), so the policy does not follow it. Nothing is sent \
                 until the owner can be read."
            ),
        ),
        Binding::IdentityChanged {
            bound,
            owner,
            found,
            found_owner,
        } => {
            let (before, now) = ((bound, owner), (found, found_owner));
            (
                Reason::IdentityChanged,
                identity_changed(named, before, now),
            )
        }
    };
    ReadyState::retrying(reason, message)
}

fn identity_changed(
    named: &str,
    (bound, owner): (&NodeId, &Owner),
    (found, found_owner): (&NodeId, &Owner),
) -> String {
    if bound == found {
        return format!(
            "The bound device {bound} (owner before: {owner}) now belongs to {found_owner}, who has signed \
             in on it. Nothing is sent. If that is right, write spec.device.nodeId: {found}."
        );
    }
    format!(
        "The bound device {bound} (owner: {owner}) is gone, and {found} (owner: {found_owner}) has the \
         {named} now. The policy does not follow it, as the owners differ. Nothing is sent. If it is the \
         right device, write spec.device.nodeId: {found}."
    )
}

/// The annotation of a policy can name the right device.
pub(super) fn with_hint(ready: ReadyState, binding: &Binding) -> ReadyState {
    let found = match binding {
        Binding::Ambiguous(nodes) => nodes.first(),
        Binding::IdentityChanged { found, .. } => Some(found),
        _ => None,
    };
    let Some(found) = found else {
        return ready;
    };
    ready.and(&format!(
        " Or annotate the policy with {APPROVE}: node:{found} to bind it to {found}."
    ))
}
