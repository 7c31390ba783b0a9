//! Invariants of every request at the moment when it is sent.

use std::{collections::BTreeSet, time::Duration};

use super::{World, told::may_send};
use crate::{
    model::{AttributeKey, NodeId, PolicyField, Route, SettingValue, TagSet},
    plan::{
        Approvals, AttributeType, AttributesOwnership, Call, DeviceIndex, ListOwnership, Mode,
        Policy, PolicyRecord, Target, bind_policy, may_change,
    },
    tailnet::{Request, Ticket},
};

impl World {
    pub fn check(&mut self, ticket: Ticket, request: &Request) {
        if *request == Request::Devices {
            self.reported.lists.insert(ticket);
            let under_way = self
                .reported
                .in_flight
                .values()
                .filter(|r| **r == Request::Devices);
            assert!(under_way.count() <= 2, "lists pile up");
        } else {
            let in_flight = self
                .reported
                .in_flight
                .values()
                .filter(|r| **r != Request::Devices);
            assert!(in_flight.count() < 60, "requests pile up");
            assert!(self.reported.leading, "{request:?} without the lead");
            assert!(
                self.reported.listed,
                "{request:?} before all policies are known"
            );
            assert!(self.reported.list_seen, "{request:?} before the first list");
        }
        if let Request::Write(call) = request {
            for other in self.reported.in_flight.values() {
                if let Request::Write(other) = other {
                    let shared = other.nodes().iter().any(|id| call.nodes().contains(id));
                    let both_attributes = matches!(
                        (call, other),
                        (Call::WriteAttributes(_), Call::WriteAttributes(_))
                    );
                    assert!(!shared || both_attributes, "{call:?} beside {other:?}");
                }
            }
            for id in call.nodes() {
                let listed = self.reported.last_list.contains(id);
                assert!(listed, "{call:?}, but the last list lacks {id}");
            }
            self.reported.check_answers(call, self.clock);
            self.check_reserved(call);
            self.check_call(call);
            self.check_precedence(call);
            self.check_guards(call);
        }
        self.reported.in_flight.insert(ticket, request.clone());
    }

    /// Under a limit, the tailnet's status names a device before it is changed.
    pub fn check_reserved(&self, call: &Call) {
        let limit = self.settings.limit.devices(self.model.devices.len());
        // A request may have been decided before there was a limit.
        if limit.is_none() || self.clock < self.limited_since + Duration::from_mins(2) {
            return;
        }
        for id in call.nodes() {
            let is_reserved = self.tailnet.reserved.contains_key(id);
            assert!(is_reserved, "{call:?}, and {id} is not reserved");
        }
    }

    /// A policy whose spec is invalid keeps its precedence.
    pub fn check_precedence(&self, call: &Call) {
        let names: fn(&Policy) -> bool = match call {
            Call::Set(_, SettingValue::Authorized(_)) => |p| p.desired.authorized().is_some(),
            Call::Set(_, SettingValue::KeyExpiryDisabled(_)) => {
                |p| p.desired.key_expiry_disabled().is_some()
            }
            Call::SetTags(..) => {
                |p| p.desired.tags.is_some() && p.ownership.tags == ListOwnership::Exact
            }
            _ => return,
        };
        for id in call.nodes() {
            let holders = self.reported.holders(id).map(|(policy, _)| policy);
            let deciding = holders.filter(|policy| policy.mode != Mode::Observe && names(policy));
            let first = deciding.min_by_key(|policy| policy.rank());
            // A policy that ranks above may add to the list of an invalid one.
            let adding = |policy: &Policy| {
                let rank = policy.owned_rank();
                let above = self.reported.holders(id).map(|(policy, _)| policy);
                above.filter(move |other| {
                    other.ownership.tags == ListOwnership::AtLeast && other.owned_rank() < rank
                })
            };
            let adds = |policy: &Policy| adding(policy).next().is_some();
            let added = |policy: &Policy| -> TagSet {
                let tags = adding(policy).filter_map(|other| other.desired.tags.as_ref());
                tags.flatten().cloned().collect()
            };
            // Another policy may declare the same value.
            let agrees = |policy: &Policy| match call {
                Call::Set(_, SettingValue::Authorized(after)) => {
                    policy.desired.authorized() == Some(*after)
                }
                Call::Set(_, SettingValue::KeyExpiryDisabled(after)) => {
                    policy.desired.key_expiry_disabled() == Some(*after)
                }
                // Policies that rank above may add to the value that both declare.
                Call::SetTags(_, after) if is_declared_with(after, policy, &added(policy)) => true,
                Call::SetTags(_, after) => {
                    let device = self.model.devices.get(id);
                    device.is_none_or(|device| {
                        let mut added = after.difference(&device.tags);
                        let declared = policy.desired.tags.as_ref();
                        let are_declared =
                            added.all(|tag| declared.is_some_and(|tags| tags.contains(tag)));
                        device.tags.is_subset(after) && (are_declared || adds(policy))
                    })
                }
                _ => false,
            };
            let invalid = first.filter(|policy| policy.is_invalid() && !agrees(policy));
            // A device that left its selector since is no longer held back.
            let invalid = invalid.filter(|policy| self.reported.still_selects(policy, id));
            assert!(invalid.is_none(), "{call:?} takes from {invalid:?}");
        }
    }

