use std::{cmp::Reverse, collections::BTreeSet};

use jiff::Timestamp;

use super::{DesiredSettings, Mode, PolicyKey, Target};
use crate::{
    model::{AttributeKey, AttributesOwnership, Disruption, ListOwnership, ListSetting},
    plan::{AllowedRules, Selector},
};

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
        // The key last, so that two policies never rank the same, and each process decides alike
        // (docs/decisions/0005).
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
