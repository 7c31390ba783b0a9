//! Compares a device with what the owners of its fields declare.

use std::collections::BTreeSet;

use crate::model::{
    AttributeKey, Attributes, Device, DeviceField, ListSetting, ListValue, ReportedAttribute,
    RouteSet,
};
use crate::plan::{
    ApprovalStates, Change, Difference, Entry, Field, FieldOwners, Hold, ListChange, ListOwners,
    Mode, PolicyKey, Why, actions::Actions,
};

/// The differences of one device, before the plan is finished.
#[derive(Debug, Default)]
pub(in crate::plan) struct Found {
    /// The differences of policies that act.
    pub(super) differences: Vec<Difference>,
    /// The differences that are shown and not sent.
    pub(super) shown: Vec<Difference>,
    /// The policies that want to change a field now, including those that the limit holds.
    pub(super) wanted: Vec<(Field, PolicyKey)>,
    /// The changes of each policy that needs an approval, or has one.
    pub(super) asked: Vec<(PolicyKey, Change)>,
    /// The policies for which an attribute is set now, unless a guard holds it.
    pub(super) acting: Vec<(AttributeKey, PolicyKey)>,
}

impl Found {
    /// Adds differences that are only shown.
    pub(in crate::plan) fn show(&mut self, differences: Vec<Difference>) {
        self.shown.extend(differences);
    }

    /// The differences that a guard can hold: a suspended policy sends nothing anyway.
    pub(in crate::plan) fn not_suspended(&mut self) -> impl Iterator<Item = &mut Difference> {
        let waiting = self
            .shown
            .iter_mut()
            .filter(|difference| !matches!(difference.hold, Some(Hold::Suspended(_))));
        self.differences.iter_mut().chain(waiting)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Difference> + Clone {
        self.differences.iter().chain(&self.shown)
    }
}

/// Compares a device with what the owners of its fields declare.
pub(in crate::plan) fn compare(
    device: &Device,
    attributes: Option<&Attributes>,
    owners: &FieldOwners,
    actions: &Actions,
    approvals: &ApprovalStates<'_>,
) -> Found {
    let mut diff = DiffBuilder::of(device, owners, approvals);
    diff.compare(attributes);
    diff.actions(actions);
    diff.found
}

struct DiffBuilder<'a> {
    device: &'a Device,
    field_owners: &'a FieldOwners,
    approvals: &'a ApprovalStates<'a>,
    found: Found,
}

/// The policies that want one change, each list by rank.
#[derive(Default)]
struct Owners {
    /// The policies for which the change may be sent.
    acting: Vec<PolicyKey>,
    /// The policies for which it is held, each with the reason.
    waiting: Vec<(PolicyKey, Hold)>,
    suspended: Vec<PolicyKey>,
    suspender: Option<Hold>,
}

/// Why a policy wants a change: it declares the value, or it has released it.
const fn why(declares: bool) -> Why {
    if declares {
        Why::Declared
    } else {
        Why::Released
    }
}

impl<'a> DiffBuilder<'a> {
    fn of(
        device: &'a Device,
        field_owners: &'a FieldOwners,
        approvals: &'a ApprovalStates<'a>,
    ) -> Self {
        Self {
            device,
            field_owners,
            approvals,
            found: Found::default(),
        }
    }

    /// Why this change is held for a policy. The guards of [`hold`] are applied later.
    fn hold(&self, policy: &PolicyKey, change: &Change) -> Option<Hold> {
        match self.field_owners.mode(policy) {
            Mode::Suspended(by) => Some(Hold::Suspended(by)),
            // Before an approval: nobody must approve what would not be sent then.
            _ if let Some(denied) = self.field_owners.denies(policy, &change.field()) => {
                Some(denied)
            }
            // Unknown is not different: the attribute may have the desired value.
            _ if change.replaces_unknown() => Some(Hold::Unreadable(
                [DeviceField::Attributes].into_iter().collect(),
            )),
            Mode::Approve if !self.approvals.approves(policy, change) => Some(Hold::Approval(None)),
            // After the approval of the policy: a change that nobody has approved needs no room in the limit.
            _ if self.field_owners.is_limited(policy)
                && !self.approvals.is_exempt_from_limit(policy, change) =>
            {
                Some(Hold::Limit(None))
            }
            _ => None,
        }
    }

