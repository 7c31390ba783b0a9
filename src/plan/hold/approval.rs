//! Approvals: frozen plans that are held until someone approves them by their hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use jiff::SignedDuration;

use super::{
    plan_hash::{PlanHash, shortened},
    summary::Summary,
};
use crate::model::{NodeId, Refused};
use crate::plan::{Change, Difference, Field, Hold, Policy, PolicyKey};

/// The most entries of one annotation that are read. People write one or two.
const MAX_ENTRIES: usize = 100;

/// What the annotation [`crate::model::APPROVE`] of an object approves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvals {
    /// Held plans.
    pub plans: BTreeSet<PlanHash>,
    /// The devices that the policy may be bound to.
    pub nodes: BTreeSet<NodeId>,
    /// The errors of invalid entries, each with what to write. The other entries still count.
    pub errors: Vec<String>,
}

impl Approvals {
    /// Reads the annotation.
    #[must_use]
    pub fn parse(annotation: Option<&str>) -> Self {
        let mut approvals = Self::default();
        let entries: Vec<&str> = annotation
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .collect();
        // The first error, because a status names only the first ones.
        if entries.len() > MAX_ENTRIES {
            approvals.errors.push(format!(
                "too many approvals: found {}, expected at most {MAX_ENTRIES}. The last ones approve nothing: \
                 remove approvals that were used",
                entries.len()
            ));
        }
        for entry in entries.into_iter().take(MAX_ENTRIES) {
            let added = match entry.split_once(':') {
                Some(("plan", hash)) => hash.parse().map(|hash| {
                    approvals.plans.insert(hash);
                }),
                Some(("node", id)) => id.parse().map(|id| {
                    approvals.nodes.insert(id);
                }),
                _ => Err(Refused(format!(
                    "'{}' approves nothing: write plan:HASH or node:ID, with commas between several",
                    shortened(entry)
                ))),
            };
            approvals
                .errors
                .extend(added.err().map(|refused| refused.0));
        }
        approvals
    }
}

/// The object on which an approval is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApprovedOn {
    /// The policy: its own mode requires approvals.
    Policy,
    /// The tailnet: its limit of changed devices holds the policy.
    Tailnet,
}

impl ApprovedOn {
    /// Where a change with this hold is approved; `None` if no approval helps.
    #[must_use]
    pub fn releases(hold: &Hold) -> Option<Self> {
        match hold {
            Hold::Approval(_) => Some(Self::Policy),
            Hold::Limit(_) => Some(Self::Tailnet),
            _ => None,
        }
    }
}

/// Changes of several devices, by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<NodeId, BTreeMap<Field, Change>>);

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many devices they change.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.0.len()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// The devices.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.0.keys()
    }

    /// The changes of one device.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Option<&BTreeMap<Field, Change>> {
        self.0.get(node)
    }

    /// Whether exactly this change is among them: with the same before and after.
    #[must_use]
    pub fn contains(&self, node: &NodeId, change: &Change) -> bool {
        let of_node = self.0.get(node);
        of_node.is_some_and(|changes| changes.get(&change.field()) == Some(change))
    }

    /// Adds a change.
    pub fn insert(&mut self, node: NodeId, change: Change) {
        let of_node = self.0.entry(node).or_default();
        of_node.insert(change.field(), change);
    }

    /// Adds other changes.
    pub fn extend(&mut self, others: Self) {
        for (node, changes) in others.0 {
            self.0.entry(node).or_default().extend(changes);
        }
    }

    /// Keeps only these changes of one device.
    pub fn retain(&mut self, node: &NodeId, keep: impl Fn(&Change) -> bool) {
        if let Some(changes) = self.0.get_mut(node) {
            changes.retain(|_, change| keep(change));
            // A device without changes must not count as one that the plan changes.
            if changes.is_empty() {
                self.0.remove(node);
            }
        }
    }
}

/// The changes of one policy that are held until someone approves them. The plan is frozen: its hash
/// always names exactly these changes. A later difference is not part of it, and an approval sends only
/// those of its changes that are still open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenPlan {
    /// The hash that an approval names.
    pub hash: PlanHash,
    /// Where the approval is written.
    pub on: ApprovedOn,
    /// The changes that the hash covers.
    changes: Changes,
    /// The changes of them that are still differences, unaltered.
    open: Changes,
    /// The changes by kind.
    summary: Arc<Summary>,
}

impl FrozenPlan {
    /// Freezes held changes. The hash differs for another generation of the policy, and after each used
    /// approval, so that no approval works twice.
    #[must_use]
    pub fn freeze(
        policy: &Policy,
        approvals_used: u32,
        on: ApprovedOn,
        changes: Changes,
    ) -> Option<Self> {
        if changes.is_empty() {
            return None;
        }
        // Whatever must make an earlier approval void is part of the text.
        let mut text = format!(
            "{}\n{}\n{approvals_used}\n{on:?}\n",
            policy.uid, policy.generation
        );
        for (node, changes) in &changes.0 {
            for change in changes.values() {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{node} {change}");
            }
        }
        let hash = PlanHash::of(&text);
        Some(Self {
            hash,
            on,
            open: changes.clone(),
            changes,
            summary: Arc::default(),
        })
    }

