//! The limit of changed devices: which policies are held, so that it is not exceeded.

use std::collections::{BTreeMap, BTreeSet};

use super::PolicyKey;
use crate::model::NodeId;

/// Which devices each policy wishes to change now. Kept up to date one device at a time.
///
/// Devices that were changed within the hour are no part of it, but for what was held before: another
/// change of theirs is free.
#[derive(Debug, Clone, Default)]
pub struct WantedChanges {
    by_policy: BTreeMap<PolicyKey, BTreeSet<NodeId>>,
    by_node: BTreeMap<NodeId, BTreeSet<PolicyKey>>,
}

impl WantedChanges {
    /// Takes the policies that wish to change a device now. Says whether they are others than before.
    pub fn set(&mut self, node: &NodeId, policies: BTreeSet<PolicyKey>) -> bool {
        let before = self.by_node.remove(node).unwrap_or_default();
        for key in before.difference(&policies) {
            if let Some(nodes) = self.by_policy.get_mut(key) {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.by_policy.remove(key);
                }
            }
        }
        for key in policies.difference(&before) {
            let nodes = self.by_policy.entry(key.clone()).or_default();
            nodes.insert(node.clone());
        }
        let changed = before != policies;
        if !policies.is_empty() {
            self.by_node.insert(node.clone(), policies);
        }
        changed
    }

    /// Whether nobody wanted to change anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// The policies that want to change a device.
    #[must_use]
    pub fn by(&self, node: &NodeId) -> &BTreeSet<PolicyKey> {
        static NOBODY: BTreeSet<PolicyKey> = BTreeSet::new();
        self.by_node.get(node).unwrap_or(&NOBODY)
    }

    /// The policies that want to change more devices than this.
    #[must_use]
    pub fn larger_than(&self, most: usize) -> BTreeSet<PolicyKey> {
        let policies = self.by_policy.iter();
        let large = policies.filter(|(_, nodes)| nodes.len() > most);
        large.map(|(key, _)| key.clone()).collect()
    }

    /// The devices that a policy wishes to change.
    #[must_use]
    pub fn of(&self, policy: &PolicyKey) -> impl ExactSizeIterator<Item = &NodeId> {
        static NONE: BTreeSet<NodeId> = BTreeSet::new();
        self.by_policy.get(policy).unwrap_or(&NONE).iter()
    }

    /// The policies that are held, so that no more than `room` devices are changed: those that
    /// would change the most first, and of two that would change the same number, the one that
    /// ranks later. A policy is held as a whole. Those that are held `already` are not among them.
    ///
    /// Costs next to nothing while all fits, and else no more than the room and the number of
    /// policies: a policy that is too large is not walked over.
    #[must_use]
    pub fn policies_over_limit<R: Ord>(
        &self,
        room: usize,
        already: &BTreeSet<PolicyKey>,
        rank: impl Fn(&PolicyKey) -> R,
    ) -> BTreeSet<PolicyKey> {
        if self.by_node.len() <= room {
            return BTreeSet::new();
        }
        let policies = self.by_policy.iter();
        let policies = policies.filter(|(key, _)| !already.contains(*key));
        largest_beyond(policies.collect(), room, rank)
    }

    /// As [`WantedChanges::policies_over_limit`], for each namespace by itself, with its own room.
    #[must_use]
    pub fn beyond_shares<R: Ord>(
        &self,
        room: impl Fn(&str) -> usize,
        rank: impl Fn(&PolicyKey) -> R,
    ) -> BTreeSet<PolicyKey> {
        let policies: Vec<_> = self.by_policy.iter().collect();
        // They are in the order of their namespaces.
        let namespaces = policies.chunk_by(|(a, _), (b, _)| a.namespace == b.namespace);
        let held = namespaces.flat_map(|policies| {
            let room = room(&policies[0].0.namespace);
            let most: usize = policies.iter().map(|(_, nodes)| nodes.len()).sum();
            if most <= room {
                return BTreeSet::new();
            }
            largest_beyond(policies.to_vec(), room, &rank)
        });
        held.collect()
    }
}

