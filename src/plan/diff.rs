mod aside;
mod device_plan;
mod wanted;

use std::collections::BTreeSet;

pub use self::device_plan::DevicePlan;
use self::wanted::{desired_by, is_known};
use super::{
    ApprovalStates, Change, Difference, Entry, Field, FieldOwners, Hold, ListOwners, Mode,
    PlanContext, Policy, PolicyKey, PolicyPermissions, PolicyRecord, UniqueSetting, Why,
    actions::Actions, declared_keys, hold,
};
use crate::model::{AttributeKey, Attributes, Device, ReportedAttribute, Route, RouteSet};

/// Policies of which something cannot be read, with what is observed in its place.
fn replaced(
    device: &Device,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &PolicyRecord)],
) -> Vec<Option<Policy>> {
    let replaced = policies.iter().map(|(policy, _)| {
        let unreadable = !policy.desired.unreadable.is_empty();
        unreadable.then(|| policy.with_observed(device, attributes))
    });
    replaced.collect()
}

/// Compares one device with the wishes of all the policies that hold it.
///
/// `attributes` is `None` until they have been read: unknown is not empty.
#[must_use]
pub fn plan_device(
    device: &Device,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &PolicyRecord)],
    context: &PlanContext<'_>,
) -> DevicePlan {
    let replaced = replaced(device, attributes, policies);
    let all = policies.iter().zip(&replaced);
    let all: Vec<(&Policy, &PolicyRecord)> = all
        .map(|((policy, record), replaced)| (replaced.as_ref().unwrap_or(policy), *record))
        .collect();
    let all = all.as_slice();
    let permissions = PolicyPermissions::on(device, all, context.released, context.guardrails);
    let split = permissions.part(all);
    let denied = aside::denied(device, &permissions, &split, all, &replaced);
    let policies = &split.counting(all);
    let mut claims = FieldOwners::resolve(
        policies,
        context.released,
        &context.tailnet_wide.types,
        context.approvals,
        permissions,
        &device.node_id,
        context.now,
    );
    let protected = split.protected(all);
    claims.add_denied(&protected, &device.node_id, context.now);
    let unique = UniqueSetting::of(&claims, policies);
    let claimed = &context.tailnet_wide.unique;
    claims.yield_to(&device.node_id, &unique, claimed, policies, context);
    let actions = Actions::of(device, policies, context);
    let denied_actions = Actions::of(device, &protected, context);
    let look = |claims| {
        let mut found = DiffBuilder::of(device, claims, context.approvals);
        found.compare(attributes);
        found.actions(&actions);
        found
    };
    let DiffBuilder {
        mut differences,
        mut shown,
        wanted,
        asked,
        acting,
        ..
    } = look(&claims);
    shown.extend(aside::impossible(
        device, &claims, attributes, policies, context,
    ));
    let waiting = shown
        .iter_mut()
        .filter(|difference| !matches!(difference.hold, Some(Hold::Suspended(_))));
    let guarded = differences.iter_mut().chain(waiting);
    hold::hold(guarded, device, &claims, policies, context);
    let mut wanted_by = desired_by(wanted, differences.iter().chain(&shown));
    if !is_known(device, attributes, &claims) {
        // A release is known before its devices are read, and must not begin in part.
        let enforces = |policy: &&PolicyKey| claims.mode(policy) == Mode::Enforce;
        wanted_by.extend(claims.releasing.iter().filter(enforces).cloned());
    }
    let managed =
        attributes.map(|_| declared_keys::keys(&claims, acting, &differences.iter().chain(&shown)));
    for observed in claims.observed.values() {
        let found = look(observed).differences.into_iter();
        shown.extend(found.map(|difference| Difference {
            hold: Some(Hold::Observed),
            ..difference
        }));
    }
    shown.extend(aside::protected(
        device,
        &claims,
        attributes,
        &denied_actions,
        context,
    ));
    shown.extend(denied);
    // Nothing is changed about a device that is to be deleted.
    let is_deleted = |difference: &Difference| {
        difference.hold.is_none() && matches!(difference.change, Change::Delete { .. })
    };
    if differences.iter().any(is_deleted) {
        differences.retain(is_deleted);
    }
    differences.sort_by_key(|difference| difference.change.field());
    shown.sort_by_key(|difference| difference.change.field());
    DevicePlan {
        differences,
        shown,
        desired_by: wanted_by,
        asked,
        attributes_unread: claims.need_attributes() && attributes.is_none(),
        enabled_routes: device.enabled_routes.clone().unwrap_or_default(),
        routes_unread: claims.need_routes() && device.enabled_routes.is_none(),
        unique,
        managed: managed.unwrap_or_default(),
        owners: claims,
        actions: actions
            .stages
            .into_iter()
            .chain(denied_actions.stages)
            .collect(),
        wakes: actions.wakes.into_iter().chain(denied_actions.wakes).min(),
    }
}

