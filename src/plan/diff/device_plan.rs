//! What one device's policies come to.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    model::{AttributeKey, RouteSet},
    plan::{Action, Change, Difference, FieldOwners, Hold, PolicyKey, UniqueSetting},
};

/// What is to be done about one device, and what could not be compared yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DevicePlan {
    /// The differences, in the order of their fields; each attribute is one.
    pub differences: Vec<Difference>,
    /// What policies wish that are suspended, only observe, or wait for an approval: to be shown, and
    /// not to be removed now.
    pub shown: Vec<Difference>,
    /// The policies that wish to change the device now, those included that the limit of changed
    /// devices holds. What was approved in spite of the limit is not counted.
    pub desired_by: BTreeSet<PolicyKey>,
    /// What each policy that waits, or of which something was approved, asks for by itself.
    pub asked: Vec<(PolicyKey, Change)>,
    /// Who decides what.
    pub owners: FieldOwners,
    /// What no other device can have, as its policies have settled it among themselves.
    pub unique: UniqueSetting,
    /// The attribute keys that each policy manages here: it declares them, it takes precedence, nothing
    /// holds it, and they have been read.
    pub managed: BTreeMap<PolicyKey, BTreeSet<AttributeKey>>,
    /// Attributes are wished for, but have not been read.
    pub attributes_unread: bool,
    /// All routes that are enabled now: what a call that replaces them must carry along.
    pub enabled_routes: RouteSet,
    /// Routes are wished for, but the list did not tell them.
    pub routes_unread: bool,
    /// What is done once, and how far that is.
    pub actions: Vec<Action>,
    /// When what is to be done once changes, though nothing happens.
    pub wakes: Option<Timestamp>,
}

impl DevicePlan {
    /// Whether everything could be compared and nothing differs.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.differences.is_empty()
            && self.shown.is_empty()
            && !self.attributes_unread
            && !self.routes_unread
    }

    /// Whether a policy that does not act now decides something that does not hold.
    #[must_use]
    pub fn lacks_what_waits(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// What policies decide that do not act now, and what does not hold.
    fn waiting(&self) -> impl Iterator<Item = &Difference> {
        let shown = self.shown.iter();
        shown.filter(|it| !matches!(it.hold, Some(Hold::Observed | Hold::NotAllowed(_))))
    }

    /// Whether the device may not be let in yet: a device enters only with all that policies decide about it,
    /// whichever of them must wait. What cannot hold in the tailnet keeps it out only for those who desire
    /// it: else any policy could keep a device out for ever.
    #[must_use]
    pub fn keeps_out(&self, entry: &Difference) -> bool {
        let others = self.differences.iter();
        let others = others.filter(|other| other.change != entry.change);
        let mut all = others.chain(self.waiting());
        let is_own = |other: &Difference| other.owners().any(|owner| entry.concerns(owner));
        all.any(|other| is_own(other) || !other.cannot_hold()) || !self.complete()
    }

    /// What is to be told of one policy.
    pub fn of<'a>(&'a self, policy: &'a PolicyKey) -> impl Iterator<Item = &'a Difference> {
        let all = self.differences.iter().chain(&self.shown);
        all.filter(move |difference| difference.concerns(policy))
    }

    /// What one policy is told: of lists, the entries that it may give and take, and of what no rule allows
    /// it, what it declares.
    pub fn disclosed<'a>(&'a self, policy: &'a PolicyKey) -> impl Iterator<Item = Difference> {
        self.of(policy)
            .map(move |difference| self.disclosed_as(difference, policy))
    }

    /// A difference as one policy is told of it.
    #[must_use]
    pub fn disclosed_as(&self, difference: &Difference, policy: &PolicyKey) -> Difference {
        let change = match (&difference.hold, &difference.change) {
            (Some(Hold::NotAllowed(_)), change) => Change::NotCompared {
                field: change.field(),
                after: change.after(),
            },
            (_, change) => self.owners.view(policy, change),
        };
        Difference {
            change,
            ..difference.clone()
        }
    }

    /// Whether no more than the difference itself is known to be missing: all has been compared.
    #[must_use]
    pub fn complete(&self) -> bool {
        !self.attributes_unread && !self.routes_unread
    }
}
