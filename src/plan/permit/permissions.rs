//! The permissions of a policy on one device.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use super::{AllowedRules, Guardrails, Rule, suggestion::SuggestedRule, unknown};
use crate::{
    model::{Device, FieldKind, ListSetting, PolicyField, Route, Tag, UnreadableFields},
    plan::{
        Change, DesiredSettings, Field, Glob, Hold, ListChange, Mode, Policy, PolicyKey,
        PolicyRecord, Released,
    },
};

/// An entry of a list. Rules may allow only some entries.
pub trait Entry: Ord + Clone + Display {
    /// Whether a rule allows this one.
    #[doc(hidden)]
    fn is_inside(&self, scope: &AllowedEntries) -> bool;
}

impl Entry for Tag {
    fn is_inside(&self, scope: &AllowedEntries) -> bool {
        let globs = scope.tags.as_ref();
        globs.is_none_or(|globs| globs.iter().any(|glob| glob.matches(self.as_str())))
    }
}

impl Entry for Route {
    fn is_inside(&self, scope: &AllowedEntries) -> bool {
        let networks = scope.routes.as_ref();
        networks.is_none_or(|networks| networks.iter().any(|it| it.covers(self)))
    }
}

/// The entries of lists that rules allow a policy. By default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedEntries {
    tags: Option<Arc<[Glob]>>,
    routes: Option<Arc<[Route]>>,
}

impl AllowedEntries {
    /// Whether an entry is allowed.
    #[must_use]
    pub fn covers<T: Entry>(&self, entry: &T) -> bool {
        entry.is_inside(self)
    }

    /// Whether only some tags are allowed.
    #[must_use]
    pub fn bounds_tags(&self) -> bool {
        self.tags.is_some()
    }

    /// Whether only some routes are allowed.
    #[must_use]
    pub fn bounds_routes(&self) -> bool {
        self.routes.is_some()
    }

    /// Masks the entries that are not allowed in a message of the API: a request for a list also contains the
    /// entries of others, and the API may quote them.
    fn mask(&self, text: &str) -> String {
        // The letters of tags and CIDRs. The API writes lists with blanks and brackets around the entries.
        let is_part = |c: char| c.is_ascii_alphanumeric() || ":._/-".contains(c);
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(begin) = rest.find(is_part) {
            let (before, from) = rest.split_at(begin);
            let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            // The entry may end a sentence.
            let entry = word.trim_end_matches(['.', ':']);
            let tag = entry.parse::<Tag>().ok();
            // A route with host bits would disclose the same network.
            let route = Route::reported(entry).ok().filter(|_| entry.contains('/'));
            let is_hidden = tag.is_some_and(|tag| !self.covers(&tag))
                || route.is_some_and(|route| !self.covers(&route));
            masked.push_str(before);
            masked.push_str(if is_hidden { "…" } else { entry });
            masked.push_str(&word[entry.len()..]);
            rest = after;
        }
        masked + rest
    }

    /// A change with only the allowed entries of its lists.
    fn view(&self, change: &Change) -> Change {
        fn inside<T: Entry>(scope: &AllowedEntries, entries: &BTreeSet<T>) -> BTreeSet<T> {
            let inside = entries.iter().filter(|entry| scope.covers(*entry));
            inside.cloned().collect()
        }
        let Change::List(list) = change else {
            return change.clone();
        };
        Change::List(match list {
            ListChange::Tags { before, after } => ListChange::Tags {
                before: inside(self, before).into(),
                after: inside(self, after).into(),
            },
            ListChange::EnabledRoutes { before, after } => ListChange::EnabledRoutes {
                before: inside(self, before),
                after: inside(self, after),
            },
            // Only a policy that may change both routes has them.
            ListChange::ExitNode { .. } => list.clone(),
        })
    }

