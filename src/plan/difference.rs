use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    Change, Claims, Difference, Fleet, Hold, LetGo, ListClaim, Memory, Policy, PolicyKey, Why,
    guard,
};
use crate::model::{AttributeKey, Attributes, Device, ReportedAttribute, Route, RouteSet};

/// What is to be done about one device, and what could not be compared yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DevicePlan {
    /// The differences, in the order of their fields; each attribute is one.
    pub differences: Vec<Difference>,
    /// What policies wish that are suspended or only observe: to be shown, never to be removed.
    pub shown: Vec<Difference>,
    /// Who decides what.
    pub claims: Claims,
    /// Attributes are wished for, but have not been read.
    pub attributes_unread: bool,
    /// All routes that are enabled now: what a call that replaces them must carry along.
    pub enabled_routes: RouteSet,
    /// Routes are wished for, but the list did not tell them.
    pub routes_unread: bool,
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

    /// Whether a suspended policy decides something that does not hold.
    #[must_use]
    pub fn lacks_what_is_suspended(&self) -> bool {
        let mut shown = self.shown.iter();
        shown.any(|difference| difference.hold == Some(Hold::Suspended))
    }

    /// What is to be told of one policy.
    pub fn of<'a>(&'a self, policy: &'a PolicyKey) -> impl Iterator<Item = &'a Difference> {
        let all = self.differences.iter().chain(&self.shown);
        all.filter(move |difference| difference.concerns(policy))
    }

    /// Whether no more than the difference itself is known to be missing: all has been compared.
    #[must_use]
    pub fn complete(&self) -> bool {
        !self.attributes_unread && !self.routes_unread
    }
}

/// What decides about a device besides itself and its policies.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// All devices: who has an address or a name that is wished for.
    pub fleet: &'a Fleet,
    /// The time, for expiries.
    pub now: Timestamp,
    /// What policies take from it that have let it go.
    pub let_go: &'a [LetGo],
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
    let claims = Claims::settle(policies, around.let_go, around.now);
    let look = |claims| {
        let mut found = Found::of(device, claims);
        found.compare(attributes);
        found
    };
    let Found {
        mut differences,
        mut shown,
        ..
    } = look(&claims);
    guard::hold(&mut differences, device, &claims, policies, around);
    for observed in claims.observed.values() {
        let found = look(observed).differences.into_iter();
        shown.extend(found.map(|difference| Difference {
            hold: Some(Hold::Observed),
            ..difference
        }));
    }
    differences.sort_by_key(|difference| difference.change.field());
    shown.sort_by_key(|difference| difference.change.field());
    DevicePlan {
        differences,
        shown,
        attributes_unread: claims.need_attributes() && attributes.is_none(),
        enabled_routes: device.enabled_routes.clone().unwrap_or_default(),
        routes_unread: claims.need_routes() && device.enabled_routes.is_none(),
        claims,
    }
}

struct Found<'a> {
    device: &'a Device,
    claims: &'a Claims,
    differences: Vec<Difference>,
    shown: Vec<Difference>,
}

impl<'a> Found<'a> {
    fn of(device: &'a Device, claims: &'a Claims) -> Self {
        Self {
            device,
            claims,
            differences: Vec::new(),
            shown: Vec::new(),
        }
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

    /// A difference for the policies that act; where none of them does, it is only shown.
    fn add(&mut self, owners: &[PolicyKey], why: Why, change: Change) {
        let (acting, suspended): (Vec<_>, Vec<_>) =
            owners.iter().cloned().partition(|o| self.claims.acts(o));
        let mut by_rank = acting.into_iter().chain(suspended);
        let Some(owner) = by_rank.next() else {
            return;
        };
        let acts = self.claims.acts(&owner);
        let difference = Difference {
            node: self.device.node_id.clone(),
            device: self.device.label().to_string(),
            change,
            why,
            owner,
            others: by_rank.collect(),
            hold: (!acts).then_some(Hold::Suspended),
        };
        if acts {
            self.differences.push(difference);
        } else {
            self.shown.push(difference);
        }
    }

    /// A list may be changed for those that act, and differ further for those that are suspended.
    fn list<T: Ord + Clone>(
        &mut self,
        claim: &ListClaim<T>,
        before: &BTreeSet<T>,
        change: impl Fn(BTreeSet<T>, BTreeSet<T>) -> Change,
    ) {
        let claims = self.claims;
        let (acting, suspended): (Vec<_>, Vec<_>) = claim
            .unmet(before)
            .into_iter()
            .partition(|owner| claims.acts(owner));
        let after = claim.settled(before, |policy| claims.acts(policy));
        if after != *before {
            let why = if acting.is_empty() {
                Why::LetGo
            } else {
                Why::Declared
            };
            let owners = [acting, claim.withdrawing(before)].concat();
            self.add(&owners, why, change(before.clone(), after.clone()));
        }
        let all = claim.settled(before, |_| true);
        if all != after {
            self.add(&suspended, Why::Declared, change(before.clone(), all));
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
            if !claims.named.contains(key) {
                self.leftover(key, before);
            }
        }
    }

    /// An attribute that no policy names goes if one named it before, now or on a device that it has
    /// let go, or owns them all.
    fn leftover(&mut self, key: &AttributeKey, before: &ReportedAttribute) {
        let claims = self.claims;
        let pruners = claims.prunes.get(key);
        let clearers = claims.clears.get(key);
        let owners: Vec<_> = pruners
            .into_iter()
            .chain(clearers)
            .flatten()
            .chain(&claims.sweepers)
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
