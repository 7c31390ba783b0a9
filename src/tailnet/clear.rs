//! `deletionPolicy: Clear`: what is kept of the devices that a policy holds, those that it lets go,
//! and the end of a policy that is being deleted.
//!
//! A policy under `Clear` is *held up* (by whoever keeps the reports) as long as its memory has
//! holdings. When it is being deleted, all its devices are let go; each is forgotten once it is
//! cleared or is in the list no more. What can be cleared by nobody is given up, at once where that is
//! sure and else after a bounded time, and said.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Engine, Now, held::Held, node::Node};
use crate::{
    api::Reason,
    model::NodeId,
    plan::{
        Belongings, Binding, Deletion, Difference, Field, Hold, Holdings, LetGo, MOST_HELD, Mode,
        Policy, PolicyKey, Refusal, Suspender, Why,
    },
    tailnet::DETAILS,
};

/// Devices that are named where something was given up.
const NAMED: usize = 3;

/// How far a policy is with the devices that it has let go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClearReport {
    /// The devices that are not cleared yet.
    pub left: usize,
    /// What is still to be taken away, of some of them.
    pub differences: Vec<Difference>,
    /// How many such differences are known.
    pub different: usize,
    /// Why it does not go on, if it does not.
    pub trouble: Option<String>,
}

/// What a policy that is being deleted leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    /// Some of the devices.
    pub devices: Vec<String>,
    /// How many there are.
    pub total: usize,
    /// What stays on one or more of them.
    pub belongings: Belongings,
    /// Why.
    pub why: String,
}

impl Held {
    fn holdings(&mut self) -> &mut Holdings {
        Arc::make_mut(&mut self.memory.holdings)
    }

    /// Whether something may be sent for the devices that it has let go.
    fn clears(&self) -> bool {
        self.policy.as_ref().is_ok_and(Policy::clears)
    }

    fn retains(&self) -> bool {
        let policy = self.policy.as_ref();
        policy.is_ok_and(|policy| policy.deletion == Deletion::Retain) && !self.is_invalid()
    }

    /// Lets the devices go that the policy means no more, with what it put there until now. A single
    /// one is let go only for another one: a name that nobody bears is more likely a mistake. One of
    /// many of which the selector's expression cannot tell is kept too.
    pub fn part(&mut self, binding: Option<&Binding>) {
        let leaving = self.leaving.is_some();
        if self.is_invalid() && !leaving {
            return;
        }
        let parted = |id: &NodeId| match binding {
            _ if leaving => true,
            Some(Binding::Device(now)) => id != now,
            Some(Binding::Fleet(nodes)) => !nodes.contains(id) && !self.unjudged.contains(id),
            _ => false,
        };
        let nodes = self.memory.holdings.nodes.iter();
        let parted: BTreeSet<NodeId> = nodes.filter(|id| parted(id)).cloned().collect();
        if !parted.is_empty() {
            let keys = self.memory.owned_keys.clone();
            self.holdings().let_go(parted, &keys);
        }
    }

    /// Keeps the devices that the policy holds now, so that they can be cleared one day. Says whether
    /// they are too many.
    pub fn hold(&mut self, binding: Option<&Binding>) -> bool {
        let (Ok(policy), Some(binding)) = (&self.policy, binding) else {
            return false;
        };
        if !policy.clears() || self.is_invalid() {
            return false;
        }
        let (routes, puts) = (policy.named_routes(), policy.has_belongings(&self.memory));
        let new = |id: &&NodeId| !self.memory.holdings.nodes.contains(*id);
        let new: Vec<NodeId> = binding.nodes().filter(new).cloned().collect();
        if puts && self.memory.holdings.count() + new.len() > MOST_HELD {
            return true;
        }
        let holdings = &self.memory.holdings;
        if puts && (!new.is_empty() || holdings.routes != routes) {
            let holdings = self.holdings();
            holdings.nodes.extend(new);
            holdings.routes = routes;
        } else if !puts && !holdings.nodes.is_empty() {
            let holdings = self.holdings();
            holdings.nodes.clear();
            holdings.routes.clear();
        }
        false
    }
}

impl Engine {
    /// Under `Retain` nothing is kept for clearing.
    pub(super) fn retain(&mut self, key: &PolicyKey) {
        let held = self.policies.get_mut(key).filter(|held| held.retains());
        let holdings = held.map(|held| std::mem::take(&mut held.memory.holdings));
        if let Some(holdings) = holdings.filter(|holdings| !holdings.is_empty()) {
            self.forget_parted(key, &holdings);
            self.tell.insert(key.clone());
        }
    }

