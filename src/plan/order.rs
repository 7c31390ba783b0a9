use std::collections::{BTreeMap, BTreeSet};

use super::{Change, DevicePlan, Difference, Field, ListChange};
use crate::model::{AttributeKey, DesiredAttribute, NodeId, RouteSet, SettingValue, Step, TagSet};

/// The attributes to write on one device; `None` deletes the key.
pub type AttributeWrites = BTreeMap<AttributeKey, Option<DesiredAttribute>>;

/// A request that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `POST /device/{id}/…`, as [`crate::model::Setting::path`] names it.
    Set(NodeId, SettingValue),
    /// `POST /device/{id}/tags`: the whole list.
    SetTags(NodeId, TagSet),
    /// One key: `POST` or `DELETE /device/{id}/attributes/{key}`.
    /// More: `PATCH /tailnet/{t}/device-attributes`.
    WriteAttributes(BTreeMap<NodeId, AttributeWrites>),
    /// `POST /device/{id}/routes`: the whole list, exit-node routes included.
    SetRoutes(NodeId, RouteSet),
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
            Self::Set(node, _)
            | Self::SetTags(node, _)
            | Self::SetRoutes(node, _)
            | Self::ExpireKey(node)
            | Self::Delete(node) => vec![node],
        }
    }
}

/// The next request for a device, and the differences that it removes.
///
/// The order ensures that no device is authorized before its restrictions are in place, and that tags change
/// before the settings that depend on them: `authorized: false`, tags, key expiry, attributes, routes, name,
/// IPv4, expiring the key, and `authorized: true` last, when nothing else is left. A device that is being
/// deleted gets no other request.
///
/// `blocked` has the fields that must wait, for example in backoff.
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
        .filter(|difference| !(difference.change.authorizes() && plan.keeps_out(difference)))
        .min_by_key(|difference| step(&difference.change))?;
    // Routes of both kinds are one list of the API, and attributes one PATCH.
    let together = plan
        .differences
        .iter()
        .filter(open)
        .filter(|difference| step(&difference.change) == step(&first.change))
        .collect::<Vec<_>>();
    Some((call(&together, plan)?, together))
}

/// Whether a plan still has all these differences of one device, none of them held, and would make the same
/// request of them.
#[must_use]
pub fn still_planned(made: &Call, differences: &[&Difference], plan: &DevicePlan) -> bool {
    let Some(first) = differences.first() else {
        return false;
    };
    let waits = first.change.authorizes() && plan.keeps_out(first);
    let is_same_call = match made {
        // It also has routes that no difference has: one that someone approved meanwhile must not go.
        Call::SetRoutes(_, routes) => *routes == all_routes(differences, plan),
        // The differences have everything that the request contains.
        _ => true,
    };
    let are_still_planned = differences.iter().all(|difference| {
        let mut now = plan.differences.iter();
        now.any(|now| now.change == difference.change && now.hold.is_none())
    });
    are_still_planned && !waits && is_same_call
}

/// The place of a change in the order. Changes with the same place share one request.
fn step(change: &Change) -> Step {
    match change {
        Change::Delete { .. } => Step::Delete,
        Change::Setting { after, .. } => after.step(),
        Change::List(change) => change.setting().step(),
        Change::Attribute { .. } => Step::Attributes,
        Change::ExpireKey { .. } => Step::ExpireKey,
        Change::NotCompared { .. } => Step::Never,
    }
}

/// The request for these differences; `None` if they cannot be sent.
fn call(together: &[&Difference], plan: &DevicePlan) -> Option<Call> {
    let first = together[0];
    let node = first.node.clone();
    Some(match &first.change {
        Change::Setting { after, .. } => Call::Set(node, after.clone()),
        Change::List(ListChange::Tags { after, .. }) => Call::SetTags(node, after.clone()),
        Change::List(ListChange::EnabledRoutes { .. } | ListChange::ExitNode { .. }) => {
            Call::SetRoutes(node, all_routes(together, plan))
        }
        Change::Attribute { .. } => {
            let writes = together
                .iter()
                .filter_map(|difference| match &difference.change {
                    Change::Attribute { key, after, .. } => Some((key.clone(), after.clone())),
                    _ => None,
                });
            Call::WriteAttributes(BTreeMap::from([(node, writes.collect())]))
        }
        Change::ExpireKey { .. } => Call::ExpireKey(node),
        Change::Delete { .. } => Call::Delete(node),
        Change::NotCompared { .. } => return None,
    })
}

/// All routes after these differences. The request replaces the whole list, so the routes that no policy owns
/// must be part of it.
fn all_routes(together: &[&Difference], plan: &DevicePlan) -> RouteSet {
    let mut routes = plan.enabled_routes.clone();
    for difference in together {
        if let Change::List(change) = &difference.change {
            change.after().replace_in(&mut routes);
        }
    }
    routes
}
