//! What the world should be like in the end, and whether it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::World;
use crate::{
    api::PolicyField,
    model::{AttributeKey, Device, NodeId},
    plan::{
        Binding, Change, Clashes, Deletion, DevicePlan, Difference, Fleet, Hold, Memory, Mode,
        Parted, Permits, Policy, PolicyKey, Reaches, Surroundings, Target, bind_policy,
        plan_device,
    },
    tailnet::{DETAILS, State},
};

impl World {
    /// Every wish that won and is not held is true, and the last report of each policy says so.
    pub fn assert_converged(&self) {
        let fleet = Fleet::new(self.model.devices.values().cloned());
        let mut held_by: BTreeMap<NodeId, Vec<(&Policy, &Memory)>> = BTreeMap::new();
        let mut unbound: Vec<(&PolicyKey, Binding)> = Vec::new();
        let mut fleets: Vec<(&PolicyKey, BTreeSet<NodeId>)> = Vec::new();
        let guards = self.guards();
        let mut admitted: BTreeMap<&PolicyKey, (Policy, Memory)> = BTreeMap::new();
        for (key, kept) in &self.policies {
            match guards.admit(kept.policy.clone()) {
                Ok(policy) => {
                    admitted.insert(key, (policy, kept.memory.met(&fleet)));
                }
                Err(forbidden) => {
                    let told = &self.last_reports[key].state;
                    assert_eq!(*told, State::NotAllowed(Box::new(forbidden)), "{key}");
                }
            }
        }
        for (key, (policy, memory)) in &admitted {
            let kept = &self.policies[*key];
            if kept.leaving {
                // It waits for a person who is asked what to clear, and nobody answers any more.
                let report = &self.last_reports[*key];
                let asks = policy.mode == Mode::Approve && report.held.is_some();
                assert!(asks, "{key} is held up: {report:?}");
                continue;
            }
            let binding = bind_policy(policy, memory, &kept.approvals, &fleet);
            for id in binding.nodes() {
                let policies = held_by.entry(id.clone()).or_default();
                policies.push((policy, memory));
            }
            self.assert_holdings(policy, memory, &binding, &fleet);
            match binding {
                Binding::Device(_) => {}
                Binding::Fleet(nodes) => fleets.push((key, nodes)),
                binding => unbound.push((key, binding)),
            }
        }
        for (key, binding) in unbound {
            let report = &self.last_reports[key].state;
            let State::Unbound { binding: told, .. } = report else {
                panic!("{key} is {binding:?}, but is told to be {report:?}");
            };
            assert_eq!(*told, binding, "{key}");
        }
        let parted: BTreeMap<&NodeId, Parted> = held_by
            .iter()
            .filter_map(|(id, policies)| {
                let guardrails = &self.settings.guardrails;
                let reaches = Reaches::on(fleet.get(id)?, policies, &[], guardrails);
                Some((id, reaches.part(policies)))
            })
            .collect();
        let counting = held_by
            .iter()
            .filter_map(|(id, policies)| Some((id.clone(), parted.get(id)?.counting(policies))));
        let clashes = Clashes::among(&counting.collect(), &self.model.attributes, self.wall());
        let plans: BTreeMap<NodeId, DevicePlan> = held_by
            .iter()
            .map(|(id, policies)| {
                (
                    id.clone(),
                    self.assert_reached(id, policies, &fleet, &clashes),
                )
            })
            .collect();
        for (key, nodes) in fleets {
            self.assert_fleet_told(key, &nodes, &plans);
        }
    }

    /// The report of a fleet counts what is so, and has no more than a few of it in detail.
    fn assert_fleet_told(
        &self,
        key: &PolicyKey,
        nodes: &BTreeSet<NodeId>,
        plans: &BTreeMap<NodeId, DevicePlan>,
    ) {
        let report = &self.last_reports[key];
        let State::Fleet(told) = &report.state else {
            panic!("{key} is about a fleet, but is told to be {report:?}");
        };
        let different = |id: &NodeId| plans[id].of(key).count();
        let lost = |id: &NodeId| {
            plans[id]
                .claims
                .conflicts
                .iter()
                .any(|lost| lost.loser == *key)
        };
        let count = |wanted: &dyn Fn(&NodeId) -> bool| nodes.iter().filter(|id| wanted(id)).count();
        assert_eq!(told.matched, nodes.len(), "{key}: {told:#?}");
        assert_eq!(
            told.in_sync,
            count(&|id| different(id) == 0 && !lost(id)),
            "{key}: {told:#?}"
        );
        assert_eq!(told.conflicted, count(&lost), "{key}");
        assert_eq!(
            told.different,
            nodes.iter().map(different).sum::<usize>(),
            "{key}"
        );
        assert_eq!(
            [told.working, told.unread, told.failed],
            [0; 3],
            "{key}: {told:#?}"
        );
        assert_eq!(told.details.len(), nodes.len().min(DETAILS), "{key}");
        assert_eq!(told.differences.len(), told.different.min(DETAILS), "{key}");
    }

