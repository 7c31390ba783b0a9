use std::collections::{BTreeMap, BTreeSet};

use super::{AllowedEntries, Entry, ListOwnership, PolicyKey};

/// What the policies of one device wish for a list of its settings: its tags or its routes.
///
/// | policies, by rank                            | the list becomes       | conflict            |
/// |----------------------------------------------|------------------------|---------------------|
/// | a: Exact [x]; b: Exact [y]                   | [x]                    | b lost to a         |
/// | a: Exact [x]; b: Exact [x]                   | [x]                    | none: the same wish |
/// | a: AtLeast [x]; b: Exact [y]                 | [x, y]                 | none: a adds to it  |
/// | a: Exact [x]; b: AtLeast [y]                 | [x]                    | b lost to a         |
/// | a: Exact [x, y]; b: AtLeast [y]              | [x, y]                 | none: contained     |
/// | a: AtLeast [x, y]; b: Exact []; c: Exact [x] | [x, y]                 | c lost to b         |
/// | a: AtLeast [x]; b: AtLeast [y]               | what is there, x and y | none                |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListOwners<T> {
    /// By rank, those that count.
    parts: Vec<Part<T>>,
    /// What those wish that lost.
    lost: BTreeSet<T>,
    /// What policies take away that have let the device go, and that nobody wishes.
    withdrawn: BTreeMap<T, Vec<PolicyKey>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part<T> {
    owner: PolicyKey,
    desired: BTreeSet<T>,
    exact: bool,
    /// Where rules bound what the policy owns, an exact wish means the entries inside: it takes no
    /// others, and does not stand against a policy that owns those.
    scope: AllowedEntries,
}

impl<T: Entry> Part<T> {
    /// Whether it decides that an entry that nobody wishes is not there.
    fn takes(&self, entry: &T) -> bool {
        self.exact && self.scope.covers(entry)
    }

    /// Whether what ranks before cannot be had together with this wish. `whole` is all that is wished
    /// before.
    fn excludes(
        &self,
        desired: &BTreeSet<T>,
        extent: ListOwnership,
        scope: &AllowedEntries,
        whole: &BTreeSet<T>,
    ) -> bool {
        let taken = |entry: &T| self.takes(entry) && !whole.contains(entry);
        let given = |entry: &T| scope.covers(entry) && !desired.contains(entry);
        // Of two exact lists the first replaces the other, unless they are the same, or the other one is
        // just what the first becomes by what ranks before it.
        let more = |entry: &T| self.takes(entry) && !self.desired.contains(entry);
        let is_other = || desired.iter().any(more) && whole.iter().any(given);
        let replaced = || self.desired.iter().any(given) || is_other();
        self.exact && (desired.iter().any(taken) || (extent == ListOwnership::Exact && replaced()))
    }
}

impl<T> Default for ListOwners<T> {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            lost: BTreeSet::new(),
            withdrawn: BTreeMap::new(),
        }
    }
}