    /// The same plan, with its changes by kind.
    #[must_use]
    pub fn with_summary(self, summary: Summary) -> Self {
        let summary = Arc::new(summary);
        Self { summary, ..self }
    }

    /// The changes that the hash covers, by kind.
    #[must_use]
    pub const fn summary(&self) -> &Arc<Summary> {
        &self.summary
    }

    /// The changes that the hash covers.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The changes that an approval sends.
    #[must_use]
    pub fn open(&self) -> &Changes {
        &self.open
    }

    /// Applies a new comparison of a device: a change that is still the same difference is open, any other
    /// is not. A change whose setting has not been read stays as it is.
    pub fn compare(
        &mut self,
        node: &NodeId,
        differs: impl Fn(&Change) -> bool,
        unread: impl Fn(&Change) -> bool,
    ) {
        self.open
            .retain(node, |change| differs(change) || unread(change));
        let of_node = self.changes.of(node).into_iter();
        for change in of_node.flat_map(BTreeMap::values) {
            // A difference that was gone and is back as it was has been approved too.
            if differs(change) {
                self.open.insert(node.clone(), change.clone());
            }
        }
    }

    /// Whether this difference is part of the plan.
    #[must_use]
    pub fn holds(&self, difference: &Difference) -> bool {
        let hold = difference.hold.as_ref();
        hold.and_then(ApprovedOn::releases) == Some(self.on)
            && self.changes.contains(&difference.node, &difference.change)
    }
}

/// Whether the limit holds one policy's changes on one device, and which of them were approved.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApprovalState<'a> {
    /// The limit of changed devices holds the policy here.
    pub limited: bool,
    /// The changes that were approved on the policy.
    pub approved: Option<&'a BTreeMap<Field, Change>>,
    /// The changes that were approved on the tailnet, and that the limit does not hold.
    pub exempt_from_limit: Option<&'a BTreeMap<Field, Change>>,
}

/// The approval states of one device's policies. A policy without one is not limited, and has nothing
/// approved.
#[derive(Debug, Clone, Default)]
pub struct ApprovalStates<'a> {
    of: BTreeMap<&'a PolicyKey, ApprovalState<'a>>,
    approved_plan: Option<&'a Changes>,
    clock_skew: Option<SignedDuration>,
}

impl<'a> FromIterator<(&'a PolicyKey, ApprovalState<'a>)> for ApprovalStates<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a PolicyKey, ApprovalState<'a>)>>(states: I) -> Self {
        Self {
            of: states.into_iter().collect(),
            approved_plan: None,
            clock_skew: None,
        }
    }
}

impl<'a> ApprovalStates<'a> {
    /// Allows only these changes, if someone approved a shown plan.
    #[must_use]
    pub fn only(self, approved: Option<&'a Changes>) -> Self {
        Self {
            approved_plan: approved,
            ..self
        }
    }

    /// With the skew of the local clock if it is too large: no one-shot action begins then.
    #[must_use]
    pub fn with_clock_skew(self, clock_skew: Option<SignedDuration>) -> Self {
        Self { clock_skew, ..self }
    }
}

impl ApprovalStates<'_> {
    fn has(changes: Option<&BTreeMap<Field, Change>>, change: &Change) -> bool {
        // With the same observed state: a person has approved the change from what they saw.
        changes.is_some_and(|changes| changes.get(&change.field()) == Some(change))
    }

    /// The skew of the local clock, if it is too large.
    pub(in crate::plan) fn clock_skew(&self) -> Option<SignedDuration> {
        self.clock_skew
    }

    /// Whether there is an approved plan that does not contain a change.
    pub(in crate::plan) fn exclude(&self, node: &NodeId, change: &Change) -> bool {
        self.approved_plan
            .is_some_and(|approved| !approved.contains(node, change))
    }

    pub(in crate::plan) fn limits(&self, policy: &PolicyKey) -> bool {
        self.of.get(policy).is_some_and(|state| state.limited)
    }

    /// Whether anything was approved of a policy here.
    pub(in crate::plan) fn has_approved(&self, policy: &PolicyKey) -> bool {
        let state = self.of.get(policy);
        state.is_some_and(|state| state.approved.is_some() || state.exempt_from_limit.is_some())
    }

    pub(in crate::plan) fn approves(&self, policy: &PolicyKey, change: &Change) -> bool {
        let state = self.of.get(policy);
        state.is_some_and(|state| Self::has(state.approved, change))
    }

    pub(in crate::plan) fn is_exempt_from_limit(
        &self,
        policy: &PolicyKey,
        change: &Change,
    ) -> bool {
        let state = self.of.get(policy);
        state.is_some_and(|state| Self::has(state.exempt_from_limit, change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_approvals_are_reported() {
        let errors = |count: usize| {
            let annotation = ["node:n1CNTRL"].repeat(count).join(",");
            Approvals::parse(Some(&annotation)).errors
        };
        assert!(errors(MAX_ENTRIES).is_empty());
        let errors = errors(MAX_ENTRIES + 1);
        let expected = "too many approvals: found 101, expected at most 100.";
        assert!(errors[0].starts_with(expected), "{errors:?}");
    }
}
