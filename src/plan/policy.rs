use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    ActionRecords, AllowedRules, Bound, DeleteInactive, DeviceIndex, ManagedDevices, OwnedKeys,
    PlanHash, Selector,
};
use crate::api::PolicyField;
use crate::model::{
    AttributeKey, DesiredAttribute, DeviceLabel, NodeId, RouteSet, TagSet, TailnetIpv4,
};

/// Where a policy is kept: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PolicyKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A policy as the plan sees it: parsed, with what only its status can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where it is kept.
    pub key: PolicyKey,
    /// Tells it from a later object of the same name.
    pub uid: String,
    /// Counts the edits of its spec.
    pub generation: i64,
    /// The higher of two priorities ranks first.
    pub priority: i32,
    /// When it was created: of the same priority, the older policy ranks first.
    pub created: Timestamp,
    /// What it is about.
    pub target: Target,
    /// What it wishes.
    pub desired: DesiredSettings,
    /// How much of its lists it owns.
    pub ownership: Ownership,
    /// What is done about a difference.
    pub mode: Mode,
    /// The disruptions that its author agreed to.
    pub allowed: BTreeSet<Disruption>,
    /// What becomes of what it lets go.
    pub deletion: Deletion,
    /// What the tailnet allows it; everything until it has been asked ([`super::Guardrails::admit`]).
    pub allowance: AllowedRules,
}

impl Policy {
    /// Orders policies that claim one field: the first one decides.
    #[must_use]
    pub fn rank(&self) -> (Reverse<i32>, Timestamp, &PolicyKey) {
        (Reverse(self.priority), self.created, &self.key)
    }

    /// Whether it names an attribute whose expiry has passed: it no longer desires it.
    #[must_use]
    pub fn has_expired(&self, key: &AttributeKey, now: Timestamp) -> bool {
        let named = self.desired.attributes.as_ref();
        let desired = named.and_then(|named| named.get(key));
        desired.is_some_and(|desired| desired.has_expired(now))
    }

    /// Whether it is known from a file alone, so that it has no status that could be kept.
    #[must_use]
    pub fn is_in_no_cluster(&self) -> bool {
        self.uid.is_empty()
    }

    /// Its rank, to be kept.
    #[must_use]
    pub fn owned_rank(&self) -> Rank {
        Rank(Reverse(self.priority), self.created, self.key.clone())
    }
}

/// The place of a policy among those that claim one thing; the first one decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Reverse<i32>, Timestamp, PolicyKey);

impl Rank {
    /// Whose it is.
    #[must_use]
    pub fn policy(&self) -> &PolicyKey {
        &self.2
    }
}

/// What a policy has to remember between two looks; kept in its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRecord {
    /// The device that it was bound to when last seen.
    pub bound: Option<Bound>,
    /// The attribute keys that it owns, device by device: declared, or declared before and not
    /// deleted yet. Shared, as thousands of devices may be recorded there.
    pub owned: Arc<OwnedKeys>,
    /// The last request for a look that was granted.
    pub handled: Option<String>,
    /// How many approvals of held plans have been used. Part of the hash of the next one, so that
    /// none works twice.
    pub approvals_used: u32,
    /// The plan that was approved last.
    pub approved: Option<PlanHash>,
    /// The plan that was told last to be held.
    pub held: Option<PlanHash>,
    /// What it would have to clear. Shared, as thousands of devices may stand there.
    pub managed: Arc<ManagedDevices>,
    /// What it has done once. Shared likewise.
    pub actions: Arc<ActionRecords>,
}

/// The values of [`crate::api::LOOK_REQUESTS`] on a policy.
pub type ReconcileRequest = [Option<String>; 2];

impl PolicyRecord {
    /// Whether what `needed` says is remembered here, so that a crash after the next call would
    /// lose nothing. An owner that changed is no reason to wait: it is told with the next report.
    #[must_use]
    pub fn covers(&self, needed: &Self) -> bool {
        self.covers_all_but_keys(needed)
            && (Arc::ptr_eq(&self.owned, &needed.owned) || self.owned.covers(&needed.owned))
    }

    /// With what a status records of the devices of a complete list.
    #[must_use]
    pub fn met(&self, index: &DeviceIndex) -> Self {
        let mut met = self.clone();
        if met.owned.unmet().is_some() {
            Arc::make_mut(&mut met.owned).meet_all(index);
        }
        met
    }

    /// As [`Self::covers`], of what a request for one device rests on: of the keys that the policy
    /// owns, those on this device.
    #[must_use]
    pub fn covers_at(&self, id: &NodeId, needed: &Self) -> bool {
        self.covers_all_but_keys(needed) && self.owned.covers_at(id, &needed.owned)
    }