    /// A request changes only fields that a policy declares, on a device that the policy is known to
    /// target.
    pub fn check_call(&self, call: &Call) {
        let named = |id: &NodeId, desired: fn(&Policy) -> bool| {
            assert!(
                self.reported.names(id, desired),
                "{call:?} is named by no policy"
            );
        };
        match call {
            Call::Set(id, SettingValue::Authorized(_)) => {
                named(id, |p| p.desired.authorized().is_some());
            }
            Call::SetTags(id, tags) => {
                assert!(!tags.is_empty());
                named(id, |p| p.desired.tags.is_some());
                let replaces = |p: &Policy| {
                    p.desired.tags.is_some() && p.ownership.tags == ListOwnership::Exact
                };
                let before = self.model.devices.get(id).map(|device| &device.tags);
                if !self.reported.names(id, replaces) && !self.has_drifted(id) {
                    let kept = before.is_none_or(|before| before.is_subset(tags));
                    assert!(kept, "{call:?} takes tags away: {before:?}");
                }
            }
            Call::Set(id, SettingValue::KeyExpiryDisabled(_)) => {
                named(id, |p| p.desired.key_expiry_disabled().is_some());
            }
            Call::Set(id, SettingValue::Name(_)) => named(id, |p| p.desired.name().is_some()),
            Call::Set(id, SettingValue::Ipv4(_)) => named(id, |p| p.desired.ipv4().is_some()),
            Call::SetRoutes(id, routes) => {
                let due = self.reported.due(id).routes;
                let owns = |p: &Policy| {
                    p.desired.enabled_routes.is_some() || p.desired.exit_node.is_some()
                };
                if due.is_empty() {
                    named(id, owns);
                }
                if self.has_drifted(id) {
                    return;
                }
                let before = self
                    .model
                    .devices
                    .get(id)
                    .and_then(|d| d.enabled_routes.as_ref());
                // Entries that are removed from a released device do not count here.
                let kept = |exit: bool| {
                    let side =
                        |route: &&Route| route.is_exit_node() == exit && !due.contains(route);
                    before.is_none_or(|before| {
                        before.iter().filter(side).eq(routes.iter().filter(side))
                    })
                };
                if !self.reported.names(id, |p| p.desired.exit_node.is_some()) {
                    assert!(kept(true), "{call:?} touches the exit node: {before:?}");
                }
                if !self
                    .reported
                    .names(id, |p| p.desired.enabled_routes.is_some())
                {
                    assert!(kept(false), "{call:?} touches the routes: {before:?}");
                }
                let replaces = |p: &Policy| {
                    p.desired.enabled_routes.is_some()
                        && p.ownership.enabled_routes == ListOwnership::Exact
                };
                if !self.reported.names(id, replaces) {
                    let mut before = before.into_iter().flatten();
                    let kept =
                        before.all(|r| r.is_exit_node() || due.contains(r) || routes.contains(r));
                    assert!(kept, "{call:?} withdraws routes");
                }
            }
            Call::ExpireKey(id) => self.check_expiry(id),
            Call::Delete(id) => self.check_deletion(id),
            Call::WriteAttributes(nodes) => {
                assert!(nodes.len() <= 50, "a batch of {}", nodes.len());
                for (id, writes) in nodes {
                    for (key, desired) in writes {
                        self.check_attribute(id, key, desired.is_none());
                        if let Some(desired) = desired {
                            self.check_form(&AttributeType::of(key, desired));
                        }
                    }
                }
            }
        }
    }

    /// A key is expired only for a policy whose record says that the expiry began in time, while the device
    /// still has the key of that time.
    pub fn check_expiry(&self, id: &NodeId) {
        let now = self.wall();
        let device = &self.reported.devices[id];
        let begun = |(policy, record): &(Policy, PolicyRecord)| {
            let at = policy.desired.expire_key_at?;
            let expiry = record.actions.expiries.get(&at)?;
            let same = expiry.started.get(id) == Some(&device.expires);
            let joined = device.created.is_some_and(|created| created <= at);
            let known = same && joined && !expiry.done.contains(id);
            Some(known && may_send(policy, record) && at >= policy.created && at <= now)
        };
        let holders: Vec<_> = self.reported.holders(id).collect();
        let begun = holders.iter().any(|holder| begun(holder) == Some(true));
        assert!(begun, "the key of {id} is expired for nobody: {holders:?}");
        assert!(!device.external && !device.key_expiry_disabled);
    }

