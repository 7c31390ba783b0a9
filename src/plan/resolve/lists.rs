use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{AllowedEntries, Entry, ListOwnership, PolicyKey};

/// The owners of a list of one device: its tags or its routes.
///
/// | policies, by rank                            | the list becomes       | conflict            |
/// |----------------------------------------------|------------------------|---------------------|
/// | a: Exact [x]; b: Exact [y]                   | [x]                    | a overrides b       |
/// | a: Exact [x]; b: Exact [x]                   | [x]                    | none: same list     |
/// | a: AtLeast [x]; b: Exact [y]                 | [x, y]                 | none: a adds to it  |
/// | a: Exact [x]; b: AtLeast [y]                 | [x]                    | a overrides b       |
/// | a: Exact [x, y]; b: AtLeast [y]              | [x, y]                 | none: contained     |
/// | a: AtLeast [x, y]; b: Exact []; c: Exact [x] | [x, y]                 | b overrides c       |
/// | a: AtLeast [x]; b: AtLeast [y]               | observed, x and y      | none                |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOwners<T> {
    /// The policies that are not overridden, by rank.
    parts: Vec<Part<T>>,
    /// The policies that are overridden, each with the number of `parts` that rank before it.
    overridden: Vec<(usize, Part<T>)>,
    /// The entries that policies withdraw after they released the device, and that no policy declares.
    withdrawn: BTreeMap<T, Vec<PolicyKey>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part<T> {
    owner: PolicyKey,
    desired: BTreeSet<T>,
    exact: bool,
    /// The entries that rules allow the policy. An exact list removes only allowed entries, and does not
    /// conflict with a policy that owns other entries.
    scope: AllowedEntries,
}

impl<T: Entry> Part<T> {
    /// Whether it removes an entry that no policy declares.
    fn removes(&self, entry: &T) -> bool {
        self.exact && self.scope.covers(entry)
    }

    /// Whether this policy overrides one that ranks later. `whole` has all the entries that policies ranking
    /// before the other one declare.
    fn excludes(&self, other: &Self, whole: &BTreeSet<T>) -> bool {
        if !self.exact {
            return false;
        }
        let mut desired = other.desired.iter();
        desired.any(|entry| self.removes(entry) && !whole.contains(entry))
            || (other.exact && self.replaces(other, whole))
    }

    /// Of two exact lists, the first overrides the other, unless they are the same, or the other one is what
    /// the first becomes with the entries that are added before it.
    fn replaces(&self, other: &Self, whole: &BTreeSet<T>) -> bool {
        let mut desired = other.desired.iter();
        other.lacks_any_of(&self.desired)
            || (other.lacks_any_of(whole)
                && desired.any(|entry| self.removes(entry) && !self.desired.contains(entry)))
    }

    /// Whether it does not declare one of these entries, although rules allow it the entry.
    fn lacks_any_of(&self, entries: &BTreeSet<T>) -> bool {
        entries
            .iter()
            .any(|entry| self.scope.covers(entry) && !self.desired.contains(entry))
    }
}

impl<T> Default for ListOwners<T> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            overridden: Vec::new(),
            withdrawn: BTreeMap::new(),
        }
    }
}