    /// Adds a policy to those that want a change.
    fn add_owner(&mut self, owners: &mut Owners, owner: PolicyKey, change: &Change) {
        // An approval covers only what the policy was shown.
        let change = &self.field_owners.view(&owner, change);
        let hold = self.hold(&owner, change);
        // A change that the limit holds still counts. Otherwise its policy would want nothing, be released,
        // want the change again, and so on.
        let counts = matches!(hold, None | Some(Hold::Limit(_)));
        if counts && !self.approvals.is_exempt_from_limit(&owner, change) {
            self.found.wanted.push((change.field(), owner.clone()));
        }
        if !self.field_owners.acts(&owner) || self.approvals.has_approved(&owner) {
            self.found.asked.push((owner.clone(), change.clone()));
        }
        match hold {
            None => {
                // A policy owns a key that it sets, not one that it deletes.
                if let Change::Attribute {
                    key,
                    after: Some(_),
                    ..
                } = change
                {
                    self.found.acting.push((key.clone(), owner.clone()));
                }
                owners.acting.push(owner);
            }
            Some(hold @ Hold::Suspended(_)) => {
                owners.suspended.push(owner);
                owners.suspender = Some(hold);
            }
            Some(hold) => owners.waiting.push((owner, hold)),
        }
    }

    fn difference(
        &self,
        owners: impl IntoIterator<Item = PolicyKey>,
        why: Why,
        change: Change,
        hold: Option<Hold>,
    ) -> Option<Difference> {
        let mut owners = owners.into_iter();
        // Without an owner nobody wants the change.
        Some(Difference {
            node: self.device.node_id.clone(),
            device: self.device.label().to_string(),
            change,
            why,
            cause: None,
            owner: owners.next()?,
            others: owners.collect(),
            hold,
        })
    }

    fn compare(&mut self, attributes: Option<&Attributes>) {
        self.settings();
        self.lists();
        if let Some(attributes) = attributes {
            self.attributes(attributes);
        }
    }

    /// Adds a difference for the acting policies. If no policy acts, the difference is only shown: once for
    /// each waiting policy, because each is approved separately.
    fn add(&mut self, owners: &[PolicyKey], why: Why, change: Change) {
        let mut sorted = Owners::default();
        for owner in owners {
            self.add_owner(&mut sorted, owner.clone(), &change);
        }
        let Owners {
            acting,
            waiting,
            suspended,
            suspender,
        } = sorted;
        if !acting.is_empty() {
            // One request does it for all of them, so that nothing is left that someone could approve.
            let waiting = waiting.into_iter().map(|(owner, _)| owner);
            let by_rank = acting.into_iter().chain(waiting).chain(suspended);
            let difference = self.difference(by_rank, why, change, None);
            self.found.differences.extend(difference);
            return;
        }
        for (owner, hold) in waiting {
            let change = self.field_owners.view(&owner, &change);
            let difference = self.difference([owner], why, change, Some(hold));
            self.found.shown.extend(difference);
        }
        let difference = self.difference(suspended, why, change, suspender);
        self.found.shown.extend(difference);
    }

    /// Adds the differences of a list: one for the acting policies, one for each waiting policy, and one for
    /// the suspended policies. A waiting policy is shown what the list becomes once that policy acts too.
    fn list<T: Entry>(
        &mut self,
        claim: &ListOwners<T>,
        before: &BTreeSet<T>,
        change: impl Fn(BTreeSet<T>, BTreeSet<T>) -> ListChange,
    ) {
        let field_owners = self.field_owners;
        let to = |after: &BTreeSet<T>| Change::List(change(before.clone(), after.clone()));
        let field = to(before).field();
        let is_active = |policy: &PolicyKey| field_owners.acts_on(policy, &field);
        let with = |policy: &PolicyKey| claim.settled(before, |q| is_active(q) || q == policy);
        let mut owners = Owners::default();
        let unmet = claim.unmet(before);
        for owner in unmet.iter().cloned().chain(claim.withdrawing(before)) {
            let change = to(&with(&owner));
            self.add_owner(&mut owners, owner, &change);
        }
        let why = |policy: &PolicyKey| why(unmet.contains(policy));
        let Owners {
            acting,
            waiting,
            suspended,
            suspender,
        } = owners;
        // A policy whose change is approved sends it, although its mode alone does not.
        let after = claim.settled(before, |policy| {
            is_active(policy) || acting.contains(policy)
        });
        // A policy that wants what the acting policies bring about anyway needs no approval.
        let (met, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(owner, _)| {
            let with_it = claim.settled(before, |policy| {
                is_active(policy) || acting.contains(policy) || policy == owner
            });
            with_it == after
        });
        let all = claim.settled(before, |policy| {
            let is_suspended = matches!(field_owners.mode(policy), Mode::Suspended(_));
            is_suspended || is_active(policy) || acting.contains(policy)
        });
        // The acting policies bring about what the suspended ones want too, so the difference is theirs as well.
        let (met_while_suspended, suspended) = if all == after {
            (suspended, Vec::new())
        } else {
            (Vec::new(), suspended)
        };
        if after != *before {
            let met = met.into_iter().map(|(owner, _)| owner);
            let why = acting.first().map_or(Why::Declared, why);
            let by_rank = acting.iter().cloned().chain(met).chain(met_while_suspended);
            let difference = self.difference(by_rank, why, to(&after), None);
            self.found.differences.extend(difference);
        }
        for (owner, hold) in waiting {
            let why = why(&owner);
            let change = field_owners.view(&owner, &to(&with(&owner)));
            let difference = self.difference([owner], why, change, Some(hold));
            self.found.shown.extend(difference);
        }
        // One difference for all suspended policies, because nobody approves them one by one.
        let difference = self.difference(suspended, Why::Declared, to(&all), suspender);
        self.found.shown.extend(difference);
    }

