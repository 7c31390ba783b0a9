mod impossible;
mod readers;
mod released;
mod same;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use litemap::LiteMap;

use super::Conflict;
use crate::model::{
    AttributeKey, DesiredAttribute, ListSetting, ListValue, NodeId, Route, RouteSet, Setting,
    SettingValue, Tag,
};
use crate::plan::{
    AllowedEntries, ApprovalStates, AttributeType, AttributeTypes, AttributesOwnership, Change,
    ConflictKind, Disruption, Field, Hold, ListOwners, Mode, Policy, PolicyKey, PolicyPermissions,
    PolicyRecord, Released,
};

/// The desired state of a field, and the policies that own the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldOwner<T> {
    /// The desired state.
    pub desired: T,
    /// The policies that declare exactly this, by rank: the first takes precedence.
    pub owners: Vec<PolicyKey>,
}

/// The owners of each field of one device.
///
/// | policies, by rank                  | tags    | keyExpiry | conflict            |
/// |------------------------------------|---------|-----------|---------------------|
/// | a: tags [tag:x]                    | a       |           |                     |
/// | a: tags [tag:x]; b: tags [tag:y]   | a       |           | a overrides b: tags |
/// | a: tags [tag:x]; b: tags [tag:x]   | a and b |           | none: same value    |
/// | a: tags [tag:x]; b: keyExpiry      | a       | b         |                     |
///
/// Policies can share lists ([`ListOwners`]). A policy that is suspended or needs an approval owns fields like
/// any other, but does not act. A policy that observes owns nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldOwners {
    /// The owner of each setting that is one value.
    pub settings: LiteMap<Setting, FieldOwner<SettingValue>>,
    /// The owners of `tags`.
    pub tags: ListOwners<Tag>,
    /// The owners of `enabledRoutes`.
    pub enabled_routes: ListOwners<Route>,
    /// The owner of `exitNode`.
    pub exit_node: Option<FieldOwner<RouteSet>>,
    /// The owner of each attribute.
    pub attributes: BTreeMap<AttributeKey, FieldOwner<DesiredAttribute>>,
    /// The attributes to delete if they exist: the policies declared them before, and no policy does now.
    pub removed_keys: BTreeMap<AttributeKey, Vec<PolicyKey>>,
    /// The attributes to delete if they exist: set by policies that have released the device.
    pub released_keys: BTreeMap<AttributeKey, Vec<PolicyKey>>,
    /// No policy declares `exitNode`, but policies that have released the device clear it.
    pub clears_exit_node: bool,
    /// The policies that have released the device and have something to clear on it.
    pub releasing: BTreeSet<PolicyKey>,
    /// The policies that own all attributes of the device, by rank: undeclared attributes are deleted.
    pub exact_attribute_owners: Vec<PolicyKey>,
    /// The attributes that any policy declares.
    pub named: BTreeSet<AttributeKey>,
    /// The attributes that any policy desires: declared, with an expiry that has not passed.
    desired: BTreeSet<AttributeKey>,
    /// Attributes whose declared expiry has passed, each with its policy, which no longer desires it.
    pub expired: BTreeSet<(AttributeKey, PolicyKey)>,
    /// The fields in which a policy is overridden by another.
    pub conflicts: Vec<Conflict>,
    /// What each observing policy would own if it were alone.
    pub observed: BTreeMap<PolicyKey, FieldOwners>,
    /// What each policy would own if it were alone and the device were not protected.
    pub protected: BTreeMap<PolicyKey, FieldOwners>,
    /// Attributes that a policy declares and the API would refuse, because the tailnet has the key with
    /// another spelling or type. They override nothing.
    pub impossible: Vec<(PolicyKey, AttributeKey, DesiredAttribute)>,
    /// When the next desired attribute of a conflict expires, so that the conflict may end.
    conflicts_end: Option<Timestamp>,
    allowed: BTreeMap<PolicyKey, BTreeSet<Disruption>>,
    modes: LiteMap<PolicyKey, Mode>,
    /// The permissions of the policies on the device.
    permissions: PolicyPermissions,
    limited: BTreeSet<PolicyKey>,
}