impl<T: Entry> ListOwners<T> {
    /// Whether no policy declares or withdraws anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.withdrawn.is_empty()
    }

    /// Adds what the policy that ranks next declares. Returns the policy that overrides it, if any.
    pub(in crate::plan) fn admit(
        &mut self,
        owner: &PolicyKey,
        desired: &BTreeSet<T>,
        ownership: ListOwnership,
        scope: AllowedEntries,
    ) -> Option<PolicyKey> {
        self.admit_part(Part {
            owner: owner.clone(),
            desired: desired.clone(),
            exact: ownership == ListOwnership::Exact,
            scope,
        })
    }

    fn admit_part(&mut self, part: Part<T>) -> Option<PolicyKey> {
        let whole = self.whole();
        let first = self.parts.iter().find(|it| it.excludes(&part, &whole));
        let owner = first.map(|first| first.owner.clone());
        if owner.is_some() {
            // It owns its part as soon as the policy that overrides it does not count (`among`).
            self.overridden.push((self.parts.len(), part));
        } else {
            self.parts.push(part);
        }
        owner
    }

    /// Withdraws the entries that a policy set before it released the device and that no policy declares. Call
    /// it after all policies are added.
    pub(in crate::plan) fn withdraw(&mut self, owner: &PolicyKey, entries: &BTreeSet<T>) {
        let mut desired = self.whole();
        let overridden = self.overridden.iter();
        // A policy that is overridden declares its entries all the same.
        desired.extend(overridden.flat_map(|(_, part)| part.desired.iter().cloned()));
        for entry in entries.difference(&desired) {
            let owners = self.withdrawn.entry(entry.clone()).or_default();
            owners.push(owner.clone());
        }
    }

    /// Those of the observed entries that no policy declares or removes.
    pub(in crate::plan) fn unowned(&self, observed: &BTreeSet<T>) -> BTreeSet<T> {
        let whole = self.whole();
        let removes = |entry: &T| self.parts.iter().any(|part| part.removes(entry));
        let unowned = observed
            .iter()
            .filter(|entry| !whole.contains(*entry) && !removes(entry));
        unowned.cloned().collect()
    }

    /// The policies that withdraw an observed entry.
    pub(in crate::plan) fn withdrawing(&self, before: &BTreeSet<T>) -> Vec<PolicyKey> {
        let present = self.withdrawn.iter().filter(|(e, _)| before.contains(e));
        let owners: BTreeSet<&PolicyKey> = present.flat_map(|(_, owners)| owners).collect();
        owners.into_iter().cloned().collect()
    }

    /// What the list becomes when these policies act. An entry that only other policies declare stays if it
    /// is observed, and is not added.
    pub(in crate::plan) fn settled(
        &self,
        before: &BTreeSet<T>,
        is_active: impl Fn(&PolicyKey) -> bool,
    ) -> BTreeSet<T> {
        let whole = self.whole();
        let acting: Vec<&Part<T>> = self
            .parts
            .iter()
            .filter(|it| is_active(&it.owner))
            .collect();
        let mut after = before.clone();
        // `whole` also has the entries of policies that do not act now: those stay.
        after.retain(|entry| {
            whole.contains(entry) || !acting.iter().any(|part| part.removes(entry))
        });
        after.extend(acting.iter().flat_map(|part| part.desired.iter().cloned()));
        // No part has a withdrawn entry, so that this takes back nothing that was added above.
        after.retain(|entry| {
            let owners = self.withdrawn.get(entry);
            !owners.is_some_and(|owners| owners.iter().any(&is_active))
        });
        after
    }

    /// The same without the policies that do not count: a policy that only they override owns its part.
    pub(in crate::plan) fn among(&self, counts: impl Fn(&PolicyKey) -> bool) -> Self {
        let mut among = Self {
            withdrawn: self.withdrawn.clone(),
            ..Self::default()
        };
        let mut overridden = self.overridden.iter().peekable();
        // Beyond the last part too, as overridden policies may rank after it.
        for rank in 0..=self.parts.len() {
            let same_rank = std::iter::from_fn(|| overridden.next_if(|(at, _)| *at == rank));
            let parts = same_rank.map(|(_, part)| part).chain(self.parts.get(rank));
            for part in parts.filter(|part| counts(&part.owner)) {
                among.admit_part(part.clone());
            }
        }
        among
    }

    /// The policies whose desired state differs from the observed one, by rank.
    pub(in crate::plan) fn unmet(&self, before: &BTreeSet<T>) -> Vec<PolicyKey> {
        let whole = self.whole();
        let unmet = self.parts.iter().filter(|part| {
            let mut observed = before.iter();
            !part.desired.is_subset(before)
                || observed.any(|entry| part.removes(entry) && !whole.contains(entry))
        });
        unmet.map(|part| part.owner.clone()).collect()
    }

    /// Whether a request that replaces the list contains entries that no acting policy owns.
    pub(in crate::plan) fn carries_unmanaged(
        &self,
        is_active: impl Fn(&PolicyKey) -> bool,
        bounded: impl Fn(&AllowedEntries) -> bool,
    ) -> bool {
        // A list that rules bound replaces only its own entries, and carries all others.
        let replaced = self
            .parts
            .iter()
            .any(|part| part.exact && is_active(&part.owner) && !bounded(&part.scope));
        !replaced || self.parts.iter().any(|part| !is_active(&part.owner))
    }

    fn whole(&self) -> BTreeSet<T> {
        let entries = self.parts.iter().flat_map(|part| part.desired.iter());
        entries.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Route;

    /// For each of these policies, by rank, the policy that overrides it. A policy's name is its index.
    fn overridden_by(desired: &[(&[u8], ListOwnership)]) -> Vec<Option<String>> {
        let mut claim = ListOwners::<Route>::default();
        let admit = |(place, (routes, extent)): (usize, &(&[u8], ListOwnership))| {
            let routes = routes.iter();
            let routes = routes.map(|it| format!("10.{it}.0.0/16").parse().unwrap());
            let owner = PolicyKey::new("network", place.to_string());
            let winner = claim.admit(
                &owner,
                &routes.collect(),
                *extent,
                AllowedEntries::default(),
            );
            winner.map(|winner| winner.name.clone())
        };
        desired.iter().enumerate().map(admit).collect()
    }

    #[test]
    fn second_exact_list_is_overridden_unless_both_become_the_same() {
        use ListOwnership::{AtLeast, Exact};
        let to = |name: &str| Some(name.to_owned());
        let above: (&[u8], ListOwnership) = (&[1, 2], AtLeast);
        for (exact, below, winner) in [
            (&[][..], &[1][..], to("1")),
            (&[], &[1, 2], None),
            (&[], &[], None),
            (&[1], &[1, 2], None),
            (&[1], &[2], to("1")),
            (&[3], &[1, 3], to("1")),
            (&[3], &[1, 2, 3], None),
        ] {
            let all = overridden_by(&[above, (exact, Exact), (below, Exact)]);
            assert_eq!(all[2], winner, "{exact:?} above {below:?}");
        }
        assert_eq!(overridden_by(&[above, (&[1], Exact)]), [None, None]);
    }

    #[test]
    fn without_a_policy_those_that_only_it_overrides_own_their_part() {
        let route = |number: u8| -> Route { format!("10.{number}.0.0/16").parse().unwrap() };
        let key = |name: &str| PolicyKey::new("network", name);
        let mut owners = ListOwners::default();
        for (name, routes, ownership) in [
            ("first", &[1][..], ListOwnership::Exact),
            ("second", &[1, 2], ListOwnership::AtLeast),
            ("third", &[1], ListOwnership::Exact),
        ] {
            let routes = routes.iter().map(|number| route(*number)).collect();
            owners.admit(&key(name), &routes, ownership, AllowedEntries::default());
        }
        let before = BTreeSet::from([route(1), route(2)]);
        let all = |_: &PolicyKey| true;
        assert_eq!(owners.settled(&before, all), BTreeSet::from([route(1)]));
        let without = owners.among(|policy| policy.name != "first");
        assert_eq!(without.settled(&before, all), before);
    }
}
