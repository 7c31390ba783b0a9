//! Sends requests, and tells whether the reasons of a write still hold.
//!
//! A request that still waits for a connection after it was sent is revoked as soon as the plan no longer has
//! its changes ([`Engine::still_wants`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Engine;
use crate::{
    model::{AttributeKey, NodeId},
    plan::{AttributeWrites, Call, Difference, still_planned},
    tailnet::{
        Now, Request, Ticket, device_state::Step, halves::Half, mutants::mutant,
        outbox::InFlightRequest,
    },
};

impl Engine {
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
                basis.until(self.fresh_for())
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

    /// Whether the reasons for a write that waits to be sent still hold: this process leads, the connection
    /// is the one that the write was decided for, and the plan still has exactly these changes.
    #[must_use]
    pub fn still_wants(&self, ticket: Ticket, now: Now) -> bool {
        // An unknown ticket belongs to a request that was answered or revoked.
        let Some(in_flight) = self.outbox.in_flight(ticket) else {
            return false;
        };
        // A read changes nothing, so it may go out whatever has happened meanwhile.
        let Request::Write(call) = &in_flight.request else {
            return true;
        };
        if mutant!(ReasonsAreNotCheckedAgain) {
            return true;
        }
        let list_trusted = self.observed.polling().is_trusted(now.monotonic);
        let is_planned = |id: &&NodeId| {
            let own: Vec<&Difference> = in_flight
                .differences
                .iter()
                .filter(|difference| difference.node == **id)
                .collect();
            self.devices.get(id).is_some_and(|node| {
                let blocked = node.blocked(list_trusted, now.monotonic);
                let mut fields = own.iter().map(|difference| difference.change.field());
                !self.observed.absence().is_missing(id)
                    && !fields.any(|field| blocked.contains(&field))
                    && still_planned(call, &own, node.plan())
            })
        };
        // A new connection or term reads everything again before it writes.
        in_flight.epoch == self.observed.epoch()
            && self.gate.may_write(&self.observed)
            && call.nodes().iter().all(is_planned)
    }

    /// Whether anything may be written to the tailnet at all.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.gate.leads() && self.gate.is_connected() && !self.policies.guardrails().suspended()
    }

    pub(super) fn poll(&mut self, now: Now) {
        let due = self.observed.polling().is_due(now.monotonic);
        if self.gate.may_read() && due && self.outbox.take_turn() {
            let ticket = self.send(Request::Devices, Vec::new(), now);
            self.observed.poll_sent(ticket);
        }
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
                node.part_ended();
                // The plan has changed since the batch was refused: nothing of this device is left to send.
                if own.is_empty() {
                    self.dirty.step(id);
                } else {
                    node.request_sent();
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

    /// Forgets the parts of refused batches: their devices are decided again.
    pub(super) fn drop_halves(&mut self) {
        let halves = self.outbox.take_halves();
        for id in halves.iter().flat_map(Half::devices) {
            if let Some(node) = self.devices.get_mut(id) {
                node.part_ended();
            }
            self.dirty.step(id);
        }
    }

    /// Looks up the devices that two lists lack.
    pub(super) fn send_lookups(&mut self, now: Now) {
        while self.next_lookup().is_some_and(|from| from <= now.monotonic)
            && self.outbox.take_turn()
            && let Some((_, id)) = self.observed.absence().next(self.observed.lists())
        {
            let id = id.clone();
            let ticket = self.send(Request::Device(id.clone()), Vec::new(), now);
            self.observed.absence_mut().ask(id, ticket);
        }
    }

    /// When the next lookup is due, if one can be sent.
    pub(super) fn next_lookup(&self) -> Option<Duration> {
        // While something waits for a turn, the turn is the next occasion.
        if !self.gate.may_send(&self.observed)
            || self.outbox.waits_for_turn()
            || self.outbox.is_crowded()
        {
            return None;
        }
        let next = self.observed.absence().next(self.observed.lists());
        next.map(|(from, _)| from)
    }
}