impl FieldOwners {
    /// Resolves the owners among the policies that target one device, and what policies that have released
    /// it clear. A policy of another device may own the type of an attribute key.
    #[must_use]
    pub fn resolve(
        policies: &[(&Policy, &PolicyRecord)],
        released: &[Released],
        types: &AttributeTypes,
        approvals: &ApprovalStates<'_>,
        permissions: PolicyPermissions,
        node: &NodeId,
        now: Timestamp,
    ) -> Self {
        let (observing, mut ranked): (Vec<_>, Vec<_>) = policies
            .iter()
            .copied()
            .partition(|(policy, _)| policy.mode == Mode::Observe);
        ranked.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        let mut observed = BTreeMap::new();
        for of in observing {
            let key = &of.0.key;
            // Compared as if it were the only policy, so that it shows what it would change.
            let (types, permissions) = (AttributeTypes::default(), permissions.of_an_observer(key));
            let alone = Self::among(&[of], node, &types, approvals, permissions, now);
            observed.insert(key.clone(), alone);
        }
        let mut field_owners = Self::among(&ranked, node, types, approvals, permissions, now);
        field_owners.observed = observed;
        // Last: a setting that any policy of the device declares is not cleared.
        for released in released {
            field_owners.clear(released, approvals);
        }
        field_owners
    }

    /// Adds what policies declare for a protected device: it is shown, and owns nothing.
    pub(in crate::plan) fn add_denied(
        &mut self,
        protected: &[(&Policy, &PolicyRecord)],
        node: &NodeId,
        now: Timestamp,
    ) {
        for of in protected {
            let key = &of.0.key;
            let permissions = self.permissions.of_an_observer(key);
            // Without claims of others and approvals: it shows what would be sent without the protection.
            let (types, approvals) = (AttributeTypes::default(), ApprovalStates::default());
            let alone = Self::among(&[*of], node, &types, &approvals, permissions, now);
            self.protected.insert(key.clone(), alone);
        }
    }

    /// The settings that are shown and own nothing.
    fn only_shown(&self) -> impl Iterator<Item = &Self> {
        self.observed.values().chain(self.protected.values())
    }

    fn among(
        ranked: &[(&Policy, &PolicyRecord)],
        node: &NodeId,
        types: &AttributeTypes,
        approvals: &ApprovalStates<'_>,
        permissions: PolicyPermissions,
        now: Timestamp,
    ) -> Self {
        let mut field_owners = Self {
            permissions,
            ..Self::default()
        };
        for (policy, _) in ranked {
            field_owners.admit(policy, approvals);
            for (key, desired) in policy.desired.attributes.iter().flatten() {
                // Declared, and no longer desired: no owner of all attributes may delete a value that someone
                // has set there since.
                if desired.has_expired(now) {
                    field_owners.named.insert(key.clone());
                    let expired = (key.clone(), policy.key.clone());
                    field_owners.expired.insert(expired);
                    continue;
                }
                // It takes precedence over nothing: not even its key counts as declared.
                if types.refuse(policy, key, desired, now) {
                    field_owners.set_impossible(policy, key, desired);
                    continue;
                }
                field_owners.named.insert(key.clone());
                // Even if it is overridden: the policy still wants the key, so that nobody prunes it.
                field_owners.desired.insert(key.clone());
                if !field_owners.overridden_type(policy, key, desired, types, now) {
                    field_owners.admit_attribute(policy, key, desired);
                }
            }
        }
        let invalid = ranked.iter().filter(|(policy, _)| policy.is_invalid());
        for (_, record) in invalid {
            // Which of its keys an invalid policy still declares is unknown, so all of them stay.
            let owned = record.owned.known_at(node).into_iter().flatten();
            field_owners.named.extend(owned.clone().cloned());
            field_owners.desired.extend(owned.cloned());
        }
        // After all policies, because one that ranks later may desire a key that an earlier one prunes.
        for (policy, record) in ranked {
            field_owners.prune(policy, record.owned.known_at(node));
        }
        field_owners
    }

    /// Whether the changes of this policy may be sent without an approval.
    #[must_use]
    pub fn acts(&self, policy: &PolicyKey) -> bool {
        !matches!(self.mode(policy), Mode::Suspended(_) | Mode::Approve) && !self.is_limited(policy)
    }

    /// Whether the changes of this policy to a field may be sent.
    #[must_use]
    pub fn acts_on(&self, policy: &PolicyKey, field: &Field) -> bool {
        self.acts(policy) && self.denies(policy, field).is_none()
    }

