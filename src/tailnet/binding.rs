//! From policies and the list to the devices that policies hold, each with its plan.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Engine, Now, held::Held, node::Node};
use crate::{
    model::NodeId,
    plan::{
        Binding, Bound, DevicePlan, Fleet, Memory, Permit, Permits, Policy, PolicyKey,
        Surroundings, Target, bind_policy, may_change, plan_device, remembered,
    },
};

impl Held {
    /// What is to be remembered of the bound device: as before while none is found, and nothing of
    /// a fleet.
    fn remembered_of(&self, binding: Option<&Binding>, fleet: &Fleet) -> Option<Bound> {
        let before = self.memory.bound.clone();
        let Ok(policy) = self.policy.as_ref() else {
            return before;
        };
        if self.is_invalid() {
            return before;
        }
        match (&policy.target, binding) {
            (Target::Fleet(_), _) => None,
            (Target::Device(target), Some(Binding::Device(id))) => {
                let device = fleet.get(id);
                device.map(|device| remembered(target, device)).or(before)
            }
            _ => before,
        }
    }
}

impl Engine {
    /// Finds the devices of a policy anew.
    pub(super) fn rebind(&mut self, key: &PolicyKey, now: Timestamp) {
        self.retain(key);
        if let Some(held) = self.policies.get_mut(key) {
            held.meet_devices(&self.fleet, self.polling.seen);
            held.disown_expired(now);
        }
        let Some(held) = self.policies.get(key) else {
            return;
        };
        let evaluated = held.evaluated();
        let binding = self.find_devices(held, evaluated.as_ref().map(|(matching, _)| matching));
        if binding.is_none() && held.policy.is_ok() && held.leaving.is_none() {
            self.polling.compare_soon();
        }
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        let unjudged = evaluated.map(|(_, unknown)| unknown).unwrap_or_default();
        held.take_evaluated();
        if held.unjudged != unjudged {
            held.unjudged = unjudged;
            self.tell.insert(key.clone());
        }
        // Before anything is forgotten about the devices that are let go.
        let (fleet, absence) = (&self.fleet, &self.absence);
        let lacking = |id: &NodeId| fleet.get(id).is_none_or(|device| device.external);
        held.part(binding.as_ref(), |id| lacking(id) && !absence.is_gone(id));
        held.release_unmatched(binding.as_ref(), &self.fleet, self.polling.seen);
        let remembered = held.remembered_of(binding.as_ref(), &self.fleet);
        if held.memory.bound != remembered {
            held.memory.bound = remembered;
            self.tell.insert(key.clone());
        }
        if held.leaving.is_none() && held.selector().is_some() {
            self.fleets.insert(key.clone());
        } else {
            self.fleets.remove(key);
        }
        let too_many = held.hold(binding.as_ref());
        self.refuse_many(key, too_many);
        self.watch_parted(key);
        let Some(held) = self.policies.get_mut(key) else {
            return;
        };
        if held.binding == binding {
            return;
        }
        let before = std::mem::replace(&mut held.binding, binding.clone());
        self.tell.insert(key.clone());
        let means = |binding: &Option<Binding>, id: &NodeId| {
            binding.as_ref().is_some_and(|binding| binding.holds(id))
        };
        for id in before.iter().flat_map(Binding::nodes) {
            if !means(&binding, id) {
                self.let_go(id, key);
            }
        }
        for id in binding.iter().flat_map(Binding::nodes) {
            if !means(&before, id) {
                self.take_up(id, key);
            }
        }
    }

    /// Which devices a policy means now; `None` while that cannot be decided.
    fn find_devices(&self, held: &Held, matching: Option<&BTreeSet<NodeId>>) -> Option<Binding> {
        let policy = held.policy.as_ref().ok()?;
        if held.leaving.is_some() {
            return None;
        }
        if policy.selector().is_some() {
            return matching.cloned().map(Binding::Fleet);
        }
        // Nobody takes the place of a device before it is proven that it is gone.
        let lacking = |id: &&NodeId| self.fleet.get(id).is_none_or(|device| device.external);
        let bound = held.bound_node();
        let lost = bound.filter(lacking).filter(|id| !self.absence.is_gone(id));
        if let Some(id) = lost {
            let is_reported = self.absence.is_reported(id, self.polling.seen);
            return is_reported.then(|| Binding::Missing(id.clone()));
        }
        let binding = bind_policy(policy, &held.memory, &held.approvals, &self.fleet);
        let claimed = matches!(
            &policy.target,
            Target::Device(target) if may_change(&target.identity)
        );
        // Another one may have the name, and be lacking in the first list.
        let found = match &binding {
            Binding::Device(id) | Binding::Unmet { node: id, .. } => Some(id),
            _ => None,
        };
        let new = found.filter(|id| bound != Some(*id) && !held.approvals.nodes.contains(*id));
        (!claimed || new.is_none() || self.can_compare_lists()).then_some(binding)
    }

    /// Takes up a device that a policy means now.
    pub(super) fn take_up(&mut self, id: &NodeId, key: &PolicyKey) {
        let node = self.nodes.entry(id.clone()).or_default();
        node.policies.insert(key.clone());
        if let Some(held) = self.policies.get_mut(key) {
            held.reclaim(id);
        }
        self.stale.insert(id.clone());
    }

