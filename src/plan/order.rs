use std::collections::{BTreeMap, BTreeSet};

use super::{Change, DevicePlan, Difference, Field};
use crate::model::{
    AttributeKey, DesiredAttribute, DeviceLabel, NodeId, Route, RouteSet, TagSet, TailnetIpv4,
};

/// The attributes to write on one device; `None` deletes the key.
pub type AttributeWrites = BTreeMap<AttributeKey, Option<DesiredAttribute>>;

/// A call that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `POST /device/{id}/authorized`
    SetAuthorized(NodeId, bool),
    /// `POST /device/{id}/tags`: the whole list.
    SetTags(NodeId, TagSet),
    /// `POST /device/{id}/key`
    SetKeyExpiryDisabled(NodeId, bool),
    /// One key: `POST` or `DELETE /device/{id}/attributes/{key}`.
    /// More: `PATCH /tailnet/{t}/device-attributes`.
    WriteAttributes(BTreeMap<NodeId, AttributeWrites>),
    /// `POST /device/{id}/routes`: the whole list, exit-node routes included.
    SetRoutes(NodeId, RouteSet),
    /// `POST /device/{id}/name`
    SetName(NodeId, DeviceLabel),
    /// `POST /device/{id}/ip`
    SetIpv4(NodeId, TailnetIpv4),
    /// `POST /device/{id}/expire`
    ExpireKey(NodeId),
    /// `DELETE /device/{id}`
    Delete(NodeId),
}

impl Call {
    /// The devices that it changes.
    #[must_use]
    pub fn nodes(&self) -> Vec<&NodeId> {
        match self {
            Self::WriteAttributes(nodes) => nodes.keys().collect(),
            Self::SetAuthorized(node, _)
            | Self::SetTags(node, _)
            | Self::SetKeyExpiryDisabled(node, _)
            | Self::SetRoutes(node, _)
            | Self::SetName(node, _)
            | Self::SetIpv4(node, _)
            | Self::ExpireKey(node)
            | Self::Delete(node) => vec![node],
        }
    }
}

/// The next call for a device, and the differences that it removes.
///
/// The order is the one in which no device is let in before its restrictions, and no identity
/// changes after what depends on it: `authorized: false`, tags, key expiry, attributes, routes,
/// name, IPv4, the end of its key, and `authorized: true` last, only once nothing else is left. A
/// device that is to be deleted gets no other call.
///
/// `blocked` names fields that must wait (a call for them failed a moment ago).
#[must_use]
pub fn next_call<'a>(
    plan: &'a DevicePlan,
    blocked: &BTreeSet<Field>,
) -> Option<(Call, Vec<&'a Difference>)> {
    let open = |difference: &&Difference| {
        difference.hold.is_none() && !blocked.contains(&difference.change.field())
    };
    let first = plan
        .differences
        .iter()
        .filter(open)
        .filter(|difference| !(lets_in(&difference.change) && plan.keeps_out(difference)))
        .min_by_key(|difference| step(&difference.change))?;
    let together = plan
        .differences
        .iter()
        .filter(open)
        .filter(|difference| step(&difference.change) == step(&first.change))
        .collect::<Vec<_>>();
    Some((call(&together, plan)?, together))
}

/// Whether a plan still has all these differences of one device, none of them held, and a call that was
/// made from them would still be the same.
#[must_use]
pub fn still_planned(made: &Call, differences: &[&Difference], plan: &DevicePlan) -> bool {
    let still = |difference: &&&Difference| {
        let same = |now: &&Difference| now.change == difference.change && now.hold.is_none();
        plan.differences.iter().any(|now| same(&now))
    };
    let Some(first) = differences.first() else {
        return false;
    };
    let waits = lets_in(&first.change) && plan.keeps_out(first);
    let carries = match made {
        Call::SetRoutes(_, routes) => *routes == wanted_routes(differences, plan),
        _ => true,
    };
    differences.iter().all(|difference| still(&difference)) && !waits && carries
}

fn lets_in(change: &Change) -> bool {
    matches!(change, Change::Authorized { after: true, .. })
}

/// The place of a change in the order; what shares a place goes with one call.
fn step(change: &Change) -> u8 {
    match change {
        Change::Delete { .. } => 0,
        Change::Authorized { after: false, .. } => 1,
        Change::Tags { .. } => 2,
        Change::KeyExpiryDisabled { .. } => 3,
        Change::Attribute { .. } => 4,
        Change::EnabledRoutes { .. } | Change::ExitNode { .. } => 5,
        Change::Name { .. } => 6,
        Change::Ipv4 { .. } => 7,
        Change::ExpireKey { .. } => 8,
        Change::Authorized { after: true, .. } => 9,
        // It is never sent.
        Change::NotCompared { .. } => 10,
    }
}

/// `None` where nothing is known that could be sent.
fn call(together: &[&Difference], plan: &DevicePlan) -> Option<Call> {
    let first = together[0];
    let node = first.node.clone();
    Some(match &first.change {
        Change::Authorized { after, .. } => Call::SetAuthorized(node, *after),
        Change::Tags { after, .. } => Call::SetTags(node, after.clone()),
        Change::KeyExpiryDisabled { after, .. } => Call::SetKeyExpiryDisabled(node, *after),
        Change::Attribute { .. } => {
            let writes = together
                .iter()
                .filter_map(|difference| match &difference.change {
                    Change::Attribute { key, after, .. } => Some((key.clone(), after.clone())),
                    _ => None,
                });
            Call::WriteAttributes(BTreeMap::from([(node, writes.collect())]))
        }
        Change::EnabledRoutes { .. } | Change::ExitNode { .. } => {
            Call::SetRoutes(node, wanted_routes(together, plan))
        }
        Change::Name { after, .. } => Call::SetName(node, after.clone()),
        Change::Ipv4 { after, .. } => Call::SetIpv4(node, *after),
        Change::ExpireKey { .. } => Call::ExpireKey(node),
        Change::Delete { .. } => Call::Delete(node),
        Change::NotCompared { .. } => return None,
    })
}

/// The list replaces all routes, so what nobody decides is carried along as it is.
fn wanted_routes(together: &[&Difference], plan: &DevicePlan) -> RouteSet {
    let mut wanted = plan.enabled_routes.clone();
    for difference in together {
        match &difference.change {
            Change::EnabledRoutes { after, .. } => {
                wanted.retain(Route::is_exit_node);
                wanted.extend(after);
            }
            Change::ExitNode { after, .. } => {
                wanted.retain(|route| !route.is_exit_node());
                if *after {
                    wanted.extend(Route::exit_node());
                }
            }
            _ => {}
        }
    }
    wanted
}