    /// Why the guardrails deny a policy this field of the device.
    #[must_use]
    pub fn denies(&self, policy: &PolicyKey, field: &Field) -> Option<Hold> {
        self.permissions.denies(policy, field)
    }

    /// A message of the API as the author of a policy may see it.
    #[must_use]
    pub fn mask(&self, policy: &PolicyKey, text: &str) -> String {
        self.permissions.mask(policy, text)
    }

    /// A change as the author of a policy may see it.
    #[must_use]
    pub fn view(&self, policy: &PolicyKey, change: &Change) -> Change {
        self.permissions.view(policy, change)
    }

    /// What the controller does about a difference of this policy.
    #[must_use]
    pub fn mode(&self, policy: &PolicyKey) -> Mode {
        self.modes.get(policy).copied().unwrap_or_default()
    }

    /// Whether this policy is among those that were resolved here.
    pub(in crate::plan) fn includes(&self, policy: &PolicyKey) -> bool {
        self.modes.contains_key(policy)
    }

    /// Whether the limit of changed devices holds this policy here.
    #[must_use]
    pub fn is_limited(&self, policy: &PolicyKey) -> bool {
        self.limited.contains(policy)
    }

    /// Whether attributes must be read: to compare them, or because their type may conflict with that of the
    /// policy that takes precedence.
    #[must_use]
    pub fn need_attributes(&self) -> bool {
        !self.attributes.is_empty()
            || !self.impossible.is_empty()
            || self
                .conflicts
                .iter()
                .any(|conflict| matches!(conflict.kind, ConflictKind::Type(_)))
            || !self.removed_keys.is_empty()
            || !self.released_keys.is_empty()
            || !self.exact_attribute_owners.is_empty()
            || self.only_shown().any(Self::need_attributes)
    }

