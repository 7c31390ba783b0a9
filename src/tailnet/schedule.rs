//! From what is known to what is done next.

use std::{collections::BTreeMap, time::Duration};

use super::{Engine, Now, Request, node::Step};
use crate::{
    model::NodeId,
    plan::{
        AttributeWrites, Binding, Call, Difference, Field, Memory, Policy, PolicyKey, bind,
        next_call, plan_device, remembered,
    },
};

/// Requests under way at once. The budget sits in the client; this bounds what waits for it, so
/// that urgent work does not queue behind routine work.
const MAX_IN_FLIGHT: usize = 8;
/// Devices in one batch of attribute writes (the contract's number; the API documents none).
const BATCH_SIZE: usize = 50;
/// How long a batch waits for another device to join. A device that hangs holds it up no longer.
pub(super) const BATCH_PATIENCE: Duration = Duration::from_secs(2);
/// More devices than this are confirmed by one list instead of a look at each.
const CONFIRM_BY_LIST: usize = 20;

impl Engine {
    /// Brings everything up to date with what is known now, and begins what can be begun.
    pub(super) fn settle(&mut self, now: Now) {
        self.poll(now);
        if self.polling.seen > 0 && self.policies_listed {
            for key in std::mem::take(&mut self.unbound) {
                self.rebind(&key);
            }
            while self
                .timers
                .first()
                .is_some_and(|(at, _)| *at <= now.monotonic)
            {
                if let Some((_, id)) = self.timers.pop_first() {
                    self.stale.insert(id);
                }
            }
            for id in std::mem::take(&mut self.stale) {
                self.replan(&id, now);
            }
            self.schedule(now);
        }
        self.publish(now);
    }

    fn poll(&mut self, now: Now) {
        if !self.stopping && self.connection.is_ok() && self.polling.is_due(now.monotonic) {
            self.polling.in_flight = Some(self.writes);
            self.send(Request::Devices, Vec::new());
        }
    }

    fn rebind(&mut self, key: &PolicyKey) {
        let just_missing = self.just_missing(key);
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        let Ok(policy) = &held.policy else {
            held.binding = None;
            let before = held.node.take();
            if let Some(id) = before {
                self.let_go(id, key);
            }
            return;
        };
        let binding = if just_missing {
            Binding::NotFound
        } else {
            bind(&policy.target, &held.memory, &self.fleet)
        };
        let device = binding.node().and_then(|id| self.fleet.get(id));
        if let Some(device) = device {
            let bound = remembered(&policy.target, device);
            if held
                .memory
                .bound
                .as_ref()
                .is_some_and(|before| before.node != bound.node)
            {
                // What was named on another device was never set on this one.
                held.memory.owned_keys.clear();
            }
            held.memory.bound = Some(bound);
        }
        let before = held.node.take();
        held.node = binding.node().cloned();
        let after = held.node.clone();
        held.binding = Some(binding);
        self.tell.insert(key.clone());
        if let Some(id) = before.filter(|before| after.as_ref() != Some(before)) {
            self.let_go(id, key);
        }
        if let Some(id) = after {
            if self
                .nodes
                .entry(id.clone())
                .or_default()
                .policies
                .insert(key.clone())
            {
                self.stale.insert(id.clone());
            }
            if self.policies.get(key).is_some_and(|held| held.urgent) {
                self.stale.insert(id);
            }
        }
    }

    fn replan(&mut self, id: &NodeId, now: Now) {
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if node.policies.is_empty() && node.busy == 0 {
            self.nodes.remove(id);
            self.active.remove(id);
            return;
        }
        self.tell.extend(node.policies.iter().cloned());
        let Some(device) = self.fleet.get(id) else {
            return;
        };
        let attributes = node.attributes.as_ref().map(|reading| &reading.values);
        let policies: Vec<(&Policy, &Memory)> = node
            .policies
            .iter()
            .filter_map(|key| self.policies.get(key))
            .filter_map(|held| Some((held.policy.as_ref().ok()?, &held.memory)))
            .collect();
        let plan = plan_device(device, attributes, &policies, &self.fleet, now.wall);
        let owned: Vec<_> = policies
            .iter()
            .map(|(policy, memory)| (policy.key.clone(), memory.still_owned(policy, attributes)))
            .collect();
        for (key, keys) in owned {
            if let Some(held) = self.policies.get_mut(&key) {
                held.memory.owned_keys = keys;
            }
        }
        if let Some(expiry) = plan.claims.next_expiry()
            && let Ok(left) = Duration::try_from(expiry.duration_since(now.wall))
        {
            self.timers.insert((now.monotonic + left, id.clone()));
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.plan = plan;
        }
        self.check_effect(id, now);
        self.active.insert(id.clone());
    }

