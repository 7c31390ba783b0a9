mod impossible;
mod readers;
mod released;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

use self::impossible::is_impossible;
use super::{
    AllowedEntries, ApprovalStates, AttributeType, AttributesOwnership, Change, ConflictKind,
    Disruption, Field, Hold, ListOwners, Mode, Policy, PolicyKey, PolicyPermissions, PolicyRecord,
    Released, tailnet_wide::AttributeTypes,
};
use crate::model::{AttributeKey, DesiredAttribute, DeviceLabel, NodeId, Route, Tag, TailnetIpv4};

/// A wish that decides a field, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldOwner<T> {
    /// What is wished.
    pub desired: T,
    /// The policies that wish just this, by rank: the first is the one that decides.
    pub owners: Vec<PolicyKey>,
}

/// A field that a policy lost to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which one.
    pub field: Field,
    /// The policy whose wish does not count here.
    pub overridden: PolicyKey,
    /// The policy whose wish does.
    pub owner: PolicyKey,
    /// Whether the loser is told which one that is: both may change the field of one device, both are of one
    /// namespace, or the loser may change every device.
    pub is_named: bool,
    /// What it is that both cannot have.
    pub kind: ConflictKind,
}

/// `tags to network/first`
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to ", self.field)?;
        if self.is_named {
            self.owner.fmt(f)?;
        } else {
            f.write_str("a policy of another namespace")?;
        }
        self.kind.fmt(f)
    }
}

/// Who decides what about one device.
///
/// | policies, by rank                  | tags    | keyExpiry | conflict        |
/// |------------------------------------|---------|-----------|-----------------|
/// | a: tags [tag:x]                    | a       |           |                 |
/// | a: tags [tag:x]; b: tags [tag:y]   | a       |           | b lost tags     |
/// | a: tags [tag:x]; b: tags [tag:x]   | a and b |           | none: same wish |
/// | a: tags [tag:x]; b: keyExpiry      | a       | b         |                 |
///
/// Lists can be shared ([`ListOwners`]). A policy that is suspended, or
/// waits for an approval, decides like any other, but does not act. One that observes decides nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldOwners {
    /// Who decides `authorized`.
    pub authorized: Option<FieldOwner<bool>>,
    /// Who decides `tags`.
    pub tags: ListOwners<Tag>,
    /// Who decides `keyExpiry`.
    pub key_expiry_disabled: Option<FieldOwner<bool>>,
    /// Who decides `enabledRoutes`.
    pub enabled_routes: ListOwners<Route>,
    /// Who decides `exitNode`.
    pub exit_node: Option<FieldOwner<bool>>,
    /// Who decides each attribute.
    pub attributes: BTreeMap<AttributeKey, FieldOwner<DesiredAttribute>>,
    /// The attributes to delete if they are there: named before and by nobody any more.
    pub removed_keys: BTreeMap<AttributeKey, Vec<PolicyKey>>,
    /// The attributes to delete if they are there: set by policies that have let the device go.
    pub released_keys: BTreeMap<AttributeKey, Vec<PolicyKey>>,
    /// Nobody decides `exitNode`, but policies that have let the device go take it back.
    pub clears_exit_node: bool,
    /// The policies that have released the device and take something from it, if it is there.
    pub releasing: BTreeSet<PolicyKey>,
    /// The policies that own all attributes of the device, by rank: what nobody names is deleted.
    pub exact_attribute_owners: Vec<PolicyKey>,
    /// The attributes that any policy names.
    pub named: BTreeSet<AttributeKey>,
    /// The attributes that any policy desires: names, with an expiry that has not passed.
    desired: BTreeSet<AttributeKey>,
    /// Attributes whose desired expiry has passed, each with a policy that names it so: nobody
    /// desires them for it any longer.
    pub expired: BTreeSet<(AttributeKey, PolicyKey)>,
    /// Who decides `name`.
    pub name: Option<FieldOwner<DeviceLabel>>,
    /// Who decides `ipv4`.
    pub ipv4: Option<FieldOwner<TailnetIpv4>>,
    /// What was lost, and to whom.
    pub conflicts: Vec<Conflict>,
    /// What each policy that observes would decide if it were alone.
    pub observed: BTreeMap<PolicyKey, FieldOwners>,
    /// What each policy would decide if it were alone and the device were not protected.
    pub protected: BTreeMap<PolicyKey, FieldOwners>,
    /// Attributes that a policy desires and the API would refuse, as the tailnet has the key in another
    /// form: they take precedence over nothing.
    pub impossible: Vec<(PolicyKey, AttributeKey, DesiredAttribute)>,
    /// When a desired attribute ends that overrides others, or one that is overridden.
    conflicts_end: Option<Timestamp>,
    allowed: BTreeMap<PolicyKey, BTreeSet<Disruption>>,
    modes: BTreeMap<PolicyKey, Mode>,
    /// How far the policies reach on the device.
    permissions: PolicyPermissions,
    limited: BTreeSet<PolicyKey>,
}