/// Those of the policies that are held, so that the others change no more than `room` devices.
fn largest_beyond<R: Ord>(
    mut policies: Vec<(&PolicyKey, &BTreeSet<NodeId>)>,
    room: usize,
    rank: impl Fn(&PolicyKey) -> R,
) -> BTreeSet<PolicyKey> {
    policies.sort_by_cached_key(|(key, nodes)| (nodes.len(), rank(key)));
    let mut changed: BTreeSet<&NodeId> = BTreeSet::new();
    let first_held = policies.iter().position(|(_, nodes)| {
        if nodes.len() > room {
            return true;
        }
        changed.extend(nodes.iter());
        changed.len() > room
    });
    let held = first_held.map_or(&[][..], |first| &policies[first..]);
    held.iter().map(|(key, _)| (*key).clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    fn key(number: usize) -> PolicyKey {
        PolicyKey {
            namespace: "network".to_owned(),
            name: format!("policy-{number}"),
        }
    }

    fn node(number: usize) -> NodeId {
        format!("n{number}CNTRL").parse().unwrap()
    }

    fn rank(key: &PolicyKey) -> String {
        key.name.clone()
    }

    /// The devices that each policy wishes to change.
    type Wished = Vec<BTreeSet<usize>>;

    fn wanted(desired: &Wished) -> WantedChanges {
        let mut wanted = WantedChanges::default();
        for number in 0..20 {
            let wishing = desired.iter().enumerate();
            let wishing = wishing.filter(|(_, nodes)| nodes.contains(&number));
            wanted.set(
                &node(number),
                wishing.map(|(policy, _)| key(policy)).collect(),
            );
        }
        wanted
    }

    fn changed<'a>(desired: impl IntoIterator<Item = &'a BTreeSet<usize>>) -> usize {
        let all: BTreeSet<_> = desired.into_iter().flatten().collect();
        all.len()
    }

    fn desired() -> impl Strategy<Value = Wished> {
        collection::vec(collection::btree_set(0..20_usize, 0..12), 0..8)
    }

    #[test]
    fn a_mistake_in_one_selector_is_held_and_the_small_repairs_are_made() {
        let desired = vec![(0..15).collect(), [16].into(), [17, 18].into()];
        let held = wanted(&desired).policies_over_limit(5, &BTreeSet::new(), rank);
        assert_eq!(held, [key(0)].into());
    }

    #[test]
    fn of_two_that_would_change_as_many_the_one_that_ranks_later_is_held() {
        let desired = vec![[1, 2].into(), [3, 4].into()];
        assert_eq!(
            wanted(&desired).policies_over_limit(3, &BTreeSet::new(), rank),
            [key(1)].into()
        );
        assert_eq!(
            wanted(&desired).policies_over_limit(1, &BTreeSet::new(), rank),
            [key(0), key(1)].into()
        );
    }

    #[test]
    fn each_namespace_has_its_own_room_and_holds_its_own_largest() {
        let of = |namespace: &str, name: &str| PolicyKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut wanted = WantedChanges::default();
        let mut want = |key: PolicyKey, nodes: std::ops::Range<usize>| {
            for number in nodes {
                let mut keys = wanted.by(&node(number)).clone();
                keys.insert(key.clone());
                wanted.set(&node(number), keys);
            }
        };
        want(of("a", "small"), 0..2);
        want(of("a", "large"), 2..6);
        want(of("b", "both"), 0..3);
        want(of("c", "first"), 10..13);
        want(of("c", "same"), 10..13);
        let room = |namespace: &str| if namespace == "b" { 2 } else { 3 };
        let held = wanted.beyond_shares(room, |key| key.name.clone());
        assert_eq!(held, [of("a", "large"), of("b", "both")].into());
        // What is held already takes no room.
        let policies_over_limit = wanted.policies_over_limit(5, &held, |key| key.name.clone());
        assert_eq!(policies_over_limit, BTreeSet::new());
        let policies_over_limit = wanted.policies_over_limit(4, &held, |key| key.name.clone());
        assert_eq!(
            policies_over_limit,
            [of("c", "first"), of("c", "same")].into()
        );
    }

    proptest! {
        #![proptest_config(crate::plan::cases::cases(512))]

        #[test]
        fn the_limit_is_never_exceeded_and_the_biggest_are_held_first(desired in desired(), room in 0..20_usize) {
            let held = wanted(&desired).policies_over_limit(room, &BTreeSet::new(), rank);
            // By the words of the contract: one after the other, until the rest fits.
            let mut order: Vec<usize> = (0..desired.len()).filter(|p| !desired[*p].is_empty()).collect();
            order.sort_by_key(|policy| (desired[*policy].len(), key(*policy).name));
            let mut expected = BTreeSet::new();
            while changed(order.iter().map(|policy| &desired[*policy])) > room {
                expected.extend(order.pop().map(key));
            }
            prop_assert_eq!(&held, &expected);
            let passing = desired.iter().enumerate().filter(|(policy, _)| !held.contains(&key(*policy)));
            prop_assert!(changed(passing.map(|(_, nodes)| nodes)) <= room);
        }

        #[test]
        fn it_does_not_matter_in_which_order_it_became_so(before in desired(), after in desired(), room in 0..20_usize) {
            let mut wants_now = wanted(&before);
            for number in (0..20).rev() {
                let wishing = after.iter().enumerate().filter(|(_, nodes)| nodes.contains(&number));
                wants_now.set(&node(number), wishing.map(|(policy, _)| key(policy)).collect());
            }
            prop_assert_eq!(wants_now.policies_over_limit(room, &BTreeSet::new(), rank), wanted(&after).policies_over_limit(room, &BTreeSet::new(), rank));
            for (number, nodes) in after.iter().enumerate() {
                let told: BTreeSet<_> = wants_now.of(&key(number)).cloned().collect();
                let expected: BTreeSet<_> = nodes.iter().copied().map(node).collect();
                prop_assert_eq!(told, expected);
            }
        }
    }
}