    fn assert_reached(
        &self,
        id: &NodeId,
        policies: &[(&Policy, &Memory)],
        fleet: &Fleet,
        clashes: &Clashes,
    ) -> DevicePlan {
        let device = &self.model.devices[id];
        let plan = plan_device(
            device,
            self.model.attributes.get(id),
            policies,
            &Surroundings {
                fleet,
                permits: &Permits::default(),
                clashes,
                now: self.wall(),
                let_go: &[],
                turns: &BTreeSet::new(),
                guardrails: &self.settings.guardrails,
            },
        );
        let held = plan
            .differences
            .iter()
            .any(|difference| difference.hold.is_some());
        for difference in &plan.differences {
            let waits = (held || plan.lacks_what_waits())
                && matches!(difference.change, Change::Authorized { after: true, .. });
            assert!(
                difference.hold.is_some() || waits,
                "not reached: {difference:#?}"
            );
        }
        for (policy, memory) in policies {
            let key = &policy.key;
            let report = &self.last_reports[key];
            assert_eq!(report.generation, policy.generation, "{key}");
            assert_kept(&report.memory, memory, key);
            self.assert_owned(policy, memory, device, &plan);
            if matches!(policy.target, Target::Fleet(_)) {
                continue;
            }
            let State::Bound(told) = &report.state else {
                panic!("{key} holds {id}, but is told to be {report:?}");
            };
            let own: Vec<Difference> = plan.told(key).collect();
            assert_eq!(told.node, *id, "{key}");
            assert!(
                told.differences
                    .iter()
                    .map(unnamed)
                    .eq(own.iter().map(unnamed)),
                "{key} is told to differ in {told:?}"
            );
            assert!(
                !told.working && !told.unread && told.failures.is_empty(),
                "{key}: {told:#?}"
            );
        }
        plan
    }
}

/// What is reported is what is kept.
fn assert_kept(reported: &Memory, kept: &Memory, key: &PolicyKey) {
    assert_eq!(reported.owned.groups(), kept.owned.groups(), "{key}");
    let but_keys = |memory: &Memory| Memory {
        owned: Arc::default(),
        ..memory.clone()
    };
    assert_eq!(but_keys(reported), but_keys(kept), "{key}");
}

/// A difference, without the hash by which it is approved.
fn unnamed(difference: &Difference) -> Difference {
    let mut difference = difference.clone();
    if let Some(Hold::Approval(hash) | Hold::Limit(hash)) = &mut difference.hold {
        *hash = None;
    }
    difference
}

impl World {
    /// A policy owns what it manages on a device, and nothing else but what it still declares: what it
    /// no longer declares is deleted. What is suspended, or denied by a guardrail, may be there still.
    fn assert_owned(&self, policy: &Policy, memory: &Memory, device: &Device, plan: &DevicePlan) {
        let key = &policy.key;
        let field = PolicyField::PostureAttributes;
        let is_denied = self
            .settings
            .guardrails
            .bars(policy, field, device)
            .is_some();
        if policy.mode != Mode::Enforce || is_denied {
            return;
        }
        let nothing = BTreeSet::new();
        let owned = memory.owned.known_at(&device.node_id).unwrap_or(&nothing);
        let managed = plan.managed.get(key).unwrap_or(&nothing);
        assert!(
            managed.is_subset(owned),
            "{key} manages {managed:?}, and owns {owned:?}"
        );
        let declared = policy.wishes.attributes.as_ref();
        let desires = |it: &AttributeKey| {
            let declared = declared.is_some_and(|declared| declared.contains_key(it));
            declared && !policy.has_expired(it, self.wall())
        };
        assert!(owned.iter().all(desires), "{key} owns {owned:?}");
    }

    /// A policy keeps what it would have to clear, and nothing else but devices of which its expression
    /// cannot tell; what it has let go is cleared.
    fn assert_holdings(&self, policy: &Policy, memory: &Memory, binding: &Binding, fleet: &Fleet) {
        let holdings = &memory.holdings;
        let key = &policy.key;
        if policy.deletion == Deletion::Retain {
            assert!(holdings.is_empty(), "{key} keeps {holdings:?}");
        }
        if !policy.clears() {
            return;
        }
        // What the guards hold stays as it is.
        let cleared = [
            PolicyField::PostureAttributes,
            PolicyField::EnabledRoutes,
            PolicyField::ExitNode,
        ];
        let guarded = |id: &&NodeId| {
            let bars = |device, field| self.settings.guardrails.bars(policy, field, device);
            let barred = |device| cleared.iter().any(|it| bars(device, *it).is_some());
            fleet.get(id).is_some_and(barred)
        };
        // Once all is calm nobody approves anything.
        let waits = policy.mode == Mode::Approve;
        assert!(
            waits || holdings.parted().iter().all(guarded),
            "{key} has not cleared {holdings:?}"
        );
        let puts = policy.has_belongings(memory);
        if matches!(binding, Binding::Device(_) | Binding::Fleet(_)) && puts {
            let unjudged = |id: &NodeId| match (&policy.target, fleet.get(id)) {
                (Target::Fleet(selector), Some(device)) => selector.judge(device).is_err(),
                _ => false,
            };
            let mut kept = holdings.nodes.iter();
            assert!(
                kept.all(|id| binding.holds(id) || unjudged(id)),
                "{key}: {holdings:?}"
            );
            let mut held = binding.nodes();
            assert!(
                held.all(|id| holdings.nodes.contains(id)),
                "{key}: {holdings:?}"
            );
        }
    }
}
