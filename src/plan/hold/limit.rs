//! The limit of changed devices: which policies are held, so that it is not exceeded.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::NodeId;
use crate::plan::PolicyKey;

/// Which devices each policy wants to change now. Kept up to date one device at a time.
///
/// A device that was changed within the hour is not part of it, because another change of the same device is
/// free. It stays part of it if it was held before.
#[derive(Debug, Clone, Default)]
pub struct WantedChanges {
    by_policy: BTreeMap<PolicyKey, BTreeSet<NodeId>>,
    by_node: BTreeMap<NodeId, BTreeSet<PolicyKey>>,
}

impl WantedChanges {
    /// Sets the policies that want to change a device now. Returns whether they differ from before.
    pub fn set(&mut self, node: &NodeId, policies: BTreeSet<PolicyKey>) -> bool {
        let before = self.by_node.remove(node).unwrap_or_default();
        for key in before.difference(&policies) {
            if let Some(nodes) = self.by_policy.get_mut(key) {
                nodes.remove(node);
                // Only policies that want a change may cost something when the limit is exceeded.
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

    /// Whether no policy wants to change anything.
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
    pub fn larger_than(&self, max: usize) -> BTreeSet<PolicyKey> {
        let policies = self.by_policy.iter();
        let large = policies.filter(|(_, nodes)| nodes.len() > max);
        large.map(|(key, _)| key.clone()).collect()
    }

    /// The devices that a policy wants to change.
    #[must_use]
    pub fn of(&self, policy: &PolicyKey) -> impl ExactSizeIterator<Item = &NodeId> {
        static NONE: BTreeSet<NodeId> = BTreeSet::new();
        self.by_policy.get(policy).unwrap_or(&NONE).iter()
    }

    /// The policies to hold, so that the others change at most `max` devices. The policy that would change
    /// the most devices is held first, and of two with the same number, the one that ranks later. A policy is
    /// held as a whole. Policies that are `already` held are left out.
    ///
    /// Constant time if nothing is over the limit. Otherwise the cost depends on `max` and on the number of
    /// policies: the devices of a policy that is too large are not visited.
    #[must_use]
    pub fn policies_over_limit<R: Ord>(
        &self,
        max: usize,
        already: &BTreeSet<PolicyKey>,
        rank: impl Fn(&PolicyKey) -> R,
    ) -> BTreeSet<PolicyKey> {
        if self.by_node.len() <= max {
            return BTreeSet::new();
        }
        let others = self
            .by_policy
            .iter()
            .filter(|(key, _)| !already.contains(*key))
            .collect();
        largest_over_limit(others, max, rank)
    }

    /// As [`WantedChanges::policies_over_limit`], for each namespace separately, with a limit of its own.
    #[must_use]
    pub fn beyond_shares<R: Ord>(
        &self,
        max: impl Fn(&str) -> usize,
        rank: impl Fn(&PolicyKey) -> R,
    ) -> BTreeSet<PolicyKey> {
        let policies: Vec<_> = self.by_policy.iter().collect();
        // The policies are sorted by namespace.
        let namespaces = policies.chunk_by(|(a, _), (b, _)| a.namespace == b.namespace);
        let held = namespaces.flat_map(|policies| {
            let max = max(&policies[0].0.namespace);
            let wanted: usize = policies.iter().map(|(_, nodes)| nodes.len()).sum();
            if wanted <= max {
                return BTreeSet::new();
            }
            largest_over_limit(policies.to_vec(), max, &rank)
        });
        held.collect()
    }
}

/// The policies to hold, so that the others change at most `max` devices.
fn largest_over_limit<R: Ord>(
    mut policies: Vec<(&PolicyKey, &BTreeSet<NodeId>)>,
    max: usize,
    rank: impl Fn(&PolicyKey) -> R,
) -> BTreeSet<PolicyKey> {
    policies.sort_by_cached_key(|(key, nodes)| (nodes.len(), rank(key)));
    let mut changed: BTreeSet<&NodeId> = BTreeSet::new();
    let first_held = policies.iter().position(|(_, nodes)| {
        // Before its devices are visited, which may be thousands.
        if nodes.len() > max {
            return true;
        }
        // A device of several policies counts once.
        changed.extend(nodes.iter());
        changed.len() > max
    });
    // All that follow change at least as many devices, and the largest policies are held first.
    let held = first_held.map_or(&[][..], |first| &policies[first..]);
    held.iter().map(|(key, _)| (*key).clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    fn key(number: usize) -> PolicyKey {
        PolicyKey::new("network", format!("policy-{number}"))
    }

    fn node(number: usize) -> NodeId {
        format!("n{number}CNTRL").parse().unwrap()
    }

    fn rank(key: &PolicyKey) -> String {
        key.name.clone()
    }

    /// The devices that each policy wants to change.
    type ByPolicy = Vec<BTreeSet<usize>>;

    fn wanted(desired: &ByPolicy) -> WantedChanges {
        let mut wanted = WantedChanges::default();
        for number in 0..20 {
            let wanting = desired.iter().enumerate();
            let wanting = wanting.filter(|(_, nodes)| nodes.contains(&number));
            wanted.set(
                &node(number),
                wanting.map(|(policy, _)| key(policy)).collect(),
            );
        }
        wanted
    }

    fn changed<'a>(desired: impl IntoIterator<Item = &'a BTreeSet<usize>>) -> usize {
        let all: BTreeSet<_> = desired.into_iter().flatten().collect();
        all.len()
    }

    fn desired() -> impl Strategy<Value = ByPolicy> {
        collection::vec(collection::btree_set(0..20_usize, 0..12), 0..8)
    }

    #[test]
    fn largest_policy_is_held_and_small_ones_are_sent() {
        let desired = vec![(0..15).collect(), [16].into(), [17, 18].into()];
        let held = wanted(&desired).policies_over_limit(5, &BTreeSet::new(), rank);
        assert_eq!(held, [key(0)].into());
    }

    #[test]
    fn of_two_equally_large_policies_the_later_in_rank_is_held() {
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
    fn each_namespace_has_its_own_limit_and_holds_its_largest_policies() {
        let of = |namespace: &str, name: &str| PolicyKey::new(namespace, name);
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
        let max = |namespace: &str| if namespace == "b" { 2 } else { 3 };
        let held = wanted.beyond_shares(max, |key| key.name.clone());
        assert_eq!(held, [of("a", "large"), of("b", "both")].into());
        // A policy that is already held does not count.
        let policies_over_limit = wanted.policies_over_limit(5, &held, |key| key.name.clone());
        assert_eq!(policies_over_limit, BTreeSet::new());
        let policies_over_limit = wanted.policies_over_limit(4, &held, |key| key.name.clone());
        assert_eq!(
            policies_over_limit,
            [of("c", "first"), of("c", "same")].into()
        );
    }

    proptest! {
        #![proptest_config(crate::plan::tests::cases::cases(512))]

        #[test]
        fn limit_is_never_exceeded_and_the_largest_are_held_first(desired in desired(), max in 0..20_usize) {
        let held = wanted(&desired).policies_over_limit(max, &BTreeSet::new(), rank);
        // The contract, written out: hold one after the other, until the rest is within the limit.
            let mut order: Vec<usize> = (0..desired.len()).filter(|p| !desired[*p].is_empty()).collect();
            order.sort_by_key(|policy| (desired[*policy].len(), key(*policy)));
            let mut expected = BTreeSet::new();
            while changed(order.iter().map(|policy| &desired[*policy])) > max {
                expected.extend(order.pop().map(key));
            }
            prop_assert_eq!(&held, &expected);
            let passing = desired.iter().enumerate().filter(|(policy, _)| !held.contains(&key(*policy)));
            prop_assert!(changed(passing.map(|(_, nodes)| nodes)) <= max);
        }

        #[test]
        fn order_of_updates_does_not_matter(before in desired(), after in desired(), max in 0..20_usize) {
            let mut wants_now = wanted(&before);
            for number in (0..20).rev() {
                let wanting = after.iter().enumerate().filter(|(_, nodes)| nodes.contains(&number));
                wants_now.set(&node(number), wanting.map(|(policy, _)| key(policy)).collect());
            }
            prop_assert_eq!(wants_now.policies_over_limit(max, &BTreeSet::new(), rank), wanted(&after).policies_over_limit(max, &BTreeSet::new(), rank));
            for (number, nodes) in after.iter().enumerate() {
                let reported: BTreeSet<_> = wants_now.of(&key(number)).cloned().collect();
                let expected: BTreeSet<_> = nodes.iter().copied().map(node).collect();
                prop_assert_eq!(reported, expected);
            }
        }
    }
}
