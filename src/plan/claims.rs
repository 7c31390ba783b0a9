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
    AttributesExtent, Change, Dispute, Disruption, Field, Form, Hold, LetGo, ListClaim, Memory,
    Mode, Permits, Policy, PolicyKey, Reaches, Scope, clashes::Forms,
};
use crate::model::{AttributeKey, AttributeWish, DeviceLabel, NodeId, Route, Tag, TailnetIpv4};

/// A wish that decides a field, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<T> {
    /// What is wished.
    pub wish: T,
    /// The policies that wish just this, by rank: the first is the one that decides.
    pub owners: Vec<PolicyKey>,
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
    /// Whether the loser is told which one that is: both may change the field of one device, both are of one
    /// namespace, or the loser may change every device.
    pub is_named: bool,
    /// What it is that both cannot have.
    pub dispute: Dispute,
}

/// `tags to network/first`
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to ", self.field)?;
        if self.is_named {
            self.winner.fmt(f)?;
        } else {
            f.write_str("a policy of another namespace")?;
        }
        self.dispute.fmt(f)
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
/// Lists can be shared ([`ListClaim`]). A policy that is suspended, or
/// waits for an approval, decides like any other, but does not act. One that observes decides nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who decides `authorized`.
    pub authorized: Option<Claim<bool>>,
    /// Who decides `tags`.
    pub tags: ListClaim<Tag>,
    /// Who decides `keyExpiry`.
    pub key_expiry_disabled: Option<Claim<bool>>,
    /// Who decides `enabledRoutes`.
    pub enabled_routes: ListClaim<Route>,
    /// Who decides `exitNode`.
    pub exit_node: Option<Claim<bool>>,
    /// Who decides each attribute.
    pub attributes: BTreeMap<AttributeKey, Claim<AttributeWish>>,
    /// The attributes to delete if they are there: named before and by nobody any more.
    pub prunes: BTreeMap<AttributeKey, Vec<PolicyKey>>,
    /// The attributes to delete if they are there: set by policies that have let the device go.
    pub clears: BTreeMap<AttributeKey, Vec<PolicyKey>>,
    /// Nobody decides `exitNode`, but policies that have let the device go take it back.
    pub clears_exit_node: bool,
    /// The policies that have released the device and take something from it, if it is there.
    pub releasing: BTreeSet<PolicyKey>,
    /// The policies that own all attributes of the device, by rank: what nobody names is deleted.
    pub sweepers: Vec<PolicyKey>,
    /// The attributes that any policy names.
    pub named: BTreeSet<AttributeKey>,
    /// The attributes that any policy desires: names, with an expiry that has not passed.
    desired: BTreeSet<AttributeKey>,
    /// Attributes whose desired expiry has passed, each with a policy that names it so: nobody
    /// desires them for it any longer.
    pub expired: BTreeSet<(AttributeKey, PolicyKey)>,
    /// Who decides `name`.
    pub name: Option<Claim<DeviceLabel>>,
    /// Who decides `ipv4`.
    pub ipv4: Option<Claim<TailnetIpv4>>,
    /// What was lost, and to whom.
    pub conflicts: Vec<Conflict>,
    /// What each policy that observes would decide if it were alone.
    pub observed: BTreeMap<PolicyKey, Claims>,
    /// What each policy would decide if it were alone and the device were not protected.
    pub protected: BTreeMap<PolicyKey, Claims>,
    /// Attributes that a policy desires and the API would refuse, as the tailnet has the key in another
    /// form: they take precedence over nothing.
    pub impossible: Vec<(PolicyKey, AttributeKey, AttributeWish)>,
    /// When a desired attribute ends that overrides others, or one that is overridden.
    clashes_end: Option<Timestamp>,
    allowed: BTreeMap<PolicyKey, BTreeSet<Disruption>>,
    modes: BTreeMap<PolicyKey, Mode>,
    /// How far the policies reach on the device.
    reaches: Reaches,
    limited: BTreeSet<PolicyKey>,
}

impl Claims {
    /// Settles who decides, among the policies that hold one device, and what those that have let
    /// it go take away. The form of an attribute key may be decided by a policy of another device.
    #[must_use]
    pub fn settle(
        policies: &[(&Policy, &Memory)],
        let_go: &[LetGo],
        forms: &Forms,
        permits: &Permits<'_>,
        reaches: Reaches,
        node: &NodeId,
        now: Timestamp,
    ) -> Self {
        let (observing, mut ranked): (Vec<_>, Vec<_>) = policies
            .iter()
            .copied()
            .partition(|(policy, _)| policy.mode == Mode::Observe);
        ranked.sort_by(|(a, _), (b, _)| a.rank().cmp(&b.rank()));
        let nobody = Forms::default();
        let alone = |of: (&Policy, &Memory)| {
            let key = &of.0.key;
            let reaches = reaches.of_an_observer(key);
            (
                key.clone(),
                Self::among(&[of], node, &nobody, permits, reaches, now),
            )
        };
        let observed = observing.into_iter().map(alone).collect();
        let mut claims = Self::among(&ranked, node, forms, permits, reaches, now);
        claims.observed = observed;
        for let_go in let_go {
            claims.clear(let_go, permits);
        }
        claims
    }