    /// A device is deleted only if the last reports show it as inactive, for a policy whose record says
    /// that the deletion began, within the policy's daily count.
    pub fn check_deletion(&self, id: &NodeId) {
        let now = self.wall();
        let device = &self.reported.devices[id];
        let away = now.duration_since(device.last_seen.unwrap());
        let begun = |(policy, record): &(Policy, PolicyRecord)| {
            let delete_inactive = policy.desired.delete_inactive?;
            let records = &record.actions.deletions;
            let day = jiff::SignedDuration::from_hours(24);
            let counting = records
                .values()
                .filter(|it| now.duration_since(it.at) < day);
            assert!(
                counting.count() <= delete_inactive.max_per_day as usize,
                "{records:?}"
            );
            let begun = records.get(id).is_some_and(|record| !record.done);
            let of_many = matches!(policy.target, Target::Selector(_));
            Some(
                begun
                    && of_many
                    && may_send(policy, record)
                    && away >= delete_inactive.inactive_for,
            )
        };
        let holders: Vec<_> = self.reported.holders(id).collect();
        let begun = holders.iter().any(|holder| begun(holder) == Some(true));
        assert!(begun, "{id} is deleted for nobody: {holders:?}");
        assert!(!device.external && device.connected == Some(false));
    }

    /// No request makes a change that the guardrails deny.
    pub fn check_guards(&self, call: &Call) {
        let fields: &[PolicyField] = match call {
            Call::Set(_, SettingValue::Authorized(_)) => &[PolicyField::Authorized],
            Call::SetTags(..) => &[PolicyField::Tags],
            Call::Set(_, SettingValue::KeyExpiryDisabled(_)) => &[PolicyField::KeyExpiry],
            Call::WriteAttributes(_) => &[PolicyField::PostureAttributes],
            Call::SetRoutes(..) => &[PolicyField::EnabledRoutes, PolicyField::ExitNode],
            Call::Set(_, SettingValue::Name(_)) => &[PolicyField::Name],
            Call::Set(_, SettingValue::Ipv4(_)) => &[PolicyField::Ipv4],
            Call::ExpireKey(_) => &[PolicyField::ExpireKeyAt],
            Call::Delete(_) => &[PolicyField::DeleteInactive],
        };
        for id in call.nodes() {
            assert!(self.reported.permit(id, fields), "{call:?} is forbidden");
            let Some(device) = self.model.devices.get(id).filter(|_| !self.has_drifted(id)) else {
                continue;
            };
            match call {
                Call::SetTags(_, tags) => {
                    let mut changed = device.tags.symmetric_difference(tags);
                    assert!(changed.all(|tag| self.reported.own(id, tag)), "{call:?}");
                }
                Call::SetRoutes(_, routes) => {
                    let before = device.enabled_routes.iter().flatten().copied().collect();
                    let mut changed = routes.symmetric_difference(&before);
                    let own = |route: &Route| route.is_exit_node() || self.reported.own(id, route);
                    assert!(changed.all(own), "{call:?}: {before:?}");
                }
                _ => {}
            }
        }
    }

    /// Whether someone else changed the device so recently that a read may not show it.
    pub fn has_drifted(&self, id: &NodeId) -> bool {
        let drifted = self.drifted.get(id);
        drifted.is_some_and(|at| self.clock < *at + Duration::from_secs(15))
    }

    /// No policy of higher precedence declares the key with another type, unless it may set the key nowhere
    /// or the tailnet cannot have that type.
    pub fn check_form(&self, attribute_type: &AttributeType) {
        let decides = |view: TypeView| self.first_type(attribute_type, view);
        assert!(
            TypeView::all().any(|view| decides(view).is_none_or(|it| it == *attribute_type)),
            "{:?} decides, not {attribute_type:?}",
            decides(TypeView(0))
        );
    }