impl<T: Entry> ListOwners<T> {
    /// Whether nobody wishes anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.withdrawn.is_empty()
    }

    /// Takes the wish of the policy that ranks next. Gives the policy to which it loses, if so.
    pub(super) fn admit(
        &mut self,
        owner: &PolicyKey,
        desired: &BTreeSet<T>,
        extent: ListOwnership,
        scope: AllowedEntries,
    ) -> Option<PolicyKey> {
        let whole = self.whole();
        let mut before = self.parts.iter();
        if let Some(first) = before.find(|part| part.excludes(desired, extent, &scope, &whole)) {
            self.lost.extend(desired.iter().cloned());
            return Some(first.owner.clone());
        }
        self.parts.push(Part {
            owner: owner.clone(),
            desired: desired.clone(),
            exact: extent == ListOwnership::Exact,
            scope,
        });
        None
    }

    /// Takes away what nobody wishes of what a policy put there that has let the device go. Comes
    /// after all wishes.
    pub(super) fn withdraw(&mut self, owner: &PolicyKey, entries: &BTreeSet<T>) {
        let mut desired = self.whole();
        desired.extend(self.lost.iter().cloned());
        for entry in entries.difference(&desired) {
            let owners = self.withdrawn.entry(entry.clone()).or_default();
            owners.push(owner.clone());
        }
    }

    /// The policies that take something away that is there.
    pub(super) fn withdrawing(&self, before: &BTreeSet<T>) -> Vec<PolicyKey> {
        let there = self.withdrawn.iter().filter(|(e, _)| before.contains(e));
        let owners: BTreeSet<&PolicyKey> = there.flat_map(|(_, owners)| owners).collect();
        owners.into_iter().cloned().collect()
    }

    /// What the list becomes when these policies act. What the others wish stays where it is there,
    /// and is not added.
    pub(super) fn settled(
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
        let taken = |entry: &T| !whole.contains(entry) && acting.iter().any(|it| it.takes(entry));
        let mut after = before.clone();
        after.retain(|entry| !taken(entry));
        after.extend(acting.iter().flat_map(|part| part.desired.iter().cloned()));
        let withdrawn = |entry: &T| {
            let owners = self.withdrawn.get(entry);
            owners.is_some_and(|owners| owners.iter().any(&is_active))
        };
        after.retain(|entry| !withdrawn(entry));
        after
    }

    /// The same without the policies that do not count. Who lost to one of those has lost still.
    pub(super) fn among(&self, counts: impl Fn(&PolicyKey) -> bool) -> Self {
        let mut among = self.clone();
        among.parts.retain(|part| counts(&part.owner));
        among
    }

    /// The policies whose wish does not hold, by rank.
    pub(super) fn unmet(&self, before: &BTreeSet<T>) -> Vec<PolicyKey> {
        let whole = self.whole();
        let unmet = |part: &&Part<T>| {
            let taken = |entry: &T| part.takes(entry) && !whole.contains(entry);
            !part.desired.is_subset(before) || before.iter().any(taken)
        };
        let parts = self.parts.iter().filter(unmet);
        parts.map(|part| part.owner.clone()).collect()
    }

    /// Whether a call that replaces the list carries entries along that no acting policy decides.
    pub(super) fn carries_unmanaged(
        &self,
        is_active: impl Fn(&PolicyKey) -> bool,
        bounded: impl Fn(&AllowedEntries) -> bool,
    ) -> bool {
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

    /// The policy to which each of these loses, by rank; policies are named by their place.
    fn lost(desired: &[(&[u8], ListOwnership)]) -> Vec<Option<String>> {
        let mut claim = ListOwners::<Route>::default();
        let admit = |(place, (routes, extent)): (usize, &(&[u8], ListOwnership))| {
            let routes = routes.iter();
            let routes = routes.map(|it| format!("10.{it}.0.0/16").parse().unwrap());
            let owner = PolicyKey {
                namespace: "network".to_owned(),
                name: place.to_string(),
            };
            let lost = claim.admit(
                &owner,
                &routes.collect(),
                *extent,
                AllowedEntries::default(),
            );
            lost.map(|to| to.name)
        };
        desired.iter().enumerate().map(admit).collect()
    }

    #[test]
    fn an_exact_list_below_another_one_counts_only_where_both_become_the_same() {
        use ListOwnership::{AtLeast, Exact};
        let to = |name: &str| Some(name.to_owned());
        let above: (&[u8], ListOwnership) = (&[1, 2], AtLeast);
        for (exact, below, loser) in [
            (&[][..], &[1][..], to("1")),
            (&[], &[1, 2], None),
            (&[], &[], None),
            (&[1], &[1, 2], None),
            (&[1], &[2], to("1")),
            (&[3], &[1, 3], to("1")),
            (&[3], &[1, 2, 3], None),
        ] {
            let all = lost(&[above, (exact, Exact), (below, Exact)]);
            assert_eq!(all[2], loser, "{exact:?} above {below:?}");
        }
        assert_eq!(lost(&[above, (&[1], Exact)]), [None, None]);
    }
}