    /// Begins what can be begun: urgent devices first.
    fn schedule(&mut self, now: Now) {
        if !self.may_act() {
            return;
        }
        let refresh = self.refresh();
        let (urgent, routine): (Vec<_>, Vec<_>) = self
            .active
            .iter()
            .cloned()
            .partition(|id| self.is_urgent(id));
        let (mut batch, mut unconfirmed, mut on_the_way) = (Vec::new(), Vec::new(), 0);
        for id in urgent.into_iter().chain(routine) {
            let Some(node) = self.nodes.get(&id) else {
                self.active.remove(&id);
                continue;
            };
            match node.next_step(&id, self.all_remembered(node), refresh, now.monotonic) {
                Step::Rest(until) => self.rest(&id, until),
                Step::Wait => on_the_way += 1,
                Step::Look(request) => {
                    on_the_way += 1;
                    self.begin(&id, request, now);
                }
                Step::Call(call) => {
                    on_the_way += 1;
                    self.begin(&id, Request::Write(call), now);
                }
                Step::WriteAttributes => batch.push(id),
                Step::Confirm => unconfirmed.push(id),
            }
        }
        self.write_attributes(&batch, on_the_way, now);
        self.confirm_writes(&unconfirmed, on_the_way + batch.len(), now);
    }

    /// While the list fails, or has not been seen since the lead was taken, nothing is sent but
    /// the list itself.
    fn may_act(&self) -> bool {
        self.leading && !self.stopping && self.connection.is_ok() && self.polling.is_closed()
    }

    fn is_urgent(&self, id: &NodeId) -> bool {
        let policies = self
            .nodes
            .get(id)
            .into_iter()
            .flat_map(|node| &node.policies);
        policies
            .filter_map(|key| self.policies.get(key))
            .any(|held| held.urgent)
    }

    fn rest(&mut self, id: &NodeId, until: Option<Duration>) {
        self.active.remove(id);
        if let Some(until) = until {
            self.timers.insert((until, id.clone()));
        }
        let policies = self
            .nodes
            .get(id)
            .map(|node| node.policies.clone())
            .unwrap_or_default();
        for key in &policies {
            if let Some(held) = self.policies.get_mut(key) {
                held.urgent = false;
            }
        }
        self.tell.extend(policies);
    }

    fn begin(&mut self, id: &NodeId, request: Request, now: Now) {
        if self.flights.len() >= MAX_IN_FLIGHT {
            return;
        }
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.busy += 1;
        let differences = match &request {
            Request::Write(_) => next_call(&node.plan, &node.blocked(now.monotonic))
                .map(|(_, differences)| differences.into_iter().cloned().collect())
                .unwrap_or_default(),
            _ => Vec::new(),
        };
        self.send(request, differences);
    }

    /// Sends attribute writes together: as soon as a batch is full, nobody else is on the way, or
    /// none has joined for a while.
    fn write_attributes(&mut self, ready: &[NodeId], on_the_way: usize, now: Now) {
        if ready.is_empty() {
            self.batch = None;
            return;
        }
        let (since, size) = self.batch.unwrap_or((now.monotonic, 0));
        let since = if ready.len() > size {
            now.monotonic
        } else {
            since
        };
        self.batch = Some((since, ready.len()));
        let patient = on_the_way > 0 && now.monotonic < since + BATCH_PATIENCE;
        for chunk in ready.chunks(BATCH_SIZE) {
            if (chunk.len() < BATCH_SIZE && patient) || self.flights.len() >= MAX_IN_FLIGHT {
                return;
            }
            self.send_batch(chunk, now);
        }
        self.batch = None;
    }

    fn send_batch(&mut self, chunk: &[NodeId], now: Now) {
        let mut writes: BTreeMap<NodeId, AttributeWrites> = BTreeMap::new();
        let mut differences: Vec<Difference> = Vec::new();
        for id in chunk {
            let Some(node) = self.nodes.get_mut(id) else {
                continue;
            };
            let blocked = node.blocked(now.monotonic);
            if let Some((Call::WriteAttributes(own), removed)) = next_call(&node.plan, &blocked) {
                writes.extend(own);
                differences.extend(removed.into_iter().cloned());
                node.busy += 1;
            }
        }
        self.send(Request::Write(Call::WriteAttributes(writes)), differences);
    }

    /// Looks at what was written: at each device, or at all by one list.
    fn confirm_writes(&mut self, written: &[NodeId], on_the_way: usize, now: Now) {
        let settings = written
            .iter()
            .filter(|id| {
                self.nodes
                    .get(*id)
                    .is_some_and(super::node::Node::unconfirmed_settings)
            })
            .count();
        let by_list = settings + on_the_way > CONFIRM_BY_LIST;
        if by_list && on_the_way == 0 {
            self.polling.hasten(now.monotonic);
            self.poll(now);
        }
        for id in written {
            let Some(node) = self.nodes.get_mut(id) else {
                continue;
            };
            if node.unconfirmed_settings() {
                if !by_list {
                    self.begin(id, Request::Device(id.clone()), now);
                }
            } else if written.len() + on_the_way <= CONFIRM_BY_LIST {
                self.begin(id, Request::Attributes(id.clone()), now);
            } else if on_the_way == 0 {
                // So many reads would cost more than they tell: the next regular read confirms.
                node.unconfirmed
                    .retain(|field| !matches!(field, Field::Attribute(_)));
                self.active.insert(id.clone());
                self.stale.insert(id.clone());
            }
        }
    }
}
