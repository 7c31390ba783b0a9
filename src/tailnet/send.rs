//! Sends requests, and tells whether the reasons of a write still hold.
//!
//! Nothing is decided before it can be sent. The engine requests a turn; the driver waits for the budget and
//! grants one; only then does the engine pick the request, from what it knows at that moment. A request that
//! still waits for a connection afterwards is revoked as soon as the plan no longer has its changes
//! ([`Engine::still_wants`]).
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Engine, Now, Request, Ticket,
    device_state::{DeviceState, Step},
    halves::Half,
    outbox::InFlightRequest,
};
use crate::{
    model::{AttributeKey, NodeId},
    plan::{AttributeWrites, Call, Difference, still_planned},
};

/// The minimum time for which a read counts as fresh for a request that sends unmanaged values along.
const FRESH: Duration = Duration::from_secs(10);

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

    /// How old a read may be for a request that sends unmanaged values along: a few seconds, or as long as
    /// the budget needs for the request to follow the read.
    pub(super) fn fresh_for(&self) -> Duration {
        let two_requests = 2.0 / self.settings.requests_per_second;
        FRESH.max(Duration::try_from_secs_f64(two_requests).unwrap_or_default())
    }

    /// Whether the reasons for a write that waits to be sent still hold: this process leads, the connection
    /// is the one that the write was decided for, and the plan still has exactly these changes.
    #[must_use]
    pub fn still_wants(&self, ticket: Ticket, now: Now) -> bool {
        let Some(in_flight) = self.outbox.in_flight(ticket) else {
            return false;
        };
        let Request::Write(call) = &in_flight.request else {
            return true;
        };
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
                    && still_planned(call, &own, &node.plan)
            })
        };
        in_flight.epoch == self.observed.epoch()
            && self.gate.may_write(&self.observed)
            && call.nodes().iter().all(is_planned)
    }

    /// Whether anything may be written to the tailnet at all.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.gate.leads() && self.gate.is_connected() && !self.policies.guardrails().suspended()
    }

    /// A request was not sent: its device is decided again.
    pub(super) fn not_sent(&mut self, ticket: Ticket, now: Now) {
        let Some(in_flight) = self.outbox.take(ticket) else {
            return;
        };
        if self.observed.absence_mut().take_back(ticket, now.monotonic) {
            return;
        }
        match in_flight.request {
            Request::Devices => {
                if self.observed.poll_answered(ticket).is_some() {
                    self.observed.poll_now(now.monotonic);
                }
            }
            Request::Device(id) | Request::Routes(id) | Request::Attributes(id) => {
                self.decide_again(&id);
            }
            Request::Write(call) => {
                for id in call.nodes() {
                    self.change_budget.end(id, false, now);
                    self.decide_again(id);
                }
            }
        }
    }

    fn decide_again(&mut self, id: &NodeId) {
        if let Some(node) = self.devices.get_mut(id) {
            node.busy = node.busy.saturating_sub(1);
        }
        self.dirty.plan(id);
    }

    /// Splits a refused batch; `false` if it is a single entry.
    pub(super) fn split(&mut self, writes: &BTreeMap<NodeId, AttributeWrites>) -> bool {
        let Some(halves) = Half::of(writes) else {
            return false;
        };
        for id in halves.iter().flat_map(Half::devices) {
            if let Some(node) = self.devices.get_mut(id) {
                node.halves += 1;
            }
        }
        self.outbox.add_halves(halves);
        true
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
                node.halves = node.halves.saturating_sub(1);
                if own.is_empty() {
                    self.dirty.step(id);
                } else {
                    node.busy += 1;
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
                node.halves = node.halves.saturating_sub(1);
            }
            self.dirty.step(id);
        }
    }
}

impl DeviceState {
    /// The read that a request depends on: one that sends unmanaged values along, or cannot be undone.
    pub fn rests_on(&self, call: &Call) -> Basis {
        match call {
            Call::SetRoutes(..) if self.plan.owners.share_routes() => Basis::Read(self.routes_read),
            Call::SetTags(..) if self.plan.owners.share_tags() => Basis::Read(self.device_read),
            Call::ExpireKey(_) | Call::Delete(_) => Basis::Read(self.device_read),
            _ => Basis::None,
        }
    }
}

/// The read that a request depends on besides the plan.
#[derive(Debug, Clone, Copy)]
pub(super) enum Basis {
    /// Nothing.
    None,
    /// A read of the device that must be fresh; its time (monotonic), if it was made.
    Read(Option<Duration>),
}

impl Basis {
    /// Whether the request may be sent now.
    pub fn is_fresh(self, fresh_for: Duration, now: Duration) -> bool {
        self.until(fresh_for).is_none_or(|until| now < until)
    }

    /// The time from which on the request may not be sent; `None`: no limit.
    pub fn until(self, fresh_for: Duration) -> Option<Duration> {
        match self {
            Self::None => None,
            // Without a read, nothing is fresh.
            Self::Read(read) => Some(read.map_or(Duration::ZERO, |at| at + fresh_for)),
        }
    }
}