    /// Takes a device that joins a fleet into its holdings.
    pub(super) fn hold_one(&mut self, id: &NodeId, key: &PolicyKey) {
        let Some(held) = self.policies.get_mut(key).filter(|held| !held.too_many) else {
            return;
        };
        let too_many = held.hold(Some(&Binding::Device(id.clone())));
        self.refuse_many(key, too_many);
    }

    /// Lets a device go that has left a fleet.
    pub(super) fn part_with_one(&mut self, id: &NodeId, key: &PolicyKey) {
        let held = self.policies.get_mut(key);
        if let Some(held) = held.filter(|held| !held.is_invalid()) {
            let keys = held.memory.owned_keys.clone();
            held.holdings().let_go([id.clone()].into(), &keys);
            self.watch_one(id, key);
            self.tell.insert(key.clone());
        }
    }

    /// Nothing is sent for a policy under `Clear` that is about more devices than can be kept.
    pub(super) fn refuse_many(&mut self, key: &PolicyKey, too_many: bool) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        if held.too_many == too_many {
            return;
        }
        held.too_many = too_many;
        self.stale.extend(held.nodes().cloned());
        self.tell.insert(key.clone());
    }

    /// One device less: maybe there are not too many any more.
    pub(super) fn count_anew(&mut self, key: &PolicyKey) {
        if self.policies.get(key).is_some_and(|held| held.too_many) {
            self.unbound.insert(key.clone());
        }
    }

    /// Looks after the devices that a policy has let go.
    pub(super) fn watch_parted(&mut self, key: &PolicyKey) {
        let Some(held) = self.policies.get(key) else {
            return;
        };
        let holdings = Arc::clone(&held.memory.holdings);
        for id in holdings.parted() {
            self.watch_one(id, key);
        }
    }

    fn watch_one(&mut self, id: &NodeId, key: &PolicyKey) {
        let node = self.nodes.entry(id.clone()).or_default();
        if node.clearing.insert(key.clone()) {
            self.stale.insert(id.clone());
        }
    }

    /// Nobody clears these any more for a policy.
    pub(super) fn forget_parted(&mut self, key: &PolicyKey, holdings: &Holdings) {
        for id in holdings.parted() {
            if let Some(node) = self.nodes.get_mut(id) {
                node.clearing.remove(key);
                self.stale.insert(id.clone());
            }
        }
    }

    /// What is to be taken from a device by policies that have let it go.
    pub(super) fn due(&self, node: &Node, id: &NodeId) -> Vec<LetGo> {
        let due = node.clearing.iter().filter_map(|key| {
            let held = self.policies.get(key).filter(|held| held.clears())?;
            Some(LetGo {
                policy: key.clone(),
                belongings: held.memory.holdings.due(id),
                allowance: held.policy.as_ref().ok()?.allowance.clone(),
            })
        });
        due.collect()
    }

    /// Devices that were let go and that the list does not have need a look: they may be gone.
    pub(super) fn look_for_parted(&mut self) {
        let holdings = self.policies.values().map(|held| &held.memory.holdings);
        let parted = holdings.flat_map(|holdings| holdings.parted());
        let missing = parted.filter(|id| self.fleet.get(id).is_none());
        self.stale.extend(missing.cloned());
    }

    /// Forgets what is cleared of a device: none of it is there any more, or somebody else wishes it;
    /// or the device is gone. Says whether that changes what is to be done.
    pub(super) fn see_cleared(&mut self, id: &NodeId, now: Now) -> bool {
        if self
            .nodes
            .get(id)
            .is_none_or(|node| node.clearing.is_empty())
        {
            return false;
        }
        let unknown = self.fleet.get(id).is_none_or(|device| device.external);
        let gone = unknown && self.is_gone(id, now);
        let Some(node) = self.nodes.get(id) else {
            return false;
        };
        let cleared = |key: &&PolicyKey| {
            let Some(held) = self.policies.get(*key) else {
                return true;
            };
            let due = held.memory.holdings.due(id);
            due.is_empty() || gone || (held.clears() && !unknown && is_cleared(node, key, &due))
        };
        let cleared: Vec<PolicyKey> = node.clearing.iter().filter(cleared).cloned().collect();
        for key in &cleared {
            if let Some(node) = self.nodes.get_mut(id) {
                node.clearing.remove(key);
            }
            if let Some(held) = self.policies.get_mut(key) {
                held.holdings().cleared(id);
            }
            self.tell.insert(key.clone());
            self.count_anew(key);
        }
        !cleared.is_empty()
    }

    /// One short list is no proof that a device is gone; the next one is asked for at once.
    fn is_gone(&mut self, id: &NodeId, now: Now) -> bool {
        let seen = self.polling.seen;
        let first_missed = *self.missing.entry(id.clone()).or_insert(seen);
        if seen <= first_missed {
            self.polling.hasten(now.monotonic);
        }
        seen > first_missed
    }

    /// Takes a policy that is being deleted, to be given up at a time.
    pub(super) fn take_leave(&mut self, key: &PolicyKey, at: Option<jiff::Timestamp>, now: Now) {
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        // What cannot be read is left as it is: its deletion waits for a version that can.
        let at = at.filter(|_| !held.standing.left_alone);
        held.leaving = at.map(|at| {
            let left = Duration::try_from(at.duration_since(now.wall));
            now.monotonic + left.unwrap_or_default()
        });
        if at.is_some() {
            self.leaving.insert(key.clone());
            self.unbound.insert(key.clone());
            self.tell.insert(key.clone());
        }
    }

    /// Begins anew with the policies that are being deleted.
    pub(super) fn leave_anew(&mut self) {
        for (key, held) in &mut self.policies {
            held.abandoned = None;
            if held.leaving.is_some() {
                self.leaving.insert(key.clone());
            }
        }
    }

    /// When a policy is given up next.
    pub(super) fn next_leave(&self) -> Option<Duration> {
        if !self.leading || !self.policies_listed {
            return None;
        }
        let leaving = self.leaving.iter();
        leaving
            .filter_map(|key| self.policies.get(key)?.leaving)
            .min()
    }

    /// Sees policies off that are being deleted: those of which nothing is left to clear, and those
    /// that are given up.
    pub(super) fn see_off(&mut self, now: Now) {
        if !self.leading || !self.policies_listed {
            return;
        }
        for key in self.leaving.clone() {
            let Some(held) = self.policies.get(&key) else {
                continue;
            };
            if held.memory.holdings.is_empty() || held.retains() {
                self.end(&key, None);
            } else if let Some(why) = self.hopeless(held, &key, now) {
                self.end(&key, Some(why));
            }
        }
    }

    fn end(&mut self, key: &PolicyKey, why: Option<String>) {
        self.leaving.remove(key);
        self.tell.insert(key.clone());
        let abandoned = why.map(|why| self.abandon(key, why));
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        held.abandoned = abandoned;
        let holdings = std::mem::take(&mut held.memory.holdings);
        self.forget_parted(key, &holdings);
    }

    /// Why what is left will not be cleared.
    fn hopeless(&self, held: &Held, key: &PolicyKey, now: Now) -> Option<String> {
        let given_up = |held: &Held| held.leaving.is_some_and(|at| now.monotonic >= at);
        let policy = match &held.policy {
            Ok(policy) => policy,
            Err(refusal @ Refusal::Invalid(_)) => {
                return Some(format!("the policy is invalid: {refusal}"));
            }
            Err(refusal) if self.may_be_allowed_yet(refusal) && !given_up(held) => return None,
            Err(refusal) => return Some(format!("the policy is not allowed: {refusal}")),
        };
        match policy.mode {
            Mode::Suspended(Suspender::Invalid) => {
                let errors = held.declared.as_ref().err();
                let errors = errors.map(|errors| errors.join("; "));
                return Some(format!(
                    "the policy is invalid: {}",
                    errors.unwrap_or_default()
                ));
            }
            Mode::Suspended(Suspender::Policy) => {
                return Some("the policy is suspended".to_owned());
            }
            Mode::Suspended(Suspender::Tailnet) => {
                return Some("the TailscaleTailnet is suspended".to_owned());
            }
            Mode::Observe => return Some("the policy only observes".to_owned()),
            Mode::Approve => {
                return Some("nothing is done for the policy without an approval".to_owned());
            }
            Mode::Enforce => {}
        }
        let connection = self.connection.as_ref().err();
        if let Some(failure) = connection.filter(|it| it.reason == Reason::TailnetNotFound) {
            return Some(failure.message.clone());
        }
        if let Some(forbidden) = self.forbidden(held, key) {
            return Some(forbidden);
        }
        if !given_up(held) {
            return None;
        }
        let trouble = self.clear_report(key).and_then(|report| report.trouble);
        Some(trouble.unwrap_or_else(|| "it took too long".to_owned()))
    }

    /// What is left is all held by the guards of the tailnet, of which time mends nothing.
    fn forbidden(&self, held: &Held, key: &PolicyKey) -> Option<String> {
        let is_forbidden = |difference: &Difference| {
            matches!(
                difference.hold,
                Some(Hold::Protected(_) | Hold::NotAllowed(_))
            )
        };
        let mut first = None;
        for id in held.memory.holdings.parted() {
            let node = self.nodes.get(id)?;
            let own = || node.plan.of(key).filter(|d| d.why == Why::LetGo);
            if !node.plan.complete() || node.busy > 0 || !own().all(is_forbidden) {
                return None;
            }
            first = first.or(trouble(node, key, own().next()?));
        }
        first
    }

    fn abandon(&self, key: &PolicyKey, why: String) -> Abandoned {
        let mut belongings = Belongings::default();
        let mut devices: BTreeSet<&NodeId> = BTreeSet::new();
        if let Some(held) = self.policies.get(key) {
            let holdings = &held.memory.holdings;
            if !holdings.nodes.is_empty() {
                belongings.keys.clone_from(&held.memory.owned_keys);
                belongings.routes.clone_from(&holdings.routes);
            }
            let due = holdings.let_go.keys();
            due.for_each(|due| belongings.merge(due));
            devices = holdings.nodes.iter().collect();
            devices.extend(holdings.parted());
        }
        let called = |id: &&NodeId| match self.fleet.get(id) {
            Some(device) => format!("{} ({id})", device.label()),
            None => id.to_string(),
        };
        Abandoned {
            total: devices.len(),
            devices: devices.iter().take(NAMED).map(called).collect(),
            belongings,
            why,
        }
    }

    /// How far a policy is with what it has let go; `None` where there is nothing.
    pub(super) fn clear_report(&self, key: &PolicyKey) -> Option<ClearReport> {
        let held = self.policies.get(key)?;
        let mut nodes = held.memory.holdings.parted();
        if held.leaving.is_some() {
            nodes.extend(&held.memory.holdings.nodes);
        }
        if nodes.is_empty() {
            return None;
        }
        let mut report = ClearReport {
            left: nodes.len(),
            trouble: self.outage().map(|failure| failure.message.clone()),
            ..ClearReport::default()
        };
        for node in nodes.into_iter().filter_map(|id| self.nodes.get(id)) {
            let own = || node.plan.of(key).filter(|d| d.why == Why::LetGo);
            let room = DETAILS - report.differences.len();
            report.differences.extend(own().take(room).cloned());
            report.different += own().count();
            if report.trouble.is_none() {
                report.trouble = own().next().and_then(|first| trouble(node, key, first));
            }
        }
        Some(report)
    }

    /// Whether the report of a policy need not be made yet, as it is clearing devices and nothing
    /// would be lost. As for fleets: once for each list, and when they rest.
    pub(super) fn clearing_can_wait(&self, key: &PolicyKey) -> bool {
        let Some(held) = self.policies.get(key) else {
            return false;
        };
        let holdings = &held.memory.holdings;
        if holdings.let_go.is_empty() || !held.clears() {
            return false;
        }
        let mut at_work = self.queues.at_work().chain(&self.unplaced);
        self.told_at == self.polling.seen
            && !self.stopping
            && self.outage().is_none()
            && self.is_remembered(key)
            && at_work.any(|id| {
                let node = self.nodes.get(id);
                node.is_some_and(|node| node.clearing.contains(key))
            })
    }
}

