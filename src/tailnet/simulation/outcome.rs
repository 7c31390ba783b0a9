//! What the world should be like in the end, and whether it is.

use std::collections::BTreeMap;

use super::World;
use crate::{
    model::NodeId,
    plan::{Binding, Change, Fleet, Memory, Policy, PolicyKey, bind, plan_device},
    tailnet::State,
};

impl World {
    /// Every wish that won and is not held is true, and the last report of each policy says so.
    pub fn assert_converged(&self) {
        let fleet = Fleet::new(self.model.devices.values().cloned());
        let mut held_by: BTreeMap<NodeId, Vec<(&Policy, &Memory)>> = BTreeMap::new();
        let mut unbound: Vec<(&PolicyKey, Binding)> = Vec::new();
        for (key, kept) in &self.policies {
            match bind(&kept.policy.target, &kept.memory, &fleet) {
                Binding::Device(id) => {
                    let policies = held_by.entry(id).or_default();
                    policies.push((&kept.policy, &kept.memory));
                }
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
        for (id, policies) in held_by {
            self.assert_reached(&id, &policies, &fleet);
        }
    }

    fn assert_reached(&self, id: &NodeId, policies: &[(&Policy, &Memory)], fleet: &Fleet) {
        let device = &self.model.devices[id];
        let plan = plan_device(
            device,
            self.model.attributes.get(id),
            policies,
            fleet,
            self.wall(),
        );
        let held = plan
            .differences
            .iter()
            .any(|difference| difference.hold.is_some());
        for difference in &plan.differences {
            let waits = held && matches!(difference.change, Change::Authorized { after: true, .. });
            assert!(
                difference.hold.is_some() || waits,
                "not reached: {difference:#?}"
            );
        }
        for (policy, memory) in policies {
            let key = &policy.key;
            let report = &self.last_reports[key];
            assert_eq!(report.generation, policy.generation, "{key}");
            assert_eq!(
                report.memory, **memory,
                "{key}: what was told is not what is kept"
            );
            let State::Bound(told) = &report.state else {
                panic!("{key} holds {id}, but is told to be {report:?}");
            };
            let own = plan
                .differences
                .iter()
                .filter(|difference| difference.owner == *key);
            assert_eq!(told.node, *id, "{key}");
            assert!(
                told.differences.iter().eq(own),
                "{key} is told to differ in {told:?}"
            );
            assert!(
                !told.working && !told.unread && told.failures.is_empty(),
                "{key}: {told:#?}"
            );
            let owned = policy.wishes.attributes.iter().flat_map(BTreeMap::keys);
            assert!(memory.owned_keys.iter().eq(owned), "{key} owns {memory:?}");
        }
    }
}
