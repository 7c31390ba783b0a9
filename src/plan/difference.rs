mod aside;
mod device_plan;
mod wanted;

use std::collections::BTreeSet;

pub use self::device_plan::DevicePlan;
use self::wanted::{is_known, wanted};
use super::{
    Change, Claims, Difference, Entry, Field, Hold, ListClaim, Memory, Mode, Permits, Policy,
    PolicyKey, Reaches, Surroundings, Want, Why, acts::Acts, guard, managed,
};
use crate::model::{AttributeKey, Attributes, Device, ReportedAttribute, Route, RouteSet};

/// Policies of which something cannot be read, with what is observed in its place.
fn replaced(
    device: &Device,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &Memory)],
) -> Vec<Option<Policy>> {
    let replaced = policies.iter().map(|(policy, _)| {
        let unreadable = !policy.wishes.unreadable.is_empty();
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
    policies: &[(&Policy, &Memory)],
    around: &Surroundings<'_>,
) -> DevicePlan {
    let replaced = replaced(device, attributes, policies);
    let policies: Vec<(&Policy, &Memory)> = policies
        .iter()
        .zip(&replaced)
        .map(|((policy, memory), replaced)| (replaced.as_ref().unwrap_or(policy), *memory))
        .collect();
    let policies = policies.as_slice();
    let reaches = Reaches::on(device, policies, around.let_go, around.guardrails);
    let parted = reaches.part(policies);
    let denied = aside::denied(device, &reaches, &parted, policies, &replaced);
    let all = policies;
    let policies = &parted.counting(all);
    let mut claims = Claims::settle(
        policies,
        around.let_go,
        &around.clashes.forms,
        around.permits,
        reaches,
        &device.node_id,
        around.now,
    );
    let protected = parted.protected(all);
    claims.set_aside(&protected, &device.node_id, around.now);
    let want = Want::of(&claims, policies);
    let wants = &around.clashes.wants;
    claims.yield_to(&device.node_id, &want, wants, policies, around);
    let acts = Acts::of(device, policies, around);
    let forbidden_acts = Acts::of(device, &protected, around);
    let look = |claims| {
        let mut found = Found::of(device, claims, around.permits);
        found.compare(attributes);
        found.acts(&acts);
        found
    };
    let Found {
        mut differences,
        mut shown,
        wants,
        asked,
        acting,
        ..
    } = look(&claims);
    shown.extend(aside::impossible(
        device, &claims, attributes, policies, around,
    ));
    let waiting = shown
        .iter_mut()
        .filter(|difference| !matches!(difference.hold, Some(Hold::Suspended(_))));
    let guarded = differences.iter_mut().chain(waiting);
    guard::hold(guarded, device, &claims, policies, around);
    let mut wanted_by = wanted(wants, differences.iter().chain(&shown));
    if !is_known(device, attributes, &claims) {
        // A release is known before its devices are read, and must not begin in part.
        let acts = |policy: &&PolicyKey| claims.mode(policy) == Mode::Enforce;
        wanted_by.extend(claims.releasing.iter().filter(acts).cloned());
    }
    let managed =
        attributes.map(|_| managed::keys(&claims, acting, &differences.iter().chain(&shown)));
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
        &forbidden_acts,
        around,
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
        wanted_by,
        asked,
        attributes_unread: claims.need_attributes() && attributes.is_none(),
        enabled_routes: device.enabled_routes.clone().unwrap_or_default(),
        routes_unread: claims.need_routes() && device.enabled_routes.is_none(),
        want,
        managed: managed.unwrap_or_default(),
        claims,
        acts: acts
            .stages
            .into_iter()
            .chain(forbidden_acts.stages)
            .collect(),
        wakes: acts.wakes.into_iter().chain(forbidden_acts.wakes).min(),
    }
}

struct Found<'a> {
    device: &'a Device,
    claims: &'a Claims,
    permits: &'a Permits<'a>,
    differences: Vec<Difference>,
    shown: Vec<Difference>,
    /// Who wishes to change what now, whether the limit holds it or not.
    wants: Vec<(Field, PolicyKey)>,
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

impl<'a> Found<'a> {
    fn of(device: &'a Device, claims: &'a Claims, permits: &'a Permits<'a>) -> Self {
        Self {
            device,
            claims,
            permits,
            differences: Vec::new(),
            shown: Vec::new(),
            wants: Vec::new(),
            asked: Vec::new(),
            acting: Vec::new(),
        }
    }

    /// Why this change is not made for a policy, where it is not; guards aside.
    fn hold(&self, policy: &PolicyKey, change: &Change) -> Option<Hold> {
        match self.claims.mode(policy) {
            Mode::Suspended(by) => Some(Hold::Suspended(by)),
            _ if let Some(barred) = self.claims.bars(policy, &change.field()) => Some(barred),
            Mode::Approve if !self.permits.approves(policy, change) => Some(Hold::Approval(None)),
            _ if self.claims.is_limited(policy) && !self.permits.passes(policy, change) => {
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
        if counts && !self.permits.passes(&owner, change) {
            self.wants.push((change.field(), owner.clone()));
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
        claim: &ListClaim<T>,
        before: &BTreeSet<T>,
        change: impl Fn(BTreeSet<T>, BTreeSet<T>) -> Change,
    ) {
        let claims = self.claims;
        let to = |after: &BTreeSet<T>| change(before.clone(), after.clone());
        let field = to(before).field();
        let acts = |policy: &PolicyKey| claims.acts_on(policy, &field);
        let with = |policy: &PolicyKey| claim.settled(before, |q| acts(q) || q == policy);
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
                Why::LetGo
            }
        };
        let Owners {
            acting,
            waiting,
            suspended,
            suspender,
        } = owners;
        let acts = |policy: &PolicyKey| acts(policy) || acting.contains(policy);
        let after = claim.settled(before, acts);
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
        let all = claim.settled(before, |policy| acts(policy) || is_suspended(policy));
        if all != after {
            let difference = self.difference(suspended, Why::Declared, to(&all), suspender);
            self.shown.extend(difference);
        }
    }

    fn settings(&mut self) {
        let (device, claims) = (self.device, self.claims);
        if let Some(claim) = &claims.authorized
            && claim.wish != device.authorized
        {
            let change = Change::Authorized {
                before: device.authorized,
                after: claim.wish,
            };
            self.add(&claim.owners, Why::Declared, change);
        }
        let change = |before, after| Change::Tags { before, after };
        self.list(&claims.tags, &device.tags, change);
        if let Some(claim) = &claims.key_expiry_disabled
            && claim.wish != device.key_expiry_disabled
        {
            let before = device.key_expiry_disabled;
            let change = Change::KeyExpiryDisabled {
                before,
                after: claim.wish,
            };
            self.add(&claim.owners, Why::Declared, change);
        }
        if let Some(claim) = &claims.name
            && claim.wish != device.label()
        {
            let change = Change::Name {
                before: device.label(),
                after: claim.wish.clone(),
            };
            self.add(&claim.owners, Why::Declared, change);
        }
        if let Some(claim) = &claims.ipv4
            && !device.holds(claim.wish.addr())
        {
            let change = Change::Ipv4 {
                before: device.ipv4,
                after: claim.wish,
            };
            self.add(&claim.owners, Why::Declared, change);
        }
    }

    /// What is to be done once, for those of the policies that are heard here.
    fn acts(&mut self, acts: &Acts) {
        for (change, owners) in &acts.changes {
            let heard = owners.iter().filter(|owner| self.claims.hears(owner));
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
                != if claim.wish {
                    Route::exit_node()
                } else {
                    RouteSet::new()
                }
        {
            let change = Change::ExitNode {
                before: exit,
                after: claim.wish,
            };
            let why = if claims.clears_exit_node {
                Why::LetGo
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
            if !before.is_some_and(|reported| claim.wish.is_met_by(reported)) {
                let change = Change::Attribute {
                    key: key.clone(),
                    before: before.cloned(),
                    after: Some(claim.wish.clone()),
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
        let pruners = claims.prunes.get(key);
        let clearers = claims.clears.get(key);
        let named = claims.named.contains(key);
        let owners: Vec<_> = pruners
            .into_iter()
            .chain(clearers)
            .flatten()
            .chain(
                claims
                    .sweepers
                    .iter()
                    .filter(|sweeper| !named && !claims.is_impossible_for(key, sweeper)),
            )
            .cloned()
            .collect();
        let why = match (pruners, clearers) {
            (Some(_), _) => Why::NamedNoMore,
            (None, Some(_)) => Why::LetGo,
            (None, None) => Why::NotNamed,
        };
        let change = Change::Attribute {
            key: key.clone(),
            before: Some(before.clone()),
            after: None,
        };
        self.add(&owners, why, change);
    }
}