    /// What these rules allow together. A rule without a bound allows all entries.
    fn of(rules: &[&Arc<Rule>]) -> Self {
        let allowing = |field: PolicyField| rules.iter().filter(move |rule| rule.allows(field));
        // No rule for a field gives a list of no entries, which allows nothing. `None` would allow all.
        let tags = allowing(PolicyField::Tags).map(|rule| rule.tags.as_ref());
        let routes = allowing(PolicyField::EnabledRoutes).map(|rule| rule.routes.as_ref());
        Self {
            tags: tags
                .collect::<Option<Vec<_>>>()
                .map(|bounds| bounds.into_iter().flatten().cloned().collect()),
            routes: routes
                .collect::<Option<Vec<_>>>()
                .map(|bounds| bounds.into_iter().flatten().copied().collect()),
        }
    }
}

/// The entries that none of these rules allows.
pub(super) fn outside<'a, T: Entry + 'a>(
    rules: impl Iterator<Item = &'a Arc<Rule>>,
    desired: Option<&BTreeSet<T>>,
) -> Vec<String> {
    let scope = AllowedEntries::of(&rules.collect::<Vec<_>>());
    let outside = desired
        .into_iter()
        .flatten()
        .filter(|it| !scope.covers(*it));
    outside.map(ToString::to_string).collect()
}

/// The permissions of one policy on one device. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DevicePermissions {
    /// The fields that the policy may not change here.
    denied: BTreeSet<PolicyField>,
    /// The rule that would allow them.
    suggested_rule: String,
    /// The entries of lists that the policy may change here.
    scope: AllowedEntries,
}

impl DevicePermissions {
    /// The permissions of an admitted policy on a device.
    #[must_use]
    pub fn of(policy: &Policy, device: &Device) -> Self {
        Self::new(&policy.key, &policy.desired, &policy.allowance, device)
    }

    fn new(
        key: &PolicyKey,
        desired: &DesiredSettings,
        allowance: &AllowedRules,
        device: &Device,
    ) -> Self {
        let Some(rules) = &allowance.0 else {
            return Self::default();
        };
        let here: Vec<&Arc<Rule>> = rules.iter().filter(|rule| rule.is_about(device)).collect();
        let scope = AllowedEntries::of(&here);
        let mut tags = desired.tags.iter().flatten();
        let mut routes = desired.enabled_routes.iter().flatten();
        let (tags_inside, routes_inside) = (
            tags.all(|tag| scope.covers(tag)),
            routes.all(|route| scope.covers(route)),
        );
        let allows = |field: PolicyField| {
            let mut allowing = here.iter().filter(|rule| rule.allows(field));
            match field.kind() {
                FieldKind::List(ListSetting::Tags) => tags_inside && allowing.next().is_some(),
                FieldKind::List(ListSetting::EnabledRoutes) => {
                    routes_inside && allowing.next().is_some()
                }
                FieldKind::List(ListSetting::ExitNode) => {
                    allowing.any(|rule| rule.allows_exit_node())
                }
                FieldKind::Setting(_)
                | FieldKind::PostureAttributes
                | FieldKind::ExpireKeyAt
                | FieldKind::DeleteInactive => allowing.next().is_some(),
            }
        };
        let denied: BTreeSet<PolicyField> = PolicyField::ALL
            .into_iter()
            .filter(|field| !allows(*field))
            .collect();
        // A suggestion begins with the rules for the device. Without one there is nothing to suggest.
        let suggested_rule = if denied.is_empty() || here.is_empty() {
            String::new()
        } else {
            SuggestedRule::for_device(key, desired, &here).to_string()
        };
        Self {
            denied,
            suggested_rule,
            scope,
        }
    }

    /// Whether there is anything that the policy may not change here.
    fn restrict(&self) -> bool {
        !self.denied.is_empty() || self.scope != AllowedEntries::default()
    }

    /// Whether the policy may add or remove an entry of a list here.
    #[must_use]
    pub fn owns<T: Entry>(&self, entry: &T) -> bool {
        self.scope.covers(entry)
    }

    /// The rule that would allow the policy to change this field here, if none does.
    #[must_use]
    pub fn denied(&self, field: PolicyField) -> Option<String> {
        self.denied
            .contains(&field)
            .then(|| self.suggested_rule.clone())
    }
}