    /// Sets aside what policies desire of a device that is protected: it decides nothing, and is shown.
    pub(super) fn set_aside(
        &mut self,
        protected: &[(&Policy, &Memory)],
        node: &NodeId,
        now: Timestamp,
    ) {
        for of in protected {
            let key = &of.0.key;
            let reaches = self.reaches.of_an_observer(key);
            let (forms, permits) = (Forms::default(), Permits::default());
            let alone = Self::among(&[*of], node, &forms, &permits, reaches, now);
            self.protected.insert(key.clone(), alone);
        }
    }

    /// What decides nothing here, and is shown.
    fn aside(&self) -> impl Iterator<Item = &Self> {
        self.observed.values().chain(self.protected.values())
    }

    fn among(
        ranked: &[(&Policy, &Memory)],
        node: &NodeId,
        forms: &Forms,
        permits: &Permits<'_>,
        reaches: Reaches,
        now: Timestamp,
    ) -> Self {
        let mut claims = Self {
            reaches,
            ..Self::default()
        };
        for (policy, _) in ranked {
            claims.admit(policy, permits);
            for (key, wish) in policy.wishes.attributes.iter().flatten() {
                if wish.has_expired(now) {
                    claims.named.insert(key.clone());
                    let expired = (key.clone(), policy.key.clone());
                    claims.expired.insert(expired);
                    continue;
                }
                if is_impossible(policy, key, wish, forms, now) {
                    claims.set_impossible(policy, key, wish);
                    continue;
                }
                claims.named.insert(key.clone());
                claims.desired.insert(key.clone());
                if !claims.lost_form(policy, key, wish, forms, now) {
                    claims.admit_attribute(policy, key, wish);
                }
            }
        }
        let invalid = ranked.iter().filter(|(policy, _)| policy.is_invalid());
        for (_, memory) in invalid {
            // Nobody knows which of them it still declares.
            let owned = memory.owned.known_at(node).into_iter().flatten();
            claims.named.extend(owned.clone().cloned());
            claims.desired.extend(owned.cloned());
        }
        for (policy, memory) in ranked {
            claims.prune(policy, memory.owned.known_at(node));
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
        self.acts(policy) && self.bars(policy, field).is_none()
    }

    /// Why a policy may not change this field of the device, by the guards of the tailnet.
    #[must_use]
    pub fn bars(&self, policy: &PolicyKey, field: &Field) -> Option<Hold> {
        self.reaches.bars(policy, field)
    }

    /// A message of the API as a policy is told of it.
    #[must_use]
    pub fn mask(&self, policy: &PolicyKey, text: &str) -> String {
        self.reaches.mask(policy, text)
    }

    /// A change as a policy is told of it.
    #[must_use]
    pub fn view(&self, policy: &PolicyKey, change: &Change) -> Change {
        self.reaches.view(policy, change)
    }

    /// What is done about a difference of this policy.
    #[must_use]
    pub fn mode(&self, policy: &PolicyKey) -> Mode {
        self.modes.get(policy).copied().unwrap_or_default()
    }

    /// Whether this policy is one of those that were settled here.
    pub(super) fn hears(&self, policy: &PolicyKey) -> bool {
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
        let of_a_form = |lost: &Conflict| matches!(lost.dispute, Dispute::Form(_));
        !self.attributes.is_empty()
            || !self.impossible.is_empty()
            || self.conflicts.iter().any(of_a_form)
            || !self.prunes.is_empty()
            || !self.clears.is_empty()
            || !self.sweepers.is_empty()
            || self.aside().any(Self::need_attributes)
    }

    /// When the next attribute wish ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let own = self.attributes.values();
        let own = own.filter_map(|claim| claim.wish.expiry);
        let aside = self.aside().filter_map(Self::next_expiry);
        own.chain(aside).chain(self.clashes_end).min()
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
        let acts = |owner: &PolicyKey| self.acts_on(owner, &Field::ExitNode);
        let decides_exit = |claim: &Claim<bool>| claim.owners.iter().any(acts);
        let acts = |owner: &PolicyKey| self.acts_on(owner, &Field::EnabledRoutes);
        self.enabled_routes.carries(acts, Scope::bounds_routes)
            || !self.exit_node.as_ref().is_some_and(decides_exit)
    }

    /// Whether the tags call would carry tags that nobody here decides.
    #[must_use]
    pub fn share_tags(&self) -> bool {
        let acts = |owner: &PolicyKey| self.acts_on(owner, &Field::Tags);
        self.tags.carries(acts, Scope::bounds_tags)
    }

    /// Whether this policy's author agreed to this disruption.
    #[must_use]
    pub fn allows(&self, owner: &PolicyKey, disruption: Disruption) -> bool {
        self.allowed
            .get(owner)
            .is_some_and(|allowed| allowed.contains(&disruption))
    }

