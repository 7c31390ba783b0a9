use jiff::Timestamp;

use super::{Change, Claims, Difference, Fleet, Memory, Policy, PolicyKey, Why, guard};
use crate::model::{Attributes, Device, Route, RouteSet};

/// What is to be done about one device, and what could not be compared yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DevicePlan {
    /// The differences, in the order of their fields; each attribute is one.
    pub differences: Vec<Difference>,
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
        self.differences.is_empty() && !self.attributes_unread && !self.routes_unread
    }

    /// Whether no more than the difference itself is known to be missing: all has been compared.
    #[must_use]
    pub fn complete(&self) -> bool {
        !self.attributes_unread && !self.routes_unread
    }
}

/// Compares one device with the wishes of all the policies that hold it.
///
/// `attributes` is `None` until they have been read: unknown is not empty. `fleet` tells who has
/// an address or a name that is wished for.
#[must_use]
pub fn plan_device(
    device: &Device,
    attributes: Option<&Attributes>,
    policies: &[(&Policy, &Memory)],
    fleet: &Fleet,
    now: Timestamp,
) -> DevicePlan {
    let claims = Claims::settle(policies, now);
    let mut found = Found {
        device,
        differences: Vec::new(),
    };
    found.settings(&claims);
    if let Some(routes) = &device.enabled_routes {
        found.routes(&claims, routes);
    }
    if let Some(attributes) = attributes {
        found.attributes(&claims, attributes);
    }
    let mut differences = found.differences;
    guard::hold(&mut differences, device, &claims, policies, fleet, now);
    differences.sort_by_key(|difference| difference.change.field());
    DevicePlan {
        differences,
        attributes_unread: claims.need_attributes() && attributes.is_none(),
        enabled_routes: device.enabled_routes.clone().unwrap_or_default(),
        routes_unread: claims.need_routes() && device.enabled_routes.is_none(),
        claims,
    }
}

struct Found<'a> {
    device: &'a Device,
    differences: Vec<Difference>,
}

impl Found<'_> {
    fn add(&mut self, owner: &PolicyKey, why: Why, change: Change) {
        self.differences.push(Difference {
            node: self.device.node_id.clone(),
            device: self.device.label().to_string(),
            change,
            why,
            owner: owner.clone(),
            hold: None,
        });
    }

    fn settings(&mut self, claims: &Claims) {
        let device = self.device;
        if let Some(claim) = &claims.authorized
            && claim.wish != device.authorized
        {
            let change = Change::Authorized {
                before: device.authorized,
                after: claim.wish,
            };
            self.add(&claim.owner, Why::Declared, change);
        }
        if let Some(claim) = &claims.tags
            && claim.wish != device.tags
        {
            let change = Change::Tags {
                before: device.tags.clone(),
                after: claim.wish.clone(),
            };
            self.add(&claim.owner, Why::Declared, change);
        }
        if let Some(claim) = &claims.key_expiry_disabled
            && claim.wish != device.key_expiry_disabled
        {
            let before = device.key_expiry_disabled;
            let change = Change::KeyExpiryDisabled {
                before,
                after: claim.wish,
            };
            self.add(&claim.owner, Why::Declared, change);
        }
        if let Some(claim) = &claims.name
            && claim.wish != device.label()
        {
            let change = Change::Name {
                before: device.label(),
                after: claim.wish.clone(),
            };
            self.add(&claim.owner, Why::Declared, change);
        }
        if let Some(claim) = &claims.ipv4
            && !device.holds(claim.wish.addr())
        {
            let change = Change::Ipv4 {
                before: device.ipv4,
                after: claim.wish,
            };
            self.add(&claim.owner, Why::Declared, change);
        }
    }

    fn routes(&mut self, claims: &Claims, enabled: &RouteSet) {
        let (exit, subnets): (RouteSet, RouteSet) =
            enabled.iter().partition(|route| route.is_exit_node());
        if let Some(claim) = &claims.enabled_routes
            && claim.wish != subnets
        {
            let change = Change::EnabledRoutes {
                before: subnets,
                after: claim.wish.clone(),
            };
            self.add(&claim.owner, Why::Declared, change);
        }
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
            self.add(&claim.owner, Why::Declared, change);
        }
    }

    fn attributes(&mut self, claims: &Claims, attributes: &Attributes) {
        for (key, claim) in &claims.attributes {
            let before = attributes.get(key);
            if !before.is_some_and(|reported| claim.wish.is_met_by(reported)) {
                let change = Change::Attribute {
                    key: key.clone(),
                    before: before.cloned(),
                    after: Some(claim.wish.clone()),
                };
                self.add(&claim.owner, Why::Declared, change);
            }
        }
        for (key, owner) in &claims.prunes {
            if let Some(before) = attributes.get(key) {
                let change = Change::Attribute {
                    key: key.clone(),
                    before: Some(before.clone()),
                    after: None,
                };
                self.add(owner, Why::NamedNoMore, change);
            }
        }
    }
}