/// The permissions of all the policies of one device. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyPermissions {
    protected: bool,
    /// The policies that rules restrict.
    of: BTreeMap<PolicyKey, DevicePermissions>,
    /// The fields of the device that cannot be read.
    unreadable: UnreadableFields,
    /// Those that keep it unknown whether the device is protected.
    unguarded: UnreadableFields,
    /// Those that keep it unknown whether a policy may change the device.
    undecided: BTreeMap<PolicyKey, UnreadableFields>,
}

impl PolicyPermissions {
    /// The permissions of the policies that target a device, and of those that have released it.
    #[must_use]
    pub fn on(
        device: &Device,
        policies: &[(&Policy, &PolicyRecord)],
        released: &[Released],
        guardrails: &Guardrails,
    ) -> Self {
        let (mut of, mut undecided) = (BTreeMap::new(), BTreeMap::new());
        for Released {
            policy, allowance, ..
        } in released
        {
            undecided.insert(policy.clone(), allowance.undecided_by(device));
            if allowance.0.is_some() {
                let permissions =
                    DevicePermissions::new(policy, &DesiredSettings::default(), allowance, device);
                of.insert(policy.clone(), permissions);
            }
        }
        let holding = policies.iter().map(|(policy, _)| *policy);
        for policy in holding.filter(|policy| policy.allowance.0.is_some()) {
            let permissions = DevicePermissions::of(policy, device);
            // Most rules restrict nothing here, and most devices have a policy.
            if permissions.restrict() {
                of.insert(policy.key.clone(), permissions);
            }
        }
        if !device.unreadable.is_empty() {
            undecided.extend(policies.iter().map(|(policy, _)| {
                let mut fields = policy.undecided_by(device);
                fields.extend(policy.owner_unknown_by(device));
                (policy.key.clone(), fields)
            }));
        }
        undecided.retain(|_, fields| !fields.is_empty());
        Self {
            protected: guardrails.surely_protects(device),
            of,
            unreadable: device.unreadable,
            unguarded: guardrails.undecided_by(device),
            undecided,
        }
    }

    /// The permissions for an observing policy: the same allowed entries, and nothing denied.
    #[must_use]
    pub fn of_an_observer(&self, policy: &PolicyKey) -> Self {
        let permissions = self.of.get(policy).map(|permissions| DevicePermissions {
            denied: BTreeSet::new(),
            suggested_rule: String::new(),
            // It also hides the entries of a list that the policy's author may not see.
            scope: permissions.scope.clone(),
        });
        Self {
            protected: false,
            of: permissions
                .map(|it| (policy.clone(), it))
                .into_iter()
                .collect(),
            ..self.clone()
        }
    }

    /// Splits the settings of policies into allowed and denied ones.
    #[must_use]
    pub fn split(&self, policies: &[(&Policy, &PolicyRecord)]) -> SplitPolicies {
        let parts = policies.iter().map(|(policy, _)| self.split_one(policy));
        SplitPolicies(parts.collect())
    }

    fn split_one(&self, policy: &Policy) -> Option<Part> {
        let denied = |field: PolicyField| {
            let permissions = self.of.get(&policy.key);
            permissions.is_some_and(|permissions| permissions.denied.contains(&field))
        };
        // An observing policy is held as such, on a protected device as on any other.
        let protected = self.protected && policy.mode != Mode::Observe;
        if !protected && !policy.desired.fields().into_iter().any(denied) {
            return None;
        }
        let with = |mode, desired| Policy {
            desired,
            mode,
            ..policy.clone()
        };
        let denied_settings = policy.desired.only(denied);
        let allowed = with(policy.mode, policy.desired.only(|field| !denied(field)));
        Some(if protected {
            // The policy as it would act if the device were not protected.
            let unprotected = with(Mode::Enforce, allowed.desired.clone());
            Part {
                // It declares nothing that counts: its claims must not override policies of other devices.
                counts: with(policy.mode, policy.desired.only(|_| false)),
                protected: Some(unprotected),
                denied: denied_settings,
            }
        } else {
            Part {
                counts: allowed,
                protected: None,
                denied: denied_settings,
            }
        })
    }