    /// The type of the policy that takes precedence for the key.
    fn first_type(&self, attribute_type: &AttributeType, view: TypeView) -> Option<AttributeType> {
        let told = &self.reported;
        let kept = told.kept.values().filter(|_| view.has(TypeView::MISSING));
        let kept = kept.filter(|it| !told.devices.contains_key(&it.node_id));
        let fleet = DeviceIndex::new(told.devices.values().chain(kept).cloned());
        let allows = |policy: &Policy, id: &NodeId| {
            let former = told.previous.get(id).filter(|_| view.has(TypeView::FORMER));
            let mut seen = fleet.get(id).into_iter().chain(former);
            let field = PolicyField::PostureAttributes;
            seen.any(|it| told.guards.guardrails.denies(policy, field, it).is_none())
        };
        let deciding = told.policies.values().filter(|(policy, record)| {
            let binding = bind_policy(policy, record, &Approvals::default(), &fleet);
            let mut targets = binding.nodes();
            policy.mode != Mode::Observe
                && !(told.deleting.contains(&policy.key)
                    && !(view.has(TypeView::INVALID) && policy.is_invalid()))
                && is_decided(policy, record)
                && targets.any(|id| {
                    (view.has(TypeView::UNVERIFIED) || !told.unverified_tags.contains(id))
                        && allows(policy, id)
                })
        });
        let deciding = deciding.map(|(policy, _)| policy);
        let present: BTreeSet<AttributeType> =
            told.read.values().flat_map(AttributeType::all).collect();
        let can_hold = |claim: &AttributeType| {
            let mut present = present.iter();
            *claim == *attribute_type
                || (view.has(TypeView::REFUSED) || !told.refused.contains(claim))
                    && !present.any(|it| it.key.folded() == claim.key.folded() && it != claim)
        };
        let claims = deciding.flat_map(|policy| {
            let desired = policy.desired.attributes.iter().flatten();
            desired.map(move |(key, desired)| (policy.rank(), key, desired))
        });
        let now = self.wall();
        let first = claims
            .filter(|(_, key, _)| key.folded() == attribute_type.key.folded())
            .filter(|(.., desired)| desired.expiry.is_none_or(|expiry| expiry > now))
            .filter(|(_, key, desired)| can_hold(&AttributeType::of(key, desired)))
            .min_by_key(|(rank, ..)| *rank);
        first.map(|(_, key, desired)| AttributeType::of(key, desired))
    }

    /// An attribute is written only for a policy that is recorded as its owner there. It is deleted only if
    /// a version of that policy declared it.
    pub fn check_attribute(&self, id: &NodeId, key: &AttributeKey, deletes: bool) {
        let device = self.reported.devices.get(id);
        let owned = |(policy, record): &(Policy, PolicyRecord)| {
            let recorded = device.is_some_and(|device| record.owned.at(device).contains(key));
            let fact = (policy.uid.clone(), key.clone(), id.clone());
            may_send(policy, record)
                && policy.desired.attributes.is_some()
                && ((recorded && (!deletes || self.reported.managed.contains(&fact)))
                    || policy.ownership.attributes == AttributesOwnership::Exact)
        };
        let holders: Vec<_> = self.reported.holders(id).collect();
        assert!(
            holders.iter().any(|holder| owned(holder)) || self.reported.due(id).keys.contains(key),
            "{key} of {id} is owned by no policy: {holders:?}"
        );
    }
}

/// What the engine may take for true when it decides the type of a key.
#[derive(Debug, Clone, Copy)]
struct TypeView(u8);

impl TypeView {
    /// Devices whose tags were written and not read since count: they may already match a policy, or not.
    const UNVERIFIED: u8 = 1;
    /// A list may be older than a read, so that a policy may set the key on a device as listed, and not on the
    /// device as read.
    const FORMER: u8 = 2;
    /// What the API refused may be tried again, and counts until it is refused again.
    const REFUSED: u8 = 4;
    /// Devices that the last list lacks count, until they are proven to be gone.
    const MISSING: u8 = 8;
    /// A policy that is being deleted counts until it is gone, if its spec cannot be read.
    const INVALID: u8 = 16;

    fn all() -> impl Iterator<Item = Self> {
        (0..32).map(Self)
    }

    const fn has(self, part: u8) -> bool {
        self.0 & part != 0
    }
}

/// Whether these are the tags that a policy declares, with some that other policies add.
fn is_declared_with(tags: &TagSet, policy: &Policy, added: &TagSet) -> bool {
    let declared = policy.desired.tags.as_ref();
    declared.is_some_and(|declared| {
        let mut others = tags.difference(declared);
        declared.is_subset(tags) && others.all(|tag| added.contains(tag))
    })
}

/// Whether a policy that names a device has found it. A name needs two lists: until then it targets nothing.
pub fn is_decided(policy: &Policy, record: &PolicyRecord) -> bool {
    match &policy.target {
        Target::Device(target) if may_change(&target.identity) => {
            let named = target.identity.to_string();
            record
                .bound
                .as_ref()
                .is_some_and(|bound| bound.named == named)
        }
        _ => true,
    }
}