struct DiffBuilder<'a> {
    device: &'a Device,
    claims: &'a FieldOwners,
    permits: &'a ApprovalStates<'a>,
    differences: Vec<Difference>,
    shown: Vec<Difference>,
    /// Who wishes to change what now, whether the limit holds it or not.
    wanted: Vec<(Field, PolicyKey)>,
    asked: Vec<(PolicyKey, Change)>,
    /// For whom an attribute is set now, guards aside.
    acting: Vec<(AttributeKey, PolicyKey)>,
}

/// The policies that wish for one change, each by rank.
#[derive(Default)]
struct Owners {
    /// Those for which it may be made.
    acting: Vec<PolicyKey>,
    /// Those for which somebody must approve it first.
    waiting: Vec<(PolicyKey, Hold)>,
    suspended: Vec<PolicyKey>,
    suspender: Option<Hold>,
}

impl<'a> DiffBuilder<'a> {
    fn of(device: &'a Device, claims: &'a FieldOwners, permits: &'a ApprovalStates<'a>) -> Self {
        Self {
            device,
            claims,
            permits,
            differences: Vec::new(),
            shown: Vec::new(),
            wanted: Vec::new(),
            asked: Vec::new(),
            acting: Vec::new(),
        }
    }

    /// Why this change is not made for a policy, where it is not; guards aside.
    fn hold(&self, policy: &PolicyKey, change: &Change) -> Option<Hold> {
        match self.claims.mode(policy) {
            Mode::Suspended(by) => Some(Hold::Suspended(by)),
            _ if let Some(denied) = self.claims.denies(policy, &change.field()) => Some(denied),
            Mode::Approve if !self.permits.approves(policy, change) => Some(Hold::Approval(None)),
            _ if self.claims.is_limited(policy)
                && !self.permits.is_exempt_from_limit(policy, change) =>
            {
                Some(Hold::Limit(None))
            }
            _ => None,
        }
    }