    /// Lets a device go that a policy means no more.
    pub(super) fn let_go(&mut self, id: &NodeId, key: &PolicyKey) {
        if let Some(held) = self.policies.get_mut(key) {
            held.drop_device(id);
            let next = held.end_turn(id);
            self.stale.extend(next);
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.policies.remove(key);
            self.stale.insert(id.clone());
        }
    }

    /// Compares all that is to be compared anew. What is found about one device may concern others.
    pub(super) fn replan_stale(&mut self, now: Now) {
        while !self.stale.is_empty() {
            for id in std::mem::take(&mut self.stale) {
                self.replan(&id, now);
            }
        }
    }

    /// Compares a device anew with all that is wished for it.
    pub(super) fn replan(&mut self, id: &NodeId, now: Now) {
        self.see_deleted(id, now);
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        if node.all_policies().next().is_none() {
            self.limiter.note(id, &BTreeSet::new());
            let busy = node.busy > 0;
            self.drop_claims(id);
            if !busy {
                self.forget(id);
            } else if let Some(node) = self.nodes.get_mut(id) {
                // Nothing is desired of it any longer: what waits to be sent is not sent.
                node.plan = DevicePlan::default();
            }
            return;
        }
        self.tell.extend(node.all_policies().cloned());
        self.unplaced.insert(id.clone());
        self.settle_ownership(id, now);
        self.settle_acts(id, now);
        self.compare(id, now);
        self.adopt_keys(id, now);
        self.replanned.insert(id.clone());
        self.begin_expiries(id);
        if self.see_cleared(id, now) {
            self.replan(id, now);
        }
    }

    fn compare(&mut self, id: &NodeId, now: Now) {
        let (Some(device), Some(node)) = (self.fleet.get(id), self.nodes.get(id)) else {
            self.limiter.note(id, &BTreeSet::new());
            // What is done once is not done to what is not there.
            if let Some(node) = self.nodes.get_mut(id) {
                node.plan
                    .differences
                    .retain(|difference| !difference.is_act());
            }
            return;
        };
        let attributes = node.attributes.as_ref().map(|reading| &reading.values);
        let policies: Vec<(&Policy, &Memory)> = node
            .policies
            .iter()
            .filter_map(|key| self.policies.get(key))
            .filter(|held| !held.too_many)
            .filter_map(|held| Some((held.policy.as_ref().ok()?, &held.memory)))
            .collect();
        let let_go = self.due(node, id);
        let turns = node.policies.iter().filter(|key| {
            let held = self.policies.get(*key);
            held.is_some_and(|held| held.work.has_turn(id))
        });
        let turns: BTreeSet<PolicyKey> = turns.cloned().collect();
        let around = Surroundings {
            fleet: &self.fleet,
            permits: &self.permits(id, node),
            clashes: &self.clashes,
            now: now.wall,
            let_go: &let_go,
            turns: &turns,
            guardrails: &self.guards.guardrails,
        };
        let plan = plan_device(device, attributes, &policies, &around);
        self.limiter.note(id, &plan.wanted_by);
        for key in node.all_policies() {
            if let Some(held) = self.policies.get_mut(key) {
                held.drop_what_changed(key, id, &plan);
            }
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.plan = plan;
            self.readers.set(id, node.reading_namespaces());
        }
        self.note_claims(id);
        self.check_effect(id, now);
    }

    /// What was approved of a device's policies, and which of them the limit holds there.
    fn permits<'a>(&'a self, id: &NodeId, node: &'a Node) -> Permits<'a> {
        let policies = node.all_policies();
        let permits = policies.filter_map(|key| {
            let held = self.policies.get(key)?;
            let permit = Permit {
                limited: match &self.agreed {
                    Some(agreed) => agreed.limited.contains(key),
                    None => self.limiter.holds(id, key),
                },
                approved: held.approved.of(id),
                passed: held.passed.of(id),
            };
            Some((key, permit))
        });
        let agreed = self.agreed.as_ref().map(|agreed| &agreed.changes);
        let permits = permits.collect::<Permits<'_>>();
        permits.only(agreed).with_clock_skew(self.clock.skew())
    }

    fn forget(&mut self, id: &NodeId) {
        self.set_alarm(id, None);
        self.nodes.remove(id);
        self.readers.set(id, BTreeSet::new());
        self.unplaced.remove(id);
        self.queues.remove(id);
    }

    /// Sets the one alarm of a device.
    pub(super) fn set_alarm(&mut self, id: &NodeId, at: Option<Duration>) {
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        if node.alarm == at {
            return;
        }
        if let Some(before) = std::mem::replace(&mut node.alarm, at) {
            self.alarms.remove(&(before, id.clone()));
        }
        if let Some(at) = at {
            self.alarms.insert((at, id.clone()));
        }
    }

    /// What waited for this time is compared anew: an expiry may have passed meanwhile.
    pub(super) fn ring(&mut self, now: Duration) {
        while let Some((at, _)) = self.alarms.first()
            && *at <= now
            && let Some((_, id)) = self.alarms.pop_first()
        {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.alarm = None;
            }
            self.stale.insert(id);
        }
    }
}
