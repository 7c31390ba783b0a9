//! Sends the poll.

use crate::tailnet::{
    Now, Request,
    gate::Gate,
    observed::Observed,
    outbox::{InFlightRequest, Outbox},
};

/// Sends the poll, if it is due and has a turn.
pub(super) fn poll(gate: &Gate, observed: &mut Observed, outbox: &mut Outbox, now: Now) {
    let due = observed.polling().is_due(now.monotonic);
    if gate.may_read() && due && outbox.take_turn() {
        let ticket = outbox.send(InFlightRequest {
            request: Request::Devices,
            epoch: observed.epoch(),
            differences: Vec::new(),
            sent_at: now.monotonic,
            until: None,
        });
        observed.poll_sent(ticket);
    }
}
