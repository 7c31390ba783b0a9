use std::{cmp::Reverse, collections::BTreeSet, fmt, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::{
    AttributeKey, AttributesOwnership, Disruption, ListOwnership, ListSetting, NodeId, TagSet,
};
use crate::plan::{
    ActionRecords, AllowedRules, Bound, DesiredSettings, DeviceIndex, KeyExpiries, ManagedDevices,
    OwnedKeys, PlanHash, Rivals, Selector,
};

/// The identity of a policy: `namespace/name`.
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

/// A parsed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace and name.
    pub key: PolicyKey,
    /// Distinguishes it from a later object of the same name.
    pub uid: String,
    /// Counts the edits of its spec.
    pub generation: i64,
    /// A higher priority ranks first.
    pub priority: i32,
    /// When it was created: with the same priority, the older policy ranks first.
    pub created: Timestamp,
    /// The devices that it targets.
    pub target: Target,
    /// The desired settings.
    pub desired: DesiredSettings,
    /// How much of its lists it owns.
    pub ownership: Ownership,
    /// What the controller does about a difference.
    pub mode: Mode,
    /// The disruptions that it allows.
    pub allowed: BTreeSet<Disruption>,
    /// What happens to the settings of a released device.
    pub deletion: Deletion,
    /// The tailnet's rules for it; everything is allowed before it is admitted ([`super::Guardrails::admit`]).
    pub allowance: AllowedRules,
}

impl Policy {
    /// Orders policies that declare one field: the first takes precedence.
    #[must_use]
    pub fn rank(&self) -> (Reverse<i32>, Timestamp, &PolicyKey) {
        (Reverse(self.priority), self.created, &self.key)
    }

    /// Whether it declares an attribute whose expiry has passed, so that it no longer desires it.
    #[must_use]
    pub fn has_expired(&self, key: &AttributeKey, now: Timestamp) -> bool {
        let named = self.desired.attributes.as_ref();
        let desired = named.and_then(|named| named.get(key));
        desired.is_some_and(|desired| desired.has_expired(now))
    }

    /// Whether it comes from a file, so that it has no status.
    #[must_use]
    pub fn is_in_no_cluster(&self) -> bool {
        self.uid.is_empty()
    }

    /// Its rank, owned.
    #[must_use]
    pub fn owned_rank(&self) -> Rank {
        Rank(Reverse(self.priority), self.created, self.key.clone())
    }
}

/// The rank of a policy among those that declare one thing: the first takes precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Reverse<i32>, Timestamp, PolicyKey);

impl Rank {
    /// The policy with this rank.
    #[must_use]
    pub fn policy(&self) -> &PolicyKey {
        &self.2
    }
}

/// What a policy must know after a restart, recorded in its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRecord {
    /// The device that it was bound to when last seen.
    pub bound: Option<Bound>,
    /// The devices that its name fitted when it was last bound to none of several: one of them is bound only
    /// once the others are proven to be gone.
    pub rivals: Option<Arc<Rivals>>,
    /// The attribute keys that it owns on each device: declared, or declared before and not deleted yet.
    /// Shared, because it can have thousands of devices.
    pub owned: Arc<OwnedKeys>,
    /// With which expiry it declared its attribute keys.
    pub key_expiries: KeyExpiries,
    /// The last reconcile request that was handled.
    pub handled: Option<String>,
    /// How many approvals of held plans have been used. Part of the hash of the next plan, so that no
    /// approval works twice.
    pub approvals_used: u32,
    /// The plan that was approved last.
    pub approved: Option<PlanHash>,
    /// The plan that was last reported as held.
    pub held: Option<PlanHash>,
    /// The devices that it would have to clear. Shared, because there can be thousands.
    pub managed: Arc<ManagedDevices>,
    /// Its one-shot actions. Shared too.
    pub actions: Arc<ActionRecords>,
}

/// The values of a policy's annotations that request a reconcile.
pub type ReconcileRequest = [Option<String>; 2];