/// Whether nothing is left of what a policy put on a device, as far as it was asked for and seen.
fn is_cleared(node: &Node, key: &PolicyKey, due: &Belongings) -> bool {
    let (mut exit, mut subnets) = (false, false);
    for route in &due.routes {
        *(if route.is_exit_node() {
            &mut exit
        } else {
            &mut subnets
        }) = true;
    }
    let concerned = |field: &Field| match field {
        Field::Attribute(attribute) => due.keys.contains(attribute),
        Field::EnabledRoutes => subnets,
        Field::ExitNode => exit,
        _ => false,
    };
    let mut open = node
        .plan
        .of(key)
        .map(|difference| difference.change.field());
    node.plan.complete()
        && node.busy == 0
        && !node.look
        && !node.look_attributes
        && !open.any(|field| concerned(&field))
        && !node.unconfirmed.keys().any(concerned)
        && !node.looked_at.keys().any(concerned)
}

fn trouble(node: &Node, key: &PolicyKey, difference: &Difference) -> Option<String> {
    let called = format!("{} ({})", difference.device, difference.node);
    if let Some((field, failure)) = node.failures(key).next() {
        let field = field.map_or(String::new(), |field| format!(" {field}:"));
        return Some(format!("{called}:{field} {}", failure.message));
    }
    let hold = difference.hold.as_ref()?;
    Some(format!("{called}: {} is held: {hold}", difference.change))
}