    /// Sorts a policy in among those that wish for a change.
    fn place(&mut self, owners: &mut Owners, owner: PolicyKey, change: &Change) {
        // Whoever approves it has seen no more.
        let change = &self.claims.view(&owner, change);
        let hold = self.hold(&owner, change);
        let counts = matches!(hold, None | Some(Hold::Limit(_)));
        if counts && !self.permits.is_exempt_from_limit(&owner, change) {
            self.wanted.push((change.field(), owner.clone()));
        }
        if !self.claims.acts(&owner) || self.permits.has_approved(&owner) {
            self.asked.push((owner.clone(), change.clone()));
        }
        match hold {
            None => {
                if let Change::Attribute {
                    key,
                    after: Some(_),
                    ..
                } = change
                {
                    self.acting.push((key.clone(), owner.clone()));
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
        Some(Difference {
            node: self.device.node_id.clone(),
            device: self.device.label().to_string(),
            change,
            why,
            owner: owners.next()?,
            others: owners.collect(),
            hold,
        })
    }

    fn compare(&mut self, attributes: Option<&Attributes>) {
        self.settings();
        if let Some(routes) = &self.device.enabled_routes {
            self.routes(routes);
        }
        if let Some(attributes) = attributes {
            self.attributes(attributes);
        }
    }

    /// A difference for the policies that act; where none of them does, it is only shown: for each
    /// policy that waits by itself, as each is approved by itself.
    fn add(&mut self, owners: &[PolicyKey], why: Why, change: Change) {
        let mut sorted = Owners::default();
        for owner in owners {
            self.place(&mut sorted, owner.clone(), &change);
        }
        let Owners {
            acting,
            waiting,
            suspended,
            suspender,
        } = sorted;
        if !acting.is_empty() {
            let waiting = waiting.into_iter().map(|(owner, _)| owner);
            let by_rank = acting.into_iter().chain(waiting).chain(suspended);
            let difference = self.difference(by_rank, why, change, None);
            self.differences.extend(difference);
            return;
        }
        for (owner, hold) in waiting {
            let change = self.claims.view(&owner, &change);
            let difference = self.difference([owner], why, change, Some(hold));
            self.shown.extend(difference);
        }
        let difference = self.difference(suspended, why, change, suspender);
        self.shown.extend(difference);
    }

    /// A list may be changed for those that act, and differ further for each that waits and for those
    /// that are suspended. Who waits is asked about what the list becomes once that policy acts too.
    fn list<T: Entry>(
        &mut self,
        claim: &ListOwners<T>,
        before: &BTreeSet<T>,
        change: impl Fn(BTreeSet<T>, BTreeSet<T>) -> Change,
    ) {
        let claims = self.claims;
        let to = |after: &BTreeSet<T>| change(before.clone(), after.clone());
        let field = to(before).field();
        let is_active = |policy: &PolicyKey| claims.acts_on(policy, &field);
        let with = |policy: &PolicyKey| claim.settled(before, |q| is_active(q) || q == policy);
        let mut owners = Owners::default();
        let unmet = claim.unmet(before);
        for owner in unmet.iter().cloned().chain(claim.withdrawing(before)) {
            let change = to(&with(&owner));
            self.place(&mut owners, owner, &change);
        }
        let why = |policy: &PolicyKey| {
            if unmet.contains(policy) {
                Why::Declared
            } else {
                Why::Released
            }
        };
        let Owners {
            acting,
            waiting,
            suspended,
            suspender,
        } = owners;
        let sends = |policy: &PolicyKey| is_active(policy) || acting.contains(policy);
        let after = claim.settled(before, sends);
        let waiting = waiting.into_iter().map(|(owner, hold)| {
            let after = with(&owner);
            (owner, hold, after)
        });
        // Who wishes what is done anyway need not be asked.
        let (met, waiting): (Vec<_>, Vec<_>) = waiting.partition(|(.., own)| *own == after);
        if after != *before {
            let met = met.into_iter().map(|(owner, ..)| owner);
            let why = acting.first().map_or(Why::Declared, why);
            let by_rank = acting.iter().cloned().chain(met);
            let difference = self.difference(by_rank, why, to(&after), None);
            self.differences.extend(difference);
        }
        for (owner, hold, own) in waiting {
            let why = why(&owner);
            let change = claims.view(&owner, &to(&own));
            let difference = self.difference([owner], why, change, Some(hold));
            self.shown.extend(difference);
        }
        let is_suspended = |policy: &PolicyKey| matches!(claims.mode(policy), Mode::Suspended(_));
        let all = claim.settled(before, |policy| is_active(policy) || is_suspended(policy));
        if all != after {
            let difference = self.difference(suspended, Why::Declared, to(&all), suspender);
            self.shown.extend(difference);
        }
    }

    fn settings(&mut self) {
        let (device, claims) = (self.device, self.claims);
        if let Some(claim) = &claims.authorized
            && claim.desired != device.authorized
        {
            let change = Change::Authorized {
                before: device.authorized,
                after: claim.desired,
            };
            self.add(&claim.owners, Why::Declared, change);
        }
        let change = |before, after| Change::Tags { before, after };
        self.list(&claims.tags, &device.tags, change);
        if let Some(claim) = &claims.key_expiry_disabled
            && claim.desired != device.key_expiry_disabled
        {
            let before = device.key_expiry_disabled;
            let change = Change::KeyExpiryDisabled {
                before,
                after: claim.desired,
            };
            self.add(&claim.owners, Why::Declared, change);
        }
        if let Some(claim) = &claims.name
            && claim.desired != device.label()
        {
            let change = Change::Name {
                before: device.label(),
                after: claim.desired.clone(),
            };
            self.add(&claim.owners, Why::Declared, change);
        }
        if let Some(claim) = &claims.ipv4
            && !device.holds(claim.desired.addr())
        {
            let change = Change::Ipv4 {
                before: device.ipv4,
                after: claim.desired,
            };
            self.add(&claim.owners, Why::Declared, change);
        }
    }

    /// What is to be done once, for those of the policies that are heard here.
    fn actions(&mut self, actions: &Actions) {
        for (change, owners) in &actions.changes {
            let heard = owners.iter().filter(|owner| self.claims.includes(owner));
            let heard: Vec<PolicyKey> = heard.cloned().collect();
            if !heard.is_empty() {
                self.add(&heard, Why::Declared, change.clone());
            }
        }
    }

    fn routes(&mut self, enabled: &RouteSet) {
        let claims = self.claims;
        let (exit, subnets): (RouteSet, RouteSet) =
            enabled.iter().partition(|route| route.is_exit_node());
        let change = |before, after| Change::EnabledRoutes { before, after };
        self.list(&claims.enabled_routes, &subnets, change);
        if let Some(claim) = &claims.exit_node
            && exit
                != if claim.desired {
                    Route::exit_node()
                } else {
                    RouteSet::new()
                }
        {
            let change = Change::ExitNode {
                before: exit,
                after: claim.desired,
            };
            let why = if claims.clears_exit_node {
                Why::Released
            } else {
                Why::Declared
            };
            self.add(&claim.owners, why, change);
        }
    }

    fn attributes(&mut self, attributes: &Attributes) {
        let claims = self.claims;
        for (key, claim) in &claims.attributes {
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
            self.leftover(key, before);
        }
    }

    /// An attribute that no policy desires goes if one desired it before, now or on a device that it
    /// has released, or if one owns them all and nobody names it.
    fn leftover(&mut self, key: &AttributeKey, before: &ReportedAttribute) {
        let claims = self.claims;
        let pruners = claims.removed_keys.get(key);
        let clearers = claims.released_keys.get(key);
        let named = claims.named.contains(key);
        let owners: Vec<_> = pruners
            .into_iter()
            .chain(clearers)
            .flatten()
            .chain(
                claims
                    .exact_attribute_owners
                    .iter()
                    .filter(|sweeper| !named && !claims.is_impossible_for(key, sweeper)),
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