    /// Why a policy may not change this field here, if it may not.
    #[must_use]
    pub fn denies(&self, policy: &PolicyKey, field: &Field) -> Option<Hold> {
        if self.protected {
            return Some(Hold::Protected);
        }
        let permissions = self.of.get(policy);
        let denied = permissions.and_then(|it| it.denied(field.of_spec()));
        // The rules first: to wait until a field can be read would not help a denied policy.
        denied.map(Hold::NotAllowed).or_else(|| {
            let unknown = self.unknown(policy, field);
            (!unknown.is_empty()).then_some(Hold::Unreadable(unknown))
        })
    }

    /// The unreadable fields of the device that this field of a policy depends on.
    fn unknown(&self, policy: &PolicyKey, field: &Field) -> UnreadableFields {
        let mut fields = self.unreadable.among(&unknown::needed(field));
        fields.extend(self.unguarded);
        fields.extend(self.undecided.get(policy).copied().unwrap_or_default());
        fields
    }

    /// The rule that would allow a policy what is denied here.
    #[must_use]
    pub fn suggested_rule(&self, policy: &PolicyKey) -> String {
        let permissions = self.of.get(policy);
        permissions
            .map(|permissions| permissions.suggested_rule.clone())
            .unwrap_or_default()
    }

    /// The entries of lists that a policy may change on the device.
    #[must_use]
    pub fn scope(&self, policy: &PolicyKey) -> AllowedEntries {
        let permissions = self.of.get(policy);
        permissions
            .map(|permissions| permissions.scope.clone())
            .unwrap_or_default()
    }

    /// A message of the API as the author of a policy may see it.
    #[must_use]
    pub fn mask(&self, policy: &PolicyKey, text: &str) -> String {
        let scope = self.of.get(policy).map(|permissions| &permissions.scope);
        let bounded = scope.filter(|scope| scope.bounds_tags() || scope.bounds_routes());
        bounded.map_or_else(|| text.to_owned(), |scope| scope.mask(text))
    }

    /// A change as the author of a policy may see it: with only the allowed entries of lists.
    #[must_use]
    pub fn view(&self, policy: &PolicyKey, change: &Change) -> Change {
        let scope = self.of.get(policy).map(|permissions| &permissions.scope);
        scope.map_or_else(|| change.clone(), |scope| scope.view(change))
    }
}

/// The policies of a device, split into allowed and denied settings. Denied settings override no other policy.
/// `None` for a policy to which nothing is denied.
#[derive(Debug)]
pub struct SplitPolicies(Vec<Option<Part>>);

#[derive(Debug)]
struct Part {
    /// The policy with the allowed settings.
    counts: Policy,
    /// The policy with the settings that are denied only because the device is protected.
    protected: Option<Policy>,
    /// The settings that no rule allows.
    denied: DesiredSettings,
}

impl SplitPolicies {
    /// These policies, which were split, with their allowed settings.
    #[must_use]
    pub fn counting<'a>(
        &'a self,
        policies: &[(&'a Policy, &'a PolicyRecord)],
    ) -> Vec<(&'a Policy, &'a PolicyRecord)> {
        let parts = policies.iter().zip(&self.0);
        let counting = parts.map(|((policy, record), part)| {
            let counts = part.as_ref().map_or(*policy, |part| &part.counts);
            (counts, *record)
        });
        counting.collect()
    }

    /// The policies with settings that are denied because the device is protected, with only those settings.
    #[must_use]
    pub fn protected<'a>(
        &'a self,
        policies: &[(&'a Policy, &'a PolicyRecord)],
    ) -> Vec<(&'a Policy, &'a PolicyRecord)> {
        let parts = policies.iter().zip(&self.0);
        let protected = parts
            .filter_map(|((_, record), part)| Some((part.as_ref()?.protected.as_ref()?, *record)));
        protected.collect()
    }

    /// The settings that no rule allows each policy, as its spec declares them. They are not compared with
    /// the device.
    pub fn denied<'a>(
        &'a self,
        policies: &'a [(&'a Policy, &'a PolicyRecord)],
    ) -> impl Iterator<Item = (&'a PolicyKey, Vec<Change>)> {
        let parts = policies.iter().zip(&self.0);
        parts.filter_map(|((policy, _), part)| {
            Some((&policy.key, part.as_ref()?.denied.uncompared()))
        })
    }
}
