use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Disruption, Field, Memory, Policy, PolicyKey};
use crate::model::{AttributeKey, AttributeWish, DeviceLabel, RouteSet, TagSet, TailnetIpv4};

/// A wish that decides a field, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<T> {
    /// What is wished.
    pub wish: T,
    /// The policy that ranks first among those that wish something here.
    pub owner: PolicyKey,
}

/// A field that a policy lost to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which one.
    pub field: Field,
    /// The policy whose wish does not count here.
    pub loser: PolicyKey,
    /// The policy whose wish does.
    pub winner: PolicyKey,
}

/// Who decides what about one device.
///
/// | policies, the older first          | tags    | keyExpiry | conflict        |
/// |------------------------------------|---------|-----------|-----------------|
/// | a: tags [tag:x]                    | a       |           |                 |
/// | a: tags [tag:x]; b: tags [tag:y]   | a       |           | b lost tags     |
/// | a: tags [tag:x]; b: tags [tag:x]   | a       |           | none: same wish |
/// | a: tags [tag:x]; b: keyExpiry      | a       | b         |                 |
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who decides `authorized`.
    pub authorized: Option<Claim<bool>>,
    /// Who decides `tags`.
    pub tags: Option<Claim<TagSet>>,
    /// Who decides `keyExpiry`.
    pub key_expiry_disabled: Option<Claim<bool>>,
    /// Who decides `enabledRoutes`.
    pub enabled_routes: Option<Claim<RouteSet>>,
    /// Who decides `exitNode`.
    pub exit_node: Option<Claim<bool>>,
    /// Who decides each attribute.
    pub attributes: BTreeMap<AttributeKey, Claim<AttributeWish>>,
    /// The attributes to delete if they are there: named before and by nobody any more.
    pub prunes: BTreeMap<AttributeKey, PolicyKey>,
    /// Attributes whose wished expiry has passed: no wish any more.
    pub expired: BTreeMap<AttributeKey, PolicyKey>,
    /// Who decides `name`.
    pub name: Option<Claim<DeviceLabel>>,
    /// Who decides `ipv4`.
    pub ipv4: Option<Claim<TailnetIpv4>>,
    /// What was lost, and to whom.
    pub conflicts: Vec<Conflict>,
    allowed: BTreeMap<PolicyKey, BTreeSet<Disruption>>,
}

impl Claims {
    /// Settles who decides, among the policies that hold one device.
    #[must_use]
    pub fn settle(policies: &[(&Policy, &Memory)], now: Timestamp) -> Self {
        let mut ranked = policies.to_vec();
        ranked.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        let mut claims = Self::default();
        for (policy, _) in &ranked {
            claims.admit(policy, now);
        }
        for (policy, memory) in &ranked {
            claims.prune(policy, memory, &ranked);
        }
        claims
    }

    /// Whether attributes must be known to compare.
    #[must_use]
    pub fn need_attributes(&self) -> bool {
        !self.attributes.is_empty() || !self.prunes.is_empty()
    }

    /// When the next attribute wish ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.attributes
            .values()
            .filter_map(|claim| claim.wish.expiry)
            .min()
    }

    /// Whether something is wished for the routes of any kind.
    #[must_use]
    pub fn need_routes(&self) -> bool {
        self.enabled_routes.is_some() || self.exit_node.is_some()
    }

    /// Whether the routes call would carry entries that nobody here decides.
    #[must_use]
    pub fn share_routes(&self) -> bool {
        self.enabled_routes.is_none() || self.exit_node.is_none()
    }

    /// Whether this policy's author agreed to this disruption.
    #[must_use]
    pub fn allows(&self, owner: &PolicyKey, disruption: Disruption) -> bool {
        self.allowed
            .get(owner)
            .is_some_and(|allowed| allowed.contains(&disruption))
    }

    fn admit(&mut self, policy: &Policy, now: Timestamp) {
        let Self { conflicts, .. } = self;
        let key = &policy.key;
        let wishes = &policy.wishes;
        claim(
            &mut self.authorized,
            Field::Authorized,
            wishes.authorized.as_ref(),
            key,
            conflicts,
        );
        claim(
            &mut self.tags,
            Field::Tags,
            wishes.tags.as_ref(),
            key,
            conflicts,
        );
        let key_expiry = wishes.key_expiry_disabled.as_ref();
        claim(
            &mut self.key_expiry_disabled,
            Field::KeyExpiry,
            key_expiry,
            key,
            conflicts,
        );
        let routes = wishes.enabled_routes.as_ref();
        claim(
            &mut self.enabled_routes,
            Field::EnabledRoutes,
            routes,
            key,
            conflicts,
        );
        claim(
            &mut self.exit_node,
            Field::ExitNode,
            wishes.exit_node.as_ref(),
            key,
            conflicts,
        );
        claim(
            &mut self.name,
            Field::Name,
            wishes.name.as_ref(),
            key,
            conflicts,
        );
        claim(
            &mut self.ipv4,
            Field::Ipv4,
            wishes.ipv4.as_ref(),
            key,
            conflicts,
        );
        for (attribute, wish) in wishes.attributes.iter().flatten() {
            self.admit_attribute(policy, attribute, wish, now);
        }
        self.allowed.insert(key.clone(), policy.allowed.clone());
    }

    fn admit_attribute(
        &mut self,
        policy: &Policy,
        key: &AttributeKey,
        wish: &AttributeWish,
        now: Timestamp,
    ) {
        // Keys that differ only in case cannot both exist in a tailnet.
        let taken = self
            .attributes
            .iter()
            .find(|(other, _)| other.folded() == key.folded());
        match taken {
            Some((other, claim)) if other != key || claim.wish != *wish => {
                self.conflicts.push(Conflict {
                    field: Field::Attribute(key.clone()),
                    loser: policy.key.clone(),
                    winner: claim.owner.clone(),
                });
            }
            Some(_) => {}
            None if wish.expiry.is_some_and(|expiry| expiry <= now) => {
                self.expired.insert(key.clone(), policy.key.clone());
            }
            None => {
                let claim = Claim {
                    wish: wish.clone(),
                    owner: policy.key.clone(),
                };
                self.attributes.insert(key.clone(), claim);
            }
        }
    }

    /// `postureAttributes` gone as a whole releases the keys; a key gone from it deletes it,
    /// unless another policy names it.
    fn prune(&mut self, policy: &Policy, memory: &Memory, all: &[(&Policy, &Memory)]) {
        if policy.wishes.attributes.is_none() {
            return;
        }
        for key in &memory.owned_keys {
            let named = |policy: &Policy| {
                policy
                    .wishes
                    .attributes
                    .as_ref()
                    .is_some_and(|wishes| wishes.contains_key(key))
            };
            if !all.iter().any(|(policy, _)| named(policy)) {
                self.prunes
                    .entry(key.clone())
                    .or_insert_with(|| policy.key.clone());
            }
        }
    }
}

fn claim<T: Clone + PartialEq>(
    slot: &mut Option<Claim<T>>,
    field: Field,
    wish: Option<&T>,
    policy: &PolicyKey,
    conflicts: &mut Vec<Conflict>,
) {
    match (wish, slot.as_ref()) {
        (Some(wish), None) => {
            *slot = Some(Claim {
                wish: wish.clone(),
                owner: policy.clone(),
            });
        }
        (Some(wish), Some(first)) if first.wish != *wish => conflicts.push(Conflict {
            field,
            loser: policy.clone(),
            winner: first.owner.clone(),
        }),
        _ => {}
    }
}