    fn admit(&mut self, policy: &Policy, permits: &Permits<'_>) {
        let key = &policy.key;
        let wishes = &policy.wishes;
        let extents = policy.ownership;
        let scope = self.reaches.scope(key);
        let mut conflicts: Vec<(Field, PolicyKey)> = Vec::new();
        let mut lose = |field, winner: Option<PolicyKey>| {
            conflicts.extend(winner.map(|winner| (field, winner)));
        };
        let authorized = wishes.authorized.as_ref();
        lose(
            Field::Authorized,
            claim(&mut self.authorized, authorized, key),
        );
        if let Some(tags) = &wishes.tags {
            lose(
                Field::Tags,
                self.tags.admit(key, tags, extents.tags, scope.clone()),
            );
        }
        let key_expiry = wishes.key_expiry_disabled.as_ref();
        lose(
            Field::KeyExpiry,
            claim(&mut self.key_expiry_disabled, key_expiry, key),
        );
        if let Some(routes) = &wishes.enabled_routes {
            let winner = self
                .enabled_routes
                .admit(key, routes, extents.enabled_routes, scope);
            lose(Field::EnabledRoutes, winner);
        }
        let exit_node = wishes.exit_node.as_ref();
        lose(Field::ExitNode, claim(&mut self.exit_node, exit_node, key));
        lose(
            Field::Name,
            claim(&mut self.name, wishes.name.as_ref(), key),
        );
        lose(
            Field::Ipv4,
            claim(&mut self.ipv4, wishes.ipv4.as_ref(), key),
        );
        self.conflicts
            .extend(conflicts.into_iter().map(|(field, winner)| Conflict {
                field,
                loser: key.clone(),
                winner,
                is_named: true,
                dispute: Dispute::Field,
            }));
        if wishes.attributes.is_some() && extents.attributes == AttributesExtent::Exact {
            self.sweepers.push(key.clone());
        }
        self.allowed.insert(key.clone(), policy.allowed.clone());
        self.modes.insert(key.clone(), policy.mode);
        if permits.limits(key) {
            self.limited.insert(key.clone());
        }
    }

    /// Whether a policy that ranks before, be it of another device, has the key in another form.
    fn lost_form(
        &mut self,
        policy: &Policy,
        key: &AttributeKey,
        wish: &AttributeWish,
        forms: &Forms,
        now: Timestamp,
    ) -> bool {
        let Some((winner, claim)) = forms.deciding(key, now) else {
            return false;
        };
        // One that ranks after it decides only as long as the API refuses this one: it is tried still.
        if claim.form == Form::of(key, wish) || *winner > policy.owned_rank() {
            return false;
        }
        self.conflicts.push(Conflict {
            field: Field::Attribute(key.clone()),
            loser: policy.key.clone(),
            winner: winner.policy().clone(),
            is_named: policy.allowance.devices().is_none()
                || winner.policy().namespace == policy.key.namespace,
            dispute: Dispute::Form(claim.form.clone()),
        });
        let ends = self.clashes_end.into_iter();
        self.clashes_end = ends.chain(claim.expiry).chain(wish.expiry).min();
        true
    }

    fn admit_attribute(&mut self, policy: &Policy, key: &AttributeKey, wish: &AttributeWish) {
        // Keys that differ only in case cannot both exist in a tailnet.
        let taken = self
            .attributes
            .iter_mut()
            .find(|(other, _)| other.folded() == key.folded());
        match taken {
            Some((other, claim)) if other != key || claim.wish != *wish => {
                self.conflicts.push(Conflict {
                    field: Field::Attribute(key.clone()),
                    loser: policy.key.clone(),
                    winner: claim.owners[0].clone(),
                    is_named: true,
                    dispute: Dispute::Field,
                });
                // From then on nothing is desired that another policy could override.
                let ends = self.clashes_end.into_iter();
                self.clashes_end = ends.chain(wish.expiry).min();
            }
            Some((_, claim)) => claim.owners.push(policy.key.clone()),
            None => {
                let claim = Claim {
                    wish: wish.clone(),
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
        if policy.wishes.attributes.is_none() {
            return;
        }
        for key in owned.into_iter().flatten() {
            let declares =
                self.is_expired_for(key, &policy.key) || self.is_impossible_for(key, &policy.key);
            if !self.desired.contains(key) && !declares {
                let owners = self.prunes.entry(key.clone()).or_default();
                owners.push(policy.key.clone());
            }
        }
    }
}

/// Takes the wish of the policy that ranks next. Gives the policy to which it loses, if so.
fn claim<T: Clone + PartialEq>(
    slot: &mut Option<Claim<T>>,
    wish: Option<&T>,
    policy: &PolicyKey,
) -> Option<PolicyKey> {
    let wish = wish?;
    match slot {
        Some(first) if first.wish == *wish => {
            first.owners.push(policy.clone());
            None
        }
        Some(first) => first.owners.first().cloned(),
        None => {
            *slot = Some(Claim {
                wish: wish.clone(),
                owners: vec![policy.clone()],
            });
            None
        }
    }
}