impl FieldOwners {
    /// Settles who decides, among the policies that hold one device, and what those that have let
    /// it go take away. The form of an attribute key may be decided by a policy of another device.
    #[must_use]
    pub fn resolve(
        policies: &[(&Policy, &PolicyRecord)],
        released: &[Released],
        types: &AttributeTypes,
        permits: &ApprovalStates<'_>,
        permissions: PolicyPermissions,
        node: &NodeId,
        now: Timestamp,
    ) -> Self {
        let (observing, mut ranked): (Vec<_>, Vec<_>) = policies
            .iter()
            .copied()
            .partition(|(policy, _)| policy.mode == Mode::Observe);
        ranked.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        let nobody = AttributeTypes::default();
        let alone = |of: (&Policy, &PolicyRecord)| {
            let key = &of.0.key;
            let permissions = permissions.of_an_observer(key);
            (
                key.clone(),
                Self::among(&[of], node, &nobody, permits, permissions, now),
            )
        };
        let observed = observing.into_iter().map(alone).collect();
        let mut claims = Self::among(&ranked, node, types, permits, permissions, now);
        claims.observed = observed;
        for released in released {
            claims.clear(released, permits);
        }
        claims
    }

    /// Sets aside what policies desire of a device that is protected: it decides nothing, and is shown.
    pub(super) fn add_denied(
        &mut self,
        protected: &[(&Policy, &PolicyRecord)],
        node: &NodeId,
        now: Timestamp,
    ) {
        for of in protected {
            let key = &of.0.key;
            let permissions = self.permissions.of_an_observer(key);
            let (types, permits) = (AttributeTypes::default(), ApprovalStates::default());
            let alone = Self::among(&[*of], node, &types, &permits, permissions, now);
            self.protected.insert(key.clone(), alone);
        }
    }

    /// What decides nothing here, and is shown.
    fn aside(&self) -> impl Iterator<Item = &Self> {
        self.observed.values().chain(self.protected.values())
    }

    fn among(
        ranked: &[(&Policy, &PolicyRecord)],
        node: &NodeId,
        types: &AttributeTypes,
        permits: &ApprovalStates<'_>,
        permissions: PolicyPermissions,
        now: Timestamp,
    ) -> Self {
        let mut claims = Self {
            permissions,
            ..Self::default()
        };
        for (policy, _) in ranked {
            claims.admit(policy, permits);
            for (key, desired) in policy.desired.attributes.iter().flatten() {
                if desired.has_expired(now) {
                    claims.named.insert(key.clone());
                    let expired = (key.clone(), policy.key.clone());
                    claims.expired.insert(expired);
                    continue;
                }
                if is_impossible(policy, key, desired, types, now) {
                    claims.set_impossible(policy, key, desired);
                    continue;
                }
                claims.named.insert(key.clone());
                claims.desired.insert(key.clone());
                if !claims.overridden_type(policy, key, desired, types, now) {
                    claims.admit_attribute(policy, key, desired);
                }
            }
        }
        let invalid = ranked.iter().filter(|(policy, _)| policy.is_invalid());
        for (_, record) in invalid {
            // Nobody knows which of them it still declares.
            let owned = record.owned.known_at(node).into_iter().flatten();
            claims.named.extend(owned.clone().cloned());
            claims.desired.extend(owned.cloned());
        }
        for (policy, record) in ranked {
            claims.prune(policy, record.owned.known_at(node));
        }
        claims
    }

    /// Whether whatever this policy decides may be done, without anybody's approval.
    #[must_use]
    pub fn acts(&self, policy: &PolicyKey) -> bool {
        !matches!(self.mode(policy), Mode::Suspended(_) | Mode::Approve) && !self.is_limited(policy)
    }

    /// Whether whatever this policy decides of a field may be done.
    #[must_use]
    pub fn acts_on(&self, policy: &PolicyKey, field: &Field) -> bool {
        self.acts(policy) && self.denies(policy, field).is_none()
    }

    /// Why a policy may not change this field of the device, by the guards of the tailnet.
    #[must_use]
    pub fn denies(&self, policy: &PolicyKey, field: &Field) -> Option<Hold> {
        self.permissions.denies(policy, field)
    }

