//! The plan for one device.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    model::{AttributeKey, RouteSet},
    plan::{
        Action, Change, Conflict, Difference, Field, FieldOwners, Hold, PolicyKey, UniqueSetting,
    },
};

/// The changes of one device, and what could not be compared yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DevicePlan {
    /// The differences, in the order of their fields. Each attribute is one difference.
    pub differences: Vec<Difference>,
    /// Differences that are shown and not sent: their policies are suspended, only observe, or need an
    /// approval, or the tailnet denies the change.
    pub shown: Vec<Difference>,
    /// The policies that want to change the device now, including those that the limit of changed devices
    /// holds. Changes that were approved despite the limit do not count.
    pub desired_by: BTreeSet<PolicyKey>,
    /// The changes of each policy that needs an approval, or has one.
    pub asked: Vec<(PolicyKey, Change)>,
    /// The owners of the fields.
    pub owners: FieldOwners,
    /// The desired settings that no other device can have.
    pub unique: UniqueSetting,
    /// The attribute keys that each policy manages here: it declares them, takes precedence, nothing holds
    /// the change, and the attributes have been read.
    pub managed: BTreeMap<PolicyKey, BTreeSet<AttributeKey>>,
    /// The plan depends on attributes that have not been read.
    pub attributes_unread: bool,
    /// All routes that are enabled now. A request replaces the whole list, so it must contain the routes
    /// that stay.
    pub enabled_routes: RouteSet,
    /// The plan depends on routes that the poll did not report.
    pub routes_unread: bool,
    /// The one-shot actions, and how far each is.
    pub actions: Vec<Action>,
    /// When the stage of an action changes by the passing of time alone.
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

    /// Whether a policy declares something for a field that is not sent now: it is held, cannot be compared, or
    /// loses to something else.
    #[must_use]
    pub fn keeps_from_sending(&self, field: &Field) -> bool {
        let held = self.differences.iter().filter(|it| it.hold.is_some());
        let mut unsent = held.chain(&self.shown);
        let mut lost = self.owners.conflicts.iter();
        unsent.any(|it| it.change.field() == *field) || lost.any(|it| it.field == *field)
    }

    /// Whether a policy that owns a field differs there and does not act now.
    #[must_use]
    pub fn lacks_what_waits(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// The shown differences of policies that own the field.
    fn waiting(&self) -> impl Iterator<Item = &Difference> {
        // An observing or denied policy has no precedence, so that it must not keep a device out either.
        let shown = self.shown.iter();
        shown.filter(|it| !matches!(it.hold, Some(Hold::Observed | Hold::NotAllowed(_))))
    }

    /// Whether the device must not be authorized yet: a device enters the tailnet only when all of its
    /// declared settings are in sync, held ones included. A setting that the tailnet cannot have keeps the
    /// device out only for the policies that declare it: otherwise any policy could keep a device out.
    #[must_use]
    pub fn keeps_out(&self, entry: &Difference) -> bool {
        // A setting that has not been read may differ.
        !self.complete() || self.keeping_out(entry).next().is_some()
    }

    /// The differences that keep a device out.
    fn keeping_out<'a>(&'a self, entry: &'a Difference) -> impl Iterator<Item = &'a Difference> {
        self.differences
            .iter()
            .filter(|other| other.change != entry.change)
            .chain(self.waiting())
            .filter(move |other| {
                !other.cannot_hold() || other.owners().any(|owner| entry.concerns(owner))
            })
    }

    /// What a difference of a policy waits for, for the author of that policy: the other settings of the device,
    /// before it is authorized. `None` if it waits for none.
    #[must_use]
    pub fn waits_for(&self, difference: &Difference, policy: &PolicyKey) -> Option<String> {
        if !difference.change.authorizes() || !self.keeps_out(difference) {
            return None;
        }
        let fields = self.keeping_out(difference).map(|other| {
            let field = other.change.field();
            if other.concerns(policy) {
                field.to_string()
            } else {
                format!("{field} of {}", other.owner)
            }
        });
        let unread = [
            (self.attributes_unread, "attributes that are not read yet"),
            (self.routes_unread, "routes that are not read yet"),
        ];
        let unread = unread.into_iter().filter(|(is_unread, _)| *is_unread);
        let fields = fields.chain(unread.map(|(_, what)| what.to_owned()));
        let fields: BTreeSet<String> = fields.collect();
        let fields: Vec<String> = fields.into_iter().collect();
        Some(format!(
            "it waits for {}: no device enters the tailnet before its other settings are in sync",
            fields.join(", ")
        ))
    }

    /// The differences of one policy.
    pub fn of<'a>(&'a self, policy: &'a PolicyKey) -> impl Iterator<Item = &'a Difference> {
        let all = self.differences.iter().chain(&self.shown);
        all.filter(move |difference| difference.concerns(policy))
    }

    /// The fields of one policy that others override.
    pub fn conflicts_of<'a>(&'a self, policy: &'a PolicyKey) -> impl Iterator<Item = &'a Conflict> {
        let owners = &self.owners;
        // What an observing policy declares, or one that may not change the device, counts nowhere else.
        let alone = owners.observed.get(policy);
        let alone = alone.or_else(|| owners.protected.get(policy));
        let conflicts = alone.unwrap_or(owners).conflicts.iter();
        conflicts.filter(move |conflict| conflict.overridden == *policy)
    }

    /// The differences of one policy, as its author may see them: in lists, only the entries that the policy
    /// may change, and for fields that no rule allows, only the declared value.
    pub fn disclosed<'a>(&'a self, policy: &'a PolicyKey) -> impl Iterator<Item = Difference> {
        self.of(policy)
            .map(move |difference| self.disclosed_as(difference, policy))
    }

    /// A difference as the author of one policy may see it.
    #[must_use]
    pub fn disclosed_as(&self, difference: &Difference, policy: &PolicyKey) -> Difference {
        let change = match (&difference.hold, &difference.change) {
            // The observed value must not be disclosed, or is a placeholder for one that cannot be read.
            (Some(Hold::NotAllowed(_) | Hold::Unreadable(_)), change) => Change::NotCompared {
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

    /// Whether everything has been read and compared.
    #[must_use]
    pub fn complete(&self) -> bool {
        !self.attributes_unread && !self.routes_unread
    }
}