    /// As [`Self::covers`], of everything but the keys that the policy owns.
    #[must_use]
    pub fn covers_all_but_keys(&self, needed: &Self) -> bool {
        let device = |record: &Self| {
            let bound = record.bound.as_ref();
            bound.map(|bound| (bound.node.clone(), bound.named.clone()))
        };
        device(self) == device(needed)
            && self.approvals_used >= needed.approvals_used
            && (Arc::ptr_eq(&self.managed, &needed.managed) || self.managed.cover(&needed.managed))
            && (Arc::ptr_eq(&self.actions, &needed.actions) || self.actions.cover(&needed.actions))
    }
}

/// What is done about a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is removed.
    #[default]
    Enforce,
    /// It is removed once somebody has approved it; what the policy decides nobody else does.
    Approve,
    /// Nothing is sent, but what the policy decides nobody else does.
    Suspended(Suspender),
    /// Nothing is sent, and nothing decided.
    Observe,
}

/// What keeps a policy from being acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspender {
    /// It says so itself.
    Policy,
    /// Its tailnet does, for all policies.
    Tailnet,
    /// Its spec is invalid, and keeps its precedence until it is corrected.
    Invalid,
}

/// What becomes of what a policy has put on a device, once it lets the device go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletion {
    /// It stays as it is.
    #[default]
    Retain,
    /// It is taken away.
    Clear,
}

/// How much of a list a policy owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListOwnership {
    /// The whole list.
    #[default]
    Exact,
    /// The entries that it names: it only adds.
    AtLeast,
}

/// How many of a device's attributes a policy owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AttributesOwnership {
    /// Those that it names.
    #[default]
    Named,
    /// All but those that another policy names.
    Exact,
}

/// How much of each list a policy owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Of the tags.
    pub tags: ListOwnership,
    /// Of the subnet routes.
    pub enabled_routes: ListOwnership,
    /// Of the attributes.
    pub attributes: AttributesOwnership,
}

/// How a manifest names its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// By the preferred id.
    NodeId(NodeId),
    /// By the older numeric id.
    LegacyId(String),
    /// By its MagicDNS name: the label, or fully qualified.
    Name(String),
    /// By what the machine calls itself.
    Hostname(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeId(id) => write!(f, "nodeId {id}"),
            Self::LegacyId(id) => write!(f, "id {id}"),
            Self::Name(name) => write!(f, "name {name}"),
            Self::Hostname(name) => write!(f, "hostname {name}"),
        }
    }
}

impl Policy {
    /// Its selector, if it is about many devices.
    #[must_use]
    pub fn selector(&self) -> Option<&Selector> {
        match &self.target {
            Target::Selector(selector) => Some(selector),
            Target::Device(_) => None,
        }
    }
}

/// What a policy is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One device.
    Device(DeviceTarget),
    /// Every device that fits, however many.
    Selector(Selector),
}

/// The one device that a policy means, and what must be true of it besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTarget {
    /// How it is named.
    pub identity: Identity,
    /// Tags that it must have, all of them.
    pub tags: TagSet,
    /// Users (login names) of whom one must own it. Empty: anybody.
    pub users: Vec<String>,
}

/// What is wished for a device. `None` is no wish: the setting stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredSettings {
    /// Whether it may take part in the tailnet.
    pub authorized: Option<bool>,
    /// Its tags. Under `Exact` never empty, as the API cannot take the last tag from a device.
    pub tags: Option<TagSet>,
    /// Whether its key never expires.
    pub key_expiry_disabled: Option<bool>,
    /// Its approved subnet routes, those of an exit node aside.
    pub enabled_routes: Option<RouteSet>,
    /// Whether it is approved as an exit node.
    pub exit_node: Option<bool>,
    /// Posture attributes by key. The map names what the policy owns.
    pub attributes: Option<BTreeMap<AttributeKey, DesiredAttribute>>,
    /// Its MagicDNS label.
    pub name: Option<DeviceLabel>,
    /// Its IPv4 address.
    pub ipv4: Option<TailnetIpv4>,
    /// When its key is to be expired, once.
    pub expire_key_at: Option<Timestamp>,
    /// Whether it is deleted once it has been away for long.
    pub delete_inactive: Option<DeleteInactive>,
    /// Fields of an invalid spec that cannot be read: they stay as they are.
    pub unreadable: BTreeSet<PolicyField>,
}

impl DesiredSettings {
    /// Whether something is to be done once.
    #[must_use]
    pub fn has_actions(&self) -> bool {
        self.expire_key_at.is_some() || self.delete_inactive.is_some()
    }
}

/// A change that may cut somebody off and is made only where the policy allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Disruption {
    /// Taking a device out of the tailnet.
    Deauthorize,
    /// Enabling key expiry where the expiry lies in the past: the device must log in again.
    ExpiredKey,
    /// The first tag on a device that is one of many: it takes the device from its user for good.
    FirstTag,
}

impl fmt::Display for Disruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