impl PolicyRecord {
    /// Whether this records everything that `needed` records, so that a crash after the next request would
    /// lose nothing. A changed owner of the bound device need not be recorded before a request: the next
    /// status contains it.
    #[must_use]
    pub fn covers(&self, needed: &Self) -> bool {
        self.covers_all_but_keys(needed)
            && (Arc::ptr_eq(&self.owned, &needed.owned) || self.owned.covers(&needed.owned))
    }

    /// The record, with the keys of a status applied to the devices of a complete list.
    #[must_use]
    pub fn met(&self, index: &DeviceIndex) -> Self {
        let mut met = self.clone();
        if met.owned.unmet().is_some() {
            Arc::make_mut(&mut met.owned).meet_all(index);
        }
        met
    }

    /// As [`Self::covers`], for a request about one device: of the owned keys, only those on this device must
    /// be recorded.
    #[must_use]
    pub fn covers_at(&self, id: &NodeId, needed: &Self) -> bool {
        self.covers_all_but_keys(needed) && self.owned.covers_at(id, &needed.owned)
    }

    /// As [`Self::covers`], for everything but the owned keys.
    #[must_use]
    pub fn covers_all_but_keys(&self, needed: &Self) -> bool {
        let device = |record: &Self| {
            let bound = record.bound.as_ref();
            bound.map(|bound| (bound.node.clone(), bound.named.clone()))
        };
        device(self) == device(needed)
            && self.key_expiries == needed.key_expiries
            && self.approvals_used >= needed.approvals_used
            && (Arc::ptr_eq(&self.managed, &needed.managed) || self.managed.cover(&needed.managed))
            && (Arc::ptr_eq(&self.actions, &needed.actions) || self.actions.cover(&needed.actions))
    }
}

/// What the controller does about a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// It sends the change.
    #[default]
    Enforce,
    /// It sends the change once it has been approved. The policy keeps its precedence meanwhile.
    Approve,
    /// It sends nothing, and the policy keeps its precedence.
    Suspended(Suspender),
    /// It sends nothing, and the policy has no precedence.
    Observe,
}

/// Why a policy is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspender {
    /// By its own `suspend`.
    Policy,
    /// By the `suspend` of its tailnet, for all policies.
    Tailnet,
    /// Its spec is invalid. It keeps its precedence until it is corrected.
    Invalid,
}

/// What happens to the settings of a policy on a device that it releases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Deletion {
    /// They stay as they are.
    #[default]
    Retain,
    /// They are cleared.
    Clear,
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

impl Ownership {
    /// Owns a whole list.
    pub(in crate::plan) fn own_all(&mut self, list: ListSetting) {
        match list {
            ListSetting::Tags => self.tags = ListOwnership::Exact,
            ListSetting::EnabledRoutes => self.enabled_routes = ListOwnership::Exact,
            // There are two routes, and always both are owned.
            ListSetting::ExitNode => {}
        }
    }
}

/// How a manifest names its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// By its `nodeId`.
    NodeId(NodeId),
    /// By its older numeric id.
    LegacyId(String),
    /// By its MagicDNS name: the label, or fully qualified.
    Name(String),
    /// By the hostname that the machine reports.
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
    /// Its selector, if it has one.
    #[must_use]
    pub fn selector(&self) -> Option<&Selector> {
        match &self.target {
            Target::Selector(selector) => Some(selector),
            Target::Device(_) => None,
        }
    }
}

/// The devices that a policy targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One device.
    Device(DeviceTarget),
    /// Every device that the selector matches.
    Selector(Selector),
}

/// The one device that a policy targets, and the conditions on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTarget {
    /// How it is named.
    pub identity: Identity,
    /// Tags that it must have, all of them.
    pub tags: TagSet,
    /// Users (login names), one of whom must own it. Empty: anybody.
    pub users: Vec<String>,
}

impl DeviceTarget {
    /// Whether a record names the device as this target does.
    #[must_use]
    pub fn names(&self, named: &str) -> bool {
        self.identity.to_string() == named
    }
}