    /// A message of the API as a policy is told of it.
    #[must_use]
    pub fn mask(&self, policy: &PolicyKey, text: &str) -> String {
        self.permissions.mask(policy, text)
    }

    /// A change as a policy is told of it.
    #[must_use]
    pub fn view(&self, policy: &PolicyKey, change: &Change) -> Change {
        self.permissions.view(policy, change)
    }

    /// What is done about a difference of this policy.
    #[must_use]
    pub fn mode(&self, policy: &PolicyKey) -> Mode {
        self.modes.get(policy).copied().unwrap_or_default()
    }

    /// Whether this policy is one of those that were settled here.
    pub(super) fn includes(&self, policy: &PolicyKey) -> bool {
        self.modes.contains_key(policy)
    }

    /// Whether the limit of changed devices holds this policy here.
    #[must_use]
    pub fn is_limited(&self, policy: &PolicyKey) -> bool {
        self.limited.contains(policy)
    }

    /// Whether attributes must be known: to compare, or as they may stand in the way of the policy that
    /// won a key.
    #[must_use]
    pub fn need_attributes(&self) -> bool {
        let of_a_form = |lost: &Conflict| matches!(lost.kind, ConflictKind::Type(_));
        !self.attributes.is_empty()
            || !self.impossible.is_empty()
            || self.conflicts.iter().any(of_a_form)
            || !self.removed_keys.is_empty()
            || !self.released_keys.is_empty()
            || !self.exact_attribute_owners.is_empty()
            || self.aside().any(Self::need_attributes)
    }