    fn settings(&mut self) {
        let (device, field_owners) = (self.device, self.field_owners);
        for (setting, claim) in &field_owners.settings {
            let before = setting.of(device);
            if before.as_ref() != Some(&claim.desired) {
                let change = Change::Setting {
                    before,
                    after: claim.desired.clone(),
                };
                self.add(&claim.owners, Why::Declared, change);
            }
        }
    }

    /// A list that was not reported is not compared.
    fn lists(&mut self) {
        let (device, owners) = (self.device, self.field_owners);
        for observed in ListSetting::ALL.into_iter().filter_map(|it| it.of(device)) {
            match observed {
                ListValue::Tags(before) => {
                    self.list(&owners.tags, &before, |before, after| ListChange::Tags {
                        before: before.into(),
                        after: after.into(),
                    });
                }
                ListValue::EnabledRoutes(before) => {
                    self.list(&owners.enabled_routes, &before, |before, after| {
                        ListChange::EnabledRoutes { before, after }
                    });
                }
                ListValue::ExitNode(before) => self.exit_node(before),
            }
        }
    }

    /// No policy owns one of the two routes, so they have an owner like a setting that is one value.
    fn exit_node(&mut self, before: RouteSet) {
        let field_owners = self.field_owners;
        let Some(claim) = &field_owners.exit_node else {
            return;
        };
        if before == claim.desired {
            return;
        }
        let why = why(!field_owners.clears_exit_node);
        let change = Change::List(ListChange::ExitNode {
            before,
            after: claim.desired.clone(),
        });
        self.add(&claim.owners, why, change);
    }

    /// Adds the one-shot actions of the policies that these owners include.
    fn actions(&mut self, actions: &Actions) {
        for (change, owners) in &actions.changes {
            // The owners of observing and protected policies are compared with the same actions.
            let included: Vec<PolicyKey> = owners
                .iter()
                .filter(|owner| self.field_owners.includes(owner))
                .cloned()
                .collect();
            if !included.is_empty() {
                self.add(&included, Why::Declared, change.clone());
            }
        }
    }

    fn attributes(&mut self, attributes: &Attributes) {
        let field_owners = self.field_owners;
        for (key, claim) in &field_owners.attributes {
            let before = attributes.get(key);
            if !before.is_some_and(|reported| claim.desired.is_met_by(reported)) {
                let change = Change::Attribute {
                    key: key.clone(),
                    before: before.cloned(),
                    after: Some(claim.desired.clone()),
                };
                self.add(&claim.owners, Why::Declared, change);
            }
        }
        for (key, before) in attributes {
            self.remove_undeclared(key, before);
        }
    }

    /// Deletes an attribute that no policy desires: if a policy declared it before, if a policy that set it
    /// has released the device, or if a policy owns all attributes and no policy declares this one.
    fn remove_undeclared(&mut self, key: &AttributeKey, before: &ReportedAttribute) {
        let field_owners = self.field_owners;
        let pruners = field_owners.removed_keys.get(key);
        let clearers = field_owners.released_keys.get(key);
        let named = field_owners.named.contains(key);
        let owners: Vec<_> = pruners
            .into_iter()
            .chain(clearers)
            .flatten()
            .chain(
                field_owners
                    .exact_attribute_owners
                    .iter()
                    // A policy does not prune a key that it declares itself, even with an impossible type.
                    .filter(|owner| !named && !field_owners.is_impossible_for(key, owner)),
            )
            .cloned()
            .collect();
        let why = match (pruners, clearers) {
            (Some(_), _) => Why::NoLongerDeclared,
            (None, Some(_)) => Why::Released,
            (None, None) => Why::NotDeclared,
        };
        let change = Change::Attribute {
            key: key.clone(),
            before: Some(before.clone()),
            after: None,
        };
        self.add(&owners, why, change);
    }
}