    /// When the next desired attribute expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let claims = self.attributes.values();
        claims
            .filter_map(|claim| claim.desired.expiry)
            .chain(self.only_shown().filter_map(Self::next_expiry))
            .chain(self.conflicts_end)
            .min()
    }

    /// Whether any policy declares routes of either kind.
    #[must_use]
    pub fn need_routes(&self) -> bool {
        let mut lists = ListSetting::ALL.into_iter();
        lists.any(|list| list.is_of_routes() && self.has_owners(list))
            || self.only_shown().any(Self::need_routes)
    }

    fn has_owners(&self, list: ListSetting) -> bool {
        match list {
            ListSetting::Tags => !self.tags.is_empty(),
            ListSetting::EnabledRoutes => !self.enabled_routes.is_empty(),
            ListSetting::ExitNode => self.exit_node.is_some(),
        }
    }

    /// Whether a request for the routes would contain entries that no policy here owns.
    #[must_use]
    pub fn share_routes(&self) -> bool {
        let acts_on = |owner: &PolicyKey, list| self.acts_on(owner, &Field::List(list));
        let carries_subnets = self.enabled_routes.carries_unmanaged(
            |owner| acts_on(owner, ListSetting::EnabledRoutes),
            AllowedEntries::bounds_routes,
        );
        // The routes of an exit node are in the same list of the API.
        let sets_exit_node = self.exit_node.as_ref().is_some_and(|claim| {
            let mut owners = claim.owners.iter();
            owners.any(|owner| acts_on(owner, ListSetting::ExitNode))
        });
        carries_subnets || !sets_exit_node
    }

    /// Whether a request for the tags would contain tags that no policy here owns.
    #[must_use]
    pub fn share_tags(&self) -> bool {
        self.tags.carries_unmanaged(
            |owner| self.acts_on(owner, &Field::List(ListSetting::Tags)),
            AllowedEntries::bounds_tags,
        )
    }

    /// Whether this policy allows this disruption.
    #[must_use]
    pub fn allows(&self, owner: &PolicyKey, disruption: Disruption) -> bool {
        self.allowed
            .get(owner)
            .is_some_and(|allowed| allowed.contains(&disruption))
    }

    fn admit(&mut self, policy: &Policy, approvals: &ApprovalStates<'_>) {
        let key = &policy.key;
        let desired = &policy.desired;
        let mut conflicts: Vec<(Field, PolicyKey, String)> = Vec::new();
        let mut add_conflict = |field, winner: Option<PolicyKey>, declared: String| {
            conflicts.extend(winner.map(|winner| (field, winner, declared)));
        };
        for value in desired.settings.values() {
            let setting = value.setting();
            let mut slot = self.settings.remove(&setting);
            let winner = claim(&mut slot, value, key);
            self.settings.extend(slot.map(|owner| (setting, owner)));
            add_conflict(Field::Setting(setting), winner, value.to_string());
        }
        for value in desired.lists() {
            let winner = self.admit_list(policy, &value);
            add_conflict(Field::List(value.setting()), winner, value.to_string());
        }
        // A message lists them in the order of the spec.
        conflicts.sort();
        self.conflicts.extend(
            conflicts
                .into_iter()
                .map(|(field, winner, declared)| Conflict {
                    declared,
                    field,
                    overridden: key.clone(),
                    owner: winner,
                    is_named: true,
                    kind: ConflictKind::Field,
                }),
        );
        if desired.attributes.is_some() && policy.ownership.attributes == AttributesOwnership::Exact
        {
            self.exact_attribute_owners.push(key.clone());
        }
        if !policy.allowed.is_empty() {
            self.allowed.insert(key.clone(), policy.allowed.clone());
        }
        self.modes.insert(key.clone(), policy.mode);
        if approvals.limits(key) {
            self.limited.insert(key.clone());
        }
    }

    /// Adds the entries that a policy declares. Returns the policy that overrides it, if any.
    fn admit_list(&mut self, policy: &Policy, value: &ListValue) -> Option<PolicyKey> {
        let (key, ownership) = (&policy.key, policy.ownership);
        let scope = self.permissions.scope(key);
        match value {
            ListValue::Tags(tags) => self.tags.admit(key, tags, ownership.tags, scope),
            ListValue::EnabledRoutes(routes) => {
                let owners = &mut self.enabled_routes;
                owners.admit(key, routes, ownership.enabled_routes, scope)
            }
            ListValue::ExitNode(routes) => claim(&mut self.exit_node, routes, key),
        }
    }

    /// Whether a policy that ranks before this one, even one of another device, declares the key with another
    /// spelling or type.
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
        // A policy that ranks after this one owns the type only while the API refuses this one, so this one
        // must still be tried.
        if claim.attribute_type == AttributeType::of(key, desired) || *winner > policy.owned_rank()
        {
            return false;
        }
        self.conflicts.push(Conflict {
            field: Field::Attribute(key.clone()),
            declared: desired.to_string(),
            overridden: policy.key.clone(),
            owner: winner.policy().clone(),
            // The author of a policy that may change every device may learn of every policy.
            is_named: policy.allowance.devices().is_none()
                || winner.policy().namespace == policy.key.namespace,
            kind: ConflictKind::Type(claim.attribute_type.clone()),
        });
        // Whichever of the two expires first ends the conflict, and the device must be planned again then.
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
                    declared: desired.to_string(),
                    overridden: policy.key.clone(),
                    // A claim is made with its first owner.
                    owner: claim.owners[0].clone(),
                    is_named: true,
                    kind: ConflictKind::Field,
                });
                // Once it expires, there is nothing left to override.
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

    /// Whether a policy no longer desires an attribute that it declares: it neither sets nor deletes it.
    fn is_expired_for(&self, key: &AttributeKey, policy: &PolicyKey) -> bool {
        let expired = (key.clone(), policy.clone());
        self.expired.contains(&expired)
    }

    /// Deletes each key that the policy owns here and no longer declares, unless another policy desires it. A
    /// policy without `postureAttributes` releases its keys instead.
    fn prune(&mut self, policy: &Policy, owned: Option<&BTreeSet<AttributeKey>>) {
        if policy.desired.attributes.is_none() {
            return;
        }
        for key in owned.into_iter().flatten() {
            // A key that it still declares is not pruned, even if it sets nothing there.
            let declares =
                self.is_expired_for(key, &policy.key) || self.is_impossible_for(key, &policy.key);
            if !self.desired.contains(key) && !declares {
                let owners = self.removed_keys.entry(key.clone()).or_default();
                owners.push(policy.key.clone());
            }
        }
    }
}

/// Adds what the policy that ranks next declares. Returns the policy that overrides it, if any.
fn claim<T: Clone + PartialEq>(
    slot: &mut Option<FieldOwner<T>>,
    desired: &T,
    policy: &PolicyKey,
) -> Option<PolicyKey> {
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