    /// When the next attribute wish ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let own = self.attributes.values();
        let own = own.filter_map(|claim| claim.desired.expiry);
        let aside = self.aside().filter_map(Self::next_expiry);
        own.chain(aside).chain(self.conflicts_end).min()
    }

    /// Whether something is wished for the routes of any kind.
    #[must_use]
    pub fn need_routes(&self) -> bool {
        !self.enabled_routes.is_empty()
            || self.exit_node.is_some()
            || self.aside().any(Self::need_routes)
    }

    /// Whether the routes call would carry entries that nobody here decides.
    #[must_use]
    pub fn share_routes(&self) -> bool {
        let actions = |owner: &PolicyKey| self.acts_on(owner, &Field::ExitNode);
        let decides_exit = |claim: &FieldOwner<bool>| claim.owners.iter().any(actions);
        let actions = |owner: &PolicyKey| self.acts_on(owner, &Field::EnabledRoutes);
        self.enabled_routes
            .carries_unmanaged(actions, AllowedEntries::bounds_routes)
            || !self.exit_node.as_ref().is_some_and(decides_exit)
    }

    /// Whether the tags call would carry tags that nobody here decides.
    #[must_use]
    pub fn share_tags(&self) -> bool {
        let actions = |owner: &PolicyKey| self.acts_on(owner, &Field::Tags);
        self.tags
            .carries_unmanaged(actions, AllowedEntries::bounds_tags)
    }

    /// Whether this policy's author agreed to this disruption.
    #[must_use]
    pub fn allows(&self, owner: &PolicyKey, disruption: Disruption) -> bool {
        self.allowed
            .get(owner)
            .is_some_and(|allowed| allowed.contains(&disruption))
    }

    fn admit(&mut self, policy: &Policy, permits: &ApprovalStates<'_>) {
        let key = &policy.key;
        let desired = &policy.desired;
        let extents = policy.ownership;
        let scope = self.permissions.scope(key);
        let mut conflicts: Vec<(Field, PolicyKey)> = Vec::new();
        let mut lose = |field, winner: Option<PolicyKey>| {
            conflicts.extend(winner.map(|winner| (field, winner)));
        };
        let authorized = desired.authorized.as_ref();
        lose(
            Field::Authorized,
            claim(&mut self.authorized, authorized, key),
        );
        if let Some(tags) = &desired.tags {
            lose(
                Field::Tags,
                self.tags.admit(key, tags, extents.tags, scope.clone()),
            );
        }
        let key_expiry = desired.key_expiry_disabled.as_ref();
        lose(
            Field::KeyExpiry,
            claim(&mut self.key_expiry_disabled, key_expiry, key),
        );
        if let Some(routes) = &desired.enabled_routes {
            let winner = self
                .enabled_routes
                .admit(key, routes, extents.enabled_routes, scope);
            lose(Field::EnabledRoutes, winner);
        }
        let exit_node = desired.exit_node.as_ref();
        lose(Field::ExitNode, claim(&mut self.exit_node, exit_node, key));
        lose(
            Field::Name,
            claim(&mut self.name, desired.name.as_ref(), key),
        );
        lose(
            Field::Ipv4,
            claim(&mut self.ipv4, desired.ipv4.as_ref(), key),
        );
        self.conflicts
            .extend(conflicts.into_iter().map(|(field, winner)| Conflict {
                field,
                overridden: key.clone(),
                owner: winner,
                is_named: true,
                kind: ConflictKind::Field,
            }));
        if desired.attributes.is_some() && extents.attributes == AttributesOwnership::Exact {
            self.exact_attribute_owners.push(key.clone());
        }
        self.allowed.insert(key.clone(), policy.allowed.clone());
        self.modes.insert(key.clone(), policy.mode);
        if permits.limits(key) {
            self.limited.insert(key.clone());
        }
    }

    /// Whether a policy that ranks before, be it of another device, has the key in another form.
    fn overridden_type(
        &mut self,
        policy: &Policy,
        key: &AttributeKey,
        desired: &DesiredAttribute,
        types: &AttributeTypes,
        now: Timestamp,
    ) -> bool {
        let Some((winner, claim)) = types.deciding(key, now) else {
            return false;
        };
        // One that ranks after it decides only as long as the API refuses this one: it is tried still.
        if claim.attribute_type == AttributeType::of(key, desired) || *winner > policy.owned_rank()
        {
            return false;
        }
        self.conflicts.push(Conflict {
            field: Field::Attribute(key.clone()),
            overridden: policy.key.clone(),
            owner: winner.policy().clone(),
            is_named: policy.allowance.devices().is_none()
                || winner.policy().namespace == policy.key.namespace,
            kind: ConflictKind::Type(claim.attribute_type.clone()),
        });
        let ends = self.conflicts_end.into_iter();
        self.conflicts_end = ends.chain(claim.expiry).chain(desired.expiry).min();
        true
    }

    fn admit_attribute(&mut self, policy: &Policy, key: &AttributeKey, desired: &DesiredAttribute) {
        // Keys that differ only in case cannot both exist in a tailnet.
        let taken = self
            .attributes
            .iter_mut()
            .find(|(other, _)| other.folded() == key.folded());
        match taken {
            Some((other, claim)) if other != key || claim.desired != *desired => {
                self.conflicts.push(Conflict {
                    field: Field::Attribute(key.clone()),
                    overridden: policy.key.clone(),
                    owner: claim.owners[0].clone(),
                    is_named: true,
                    kind: ConflictKind::Field,
                });
                // From then on nothing is desired that another policy could override.
                let ends = self.conflicts_end.into_iter();
                self.conflicts_end = ends.chain(desired.expiry).min();
            }
            Some((_, claim)) => claim.owners.push(policy.key.clone()),
            None => {
                let claim = FieldOwner {
                    desired: desired.clone(),
                    owners: vec![policy.key.clone()],
                };
                self.attributes.insert(key.clone(), claim);
            }
        }
    }

    /// Whether a policy no longer desires an attribute that it names: it neither sets nor deletes it.
    fn is_expired_for(&self, key: &AttributeKey, policy: &PolicyKey) -> bool {
        let expired = (key.clone(), policy.clone());
        self.expired.contains(&expired)
    }

    /// `postureAttributes` gone as a whole releases the keys; a key that the policy owns here and no
    /// longer declares is deleted, unless another policy desires it.
    fn prune(&mut self, policy: &Policy, owned: Option<&BTreeSet<AttributeKey>>) {
        if policy.desired.attributes.is_none() {
            return;
        }
        for key in owned.into_iter().flatten() {
            let declares =
                self.is_expired_for(key, &policy.key) || self.is_impossible_for(key, &policy.key);
            if !self.desired.contains(key) && !declares {
                let owners = self.removed_keys.entry(key.clone()).or_default();
                owners.push(policy.key.clone());
            }
        }
    }
}

/// Takes the wish of the policy that ranks next. Gives the policy to which it loses, if so.
fn claim<T: Clone + PartialEq>(
    slot: &mut Option<FieldOwner<T>>,
    desired: Option<&T>,
    policy: &PolicyKey,
) -> Option<PolicyKey> {
    let desired = desired?;
    match slot {
        Some(first) if first.desired == *desired => {
            first.owners.push(policy.clone());
            None
        }
        Some(first) => first.owners.first().cloned(),
        None => {
            *slot = Some(FieldOwner {
                desired: desired.clone(),
                owners: vec![policy.clone()],
            });
            None
        }
    }
}
