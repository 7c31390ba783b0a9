//! Notifies the authors of a policy.

use crate::{
    plan::PolicyKey,
    tailnet::{Notification, gate::Gate, outbox::Outbox},
};

/// Emits an Event about a policy, if this process leads.
pub(super) fn notify(
    gate: &Gate,
    outbox: &mut Outbox,
    key: &PolicyKey,
    notification: Notification,
) {
    // Each replica computes the same, so only the leader emits the Event.
    if gate.leads() {
        outbox.notify(key, notification);
    }
}
