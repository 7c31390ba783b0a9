//! Sends requests, and tells whether the reasons of a write still hold.
//!
//! A request that still waits for a connection after it was sent is revoked as soon as the plan no longer has
//! its changes ([`crate::tailnet::Engine::still_wants`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::dispatch::Dispatch;
use crate::{
    model::{AttributeKey, NodeId},
    plan::{AttributeWrites, Call, Difference, Field, still_planned},
    tailnet::{
        Now, Request, Ticket,
        device_state::{DeviceState, Step},
        devices::Devices,
        dirty::Dirty,
        gate::Gate,
        halves::Half,
        mutants::mutant,
        observed::Observed,
        outbox::{InFlightRequest, Outbox},
    },
};

impl Dispatch<'_> {
    /// Sends a request, and counts the devices that it changes.
    pub(super) fn send(
        &mut self,
        request: Request,
        differences: Vec<Difference>,
        now: Now,
    ) -> Ticket {
        let mut until = None;
        if let Request::Write(call) = &request {
            for id in call.nodes() {
                let mut own = differences.iter().filter(|it| it.node == *id);
                let namespace = own.next().map(|it| it.owner.namespace.clone());
                // Counted from now on, or several requests at once could exceed the limit.
                self.change_budget.begin(id, namespace);
            }
            let rests_on = call.nodes().into_iter().filter_map(|id| {
                let basis = self.devices.get(id)?.rests_on(call);
                basis.until(self.settings.fresh_for())
            });
            until = rests_on.min();
        }
        self.outbox.send(InFlightRequest {
            request,
            epoch: self.observed.epoch(),
            differences,
            sent_at: now.monotonic,
            until,
        })
    }

    /// Sends the next part of a refused batch, as far as its changes are still planned.
    pub(super) fn send_halves(&mut self, now: Now) {
        while let Some(half) = self.outbox.next_half() {
            let mut writes: BTreeMap<NodeId, AttributeWrites> = BTreeMap::new();
            let mut differences = Vec::new();
            for (id, keys) in half.entries() {
                let (own, removed) = self.part_of(id, keys, now);
                let Some(node) = self.devices.get_mut(id) else {
                    continue;
                };
                // The plan has changed since the batch was refused: nothing of this device is left to send.
                if own.is_empty() {
                    node.part_dropped();
                    self.dirty.step(id);
                } else {
                    node.part_sent();
                    writes.insert(id.clone(), own);
                    differences.extend(removed);
                }
            }
            if writes.is_empty() {
                self.outbox.give_back_turn();
            } else {
                self.send(
                    Request::Write(Call::WriteAttributes(writes)),
                    differences,
                    now,
                );
            }
        }
    }

    /// The writes of these attributes of a device that are still planned.
    fn part_of(
        &self,
        id: &NodeId,
        keys: &BTreeSet<AttributeKey>,
        now: Now,
    ) -> (AttributeWrites, Vec<Difference>) {
        let Some(node) = self.devices.get(id) else {
            return Default::default();
        };
        let context = self.step_context(id, node, now.monotonic);
        let Step::WriteAttributes(mut writes, mut differences) = node.step_if_idle(id, context)
        else {
            return Default::default();
        };
        writes.retain(|key, _| keys.contains(key));
        differences.retain(|difference| {
            difference
                .change
                .attribute()
                .is_some_and(|key| keys.contains(key))
        });
        (writes, differences)
    }

    /// Looks up the devices that two lists lack.
    pub(super) fn send_lookups(&mut self, now: Now) {
        while next_lookup(self.gate, self.observed, self.outbox)
            .is_some_and(|from| from <= now.monotonic)
            && self.outbox.take_turn()
            && let Some((_, id)) = self.observed.absence().next(self.observed.lists())
        {
            let id = id.clone();
            let ticket = self.send(Request::Device(id.clone()), Vec::new(), now);
            self.observed.absence_mut().ask(id, ticket);
        }
    }
}

/// Whether the reasons for a write that waits to be sent still hold: this process leads, the connection
/// is the one that the write was decided for, and the plan still has exactly these changes.
pub(super) fn still_wants(
    gate: &Gate,
    observed: &Observed,
    devices: &Devices,
    outbox: &Outbox,
    ticket: Ticket,
    now: Now,
) -> bool {
    // An unknown ticket belongs to a request that was answered or revoked.
    let Some(in_flight) = outbox.in_flight(ticket) else {
        return false;
    };
    // A read changes nothing, so it may go out whatever has happened meanwhile.
    let Request::Write(call) = &in_flight.request else {
        return true;
    };
    if mutant!(ReasonsAreNotCheckedAgain) {
        return true;
    }
    let list_trusted = observed.polling().is_trusted(now.monotonic);
    // A new connection or term reads everything again before it writes.
    in_flight.epoch == observed.epoch()
        && gate.may_write(observed)
        && call.nodes().into_iter().all(|id| {
            let node = devices.get(id);
            // A device that the last list lacks may be gone, or be another tailnet's now.
            !observed.absence().is_missing(id)
                && node.is_some_and(|node| {
                    let blocked = node.blocked(list_trusted, now.monotonic);
                    !node.is_contradicted()
                        && is_planned(call, &in_flight.differences, id, node, &blocked)
                })
        })
}

/// Whether the plan of a device still has the changes of a request, and none of them waits now.
fn is_planned(
    call: &Call,
    differences: &[Difference],
    id: &NodeId,
    node: &DeviceState,
    blocked: &BTreeSet<Field>,
) -> bool {
    let own: Vec<&Difference> = differences
        .iter()
        .filter(|difference| difference.node == *id)
        .collect();
    let mut fields = own.iter().map(|difference| difference.change.field());
    !fields.any(|field| blocked.contains(&field)) && still_planned(call, &own, node.plan())
}

/// Forgets the parts of refused batches: their devices are decided again.
pub(super) fn drop_halves(devices: &mut Devices, dirty: &mut Dirty, outbox: &mut Outbox) {
    let halves = outbox.take_halves();
    for id in halves.iter().flat_map(Half::devices) {
        if let Some(node) = devices.get_mut(id) {
            node.part_dropped();
        }
        dirty.step(id);
    }
}

/// When the next lookup is due, if one can be sent.
pub(super) fn next_lookup(gate: &Gate, observed: &Observed, outbox: &Outbox) -> Option<Duration> {
    // While something waits for a turn, the turn is the next occasion.
    if !gate.may_send(observed) || outbox.waits_for_turn() || outbox.is_crowded() {
        return None;
    }
    let next = observed.absence().next(observed.lists());
    next.map(|(from, _)| from)
}
