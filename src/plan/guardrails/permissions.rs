//! How far a policy reaches on one device.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use super::{AllowedRules, Guardrails, Rule, SuggestedRule};
use crate::{
    api::PolicyField,
    model::{Device, Route, Tag},
    plan::{
        Change, DesiredSettings, Field, Glob, Hold, Mode, Policy, PolicyKey, PolicyRecord, Released,
    },
};

/// An entry of a list, of which rules may allow some.
pub trait Entry: Ord + Clone + Display {
    /// Whether a rule allows this one.
    #[doc(hidden)]
    fn is_inside(&self, scope: &AllowedEntries) -> bool;
}

impl Entry for Tag {
    fn is_inside(&self, scope: &AllowedEntries) -> bool {
        let fits = |globs: &Arc<[Glob]>| globs.iter().any(|glob| glob.matches(self.as_str()));
        scope.tags.as_ref().is_none_or(fits)
    }
}

impl Entry for Route {
    fn is_inside(&self, scope: &AllowedEntries) -> bool {
        let fits = |networks: &Arc<[Route]>| networks.iter().any(|it| it.covers(self));
        scope.routes.as_ref().is_none_or(fits)
    }
}

/// The entries of lists that a policy owns at most. By default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedEntries {
    tags: Option<Arc<[Glob]>>,
    routes: Option<Arc<[Route]>>,
}

impl AllowedEntries {
    /// Whether an entry is inside.
    #[must_use]
    pub fn covers<T: Entry>(&self, entry: &T) -> bool {
        entry.is_inside(self)
    }

    /// Whether there may be tags outside.
    #[must_use]
    pub fn bounds_tags(&self) -> bool {
        self.tags.is_some()
    }

    /// Whether there may be routes outside.
    #[must_use]
    pub fn bounds_routes(&self) -> bool {
        self.routes.is_some()
    }

    /// What the API says of a list, without the entries that are outside: a request carries those of others.
    fn mask(&self, text: &str) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || ":._/-".contains(c);
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(begin) = rest.find(is_part) {
            let (before, from) = rest.split_at(begin);
            let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            // A sentence may end with it.
            let entry = word.trim_end_matches(['.', ':']);
            let tag = entry.parse::<Tag>().ok();
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

    /// A change with those entries of its lists alone that are inside.
    fn view(&self, change: &Change) -> Change {
        fn inside<T: Entry>(scope: &AllowedEntries, entries: &BTreeSet<T>) -> BTreeSet<T> {
            let inside = entries.iter().filter(|entry| scope.covers(*entry));
            inside.cloned().collect()
        }
        match change {
            Change::Tags { before, after } => Change::Tags {
                before: inside(self, before),
                after: inside(self, after),
            },
            Change::EnabledRoutes { before, after } => Change::EnabledRoutes {
                before: inside(self, before),
                after: inside(self, after),
            },
            change => change.clone(),
        }
    }

    /// What these rules allow together. One without a bound allows all.
    fn of(rules: &[&Arc<Rule>]) -> Self {
        let allowing = |field: PolicyField| rules.iter().filter(move |rule| rule.allows(field));
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

/// How far one policy reaches on one device. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DevicePermissions {
    /// The fields that the policy may not change here.
    denied: BTreeSet<PolicyField>,
    /// The rule that would allow it.
    line: String,
    /// The entries of lists that it owns here.
    scope: AllowedEntries,
}

impl DevicePermissions {
    /// How far an admitted policy reaches on a device.
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
            here.iter().any(|rule| match field {
                PolicyField::ExitNode => rule.allows(field) && rule.allows_exit_node(),
                PolicyField::Tags => rule.allows(field) && tags_inside,
                PolicyField::EnabledRoutes => rule.allows(field) && routes_inside,
                _ => rule.allows(field),
            })
        };
        let denied = PolicyField::ALL.into_iter().filter(|field| !allows(*field));
        let denied: BTreeSet<PolicyField> = denied.collect();
        // Of a device that is not one of the policy's there is no rule to start from.
        let line = if denied.is_empty() || here.is_empty() {
            String::new()
        } else {
            SuggestedRule::for_device(key, desired, &here).to_string()
        };
        Self {
            denied,
            line,
            scope,
        }
    }

    /// Whether the policy may give or take an entry of a list here.
    #[must_use]
    pub fn owns<T: Entry>(&self, entry: &T) -> bool {
        self.scope.covers(entry)
    }

    /// The rule that would allow the policy to change this field here, where none does.
    #[must_use]
    pub fn denied(&self, field: PolicyField) -> Option<String> {
        self.denied.contains(&field).then(|| self.line.clone())
    }
}

impl Rule {
    /// A device of which an expression cannot tell is not meant.
    pub(super) fn is_about(&self, device: &Device) -> bool {
        let devices = self.devices.as_ref();
        devices.is_none_or(|devices| devices.iter().any(|it| it.selector.matches(device)))
    }
}

/// How far all the policies of one device reach there. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyPermissions {
    protected: bool,
    /// Those policies for which rules bound something.
    of: BTreeMap<PolicyKey, DevicePermissions>,
}

impl PolicyPermissions {
    /// Of policies that hold a device, and of those that have let it go.
    #[must_use]
    pub fn on(
        device: &Device,
        policies: &[(&Policy, &PolicyRecord)],
        released: &[Released],
        guardrails: &Guardrails,
    ) -> Self {
        let mut of = BTreeMap::new();
        for Released {
            policy, allowance, ..
        } in released
        {
            if allowance.0.is_some() {
                let reach =
                    DevicePermissions::new(policy, &DesiredSettings::default(), allowance, device);
                of.insert(policy.clone(), reach);
            }
        }
        let holding = policies.iter().map(|(policy, _)| *policy);
        for policy in holding.filter(|policy| policy.allowance.0.is_some()) {
            of.insert(policy.key.clone(), DevicePermissions::of(policy, device));
        }
        Self {
            protected: guardrails.protects(device),
            of,
        }
    }

    /// The same, for a policy that observes: what it would own, and no word of what it may not do.
    #[must_use]
    pub fn of_an_observer(&self, policy: &PolicyKey) -> Self {
        let reach = self.of.get(policy).map(|reach| DevicePermissions {
            denied: BTreeSet::new(),
            line: String::new(),
            scope: reach.scope.clone(),
        });
        Self {
            protected: false,
            of: reach.map(|it| (policy.clone(), it)).into_iter().collect(),
        }
    }

    /// Tells what policies desire that they may have here from what they may not.
    #[must_use]
    pub fn part(&self, policies: &[(&Policy, &PolicyRecord)]) -> SplitPolicies {
        let parts = policies.iter().map(|(policy, _)| self.part_one(policy));
        SplitPolicies(parts.collect())
    }

    fn part_one(&self, policy: &Policy) -> Option<Part> {
        let denied = |field: PolicyField| {
            let reach = self.of.get(&policy.key);
            reach.is_some_and(|reach| reach.denied.contains(&field))
        };
        let protected = self.protected && policy.mode != Mode::Observe;
        if !protected && !policy.desired.fields().into_iter().any(denied) {
            return None;
        }
        let with = |mode, desired| Policy {
            desired,
            mode,
            ..policy.clone()
        };
        let set_aside = policy.desired.only(denied);
        let allowed = with(policy.mode, policy.desired.only(|field| !denied(field)));
        Some(if protected {
            // What it would do if the device were not protected.
            let aside = with(Mode::Enforce, allowed.desired.clone());
            Part {
                counts: with(policy.mode, policy.desired.only(|_| false)),
                protected: Some(aside),
                denied: set_aside,
            }
        } else {
            Part {
                counts: allowed,
                protected: None,
                denied: set_aside,
            }
        })
    }

    /// Why a policy may not change this field here, if so.
    #[must_use]
    pub fn denies(&self, policy: &PolicyKey, field: &Field) -> Option<Hold> {
        if self.protected {
            return Some(Hold::Protected);
        }
        let denied = self.of.get(policy)?.denied(field.into())?;
        Some(Hold::NotAllowed(denied))
    }

    /// The rule that would allow a policy what no rule allows it here.
    #[must_use]
    pub fn line(&self, policy: &PolicyKey) -> String {
        let reach = self.of.get(policy);
        reach.map(|reach| reach.line.clone()).unwrap_or_default()
    }

    /// What a policy owns of the lists of the device.
    #[must_use]
    pub fn scope(&self, policy: &PolicyKey) -> AllowedEntries {
        let reach = self.of.get(policy);
        reach.map(|reach| reach.scope.clone()).unwrap_or_default()
    }

    /// A message of the API as a policy is told of it.
    #[must_use]
    pub fn mask(&self, policy: &PolicyKey, text: &str) -> String {
        let scope = self.of.get(policy).map(|reach| &reach.scope);
        let bounded = scope.filter(|scope| scope.bounds_tags() || scope.bounds_routes());
        bounded.map_or_else(|| text.to_owned(), |scope| scope.mask(text))
    }

    /// A change as a policy is told of it: of lists, the entries that it may give and take.
    #[must_use]
    pub fn view(&self, policy: &PolicyKey, change: &Change) -> Change {
        let scope = self.of.get(policy).map(|reach| &reach.scope);
        scope.map_or_else(|| change.clone(), |scope| scope.view(change))
    }
}

/// Policies as they count on a device, and what they desire there besides in vain: nobody else loses
/// anything to that. `None` for one that may have everything.
#[derive(Debug)]
pub struct SplitPolicies(Vec<Option<Part>>);

#[derive(Debug)]
struct Part {
    /// With what counts.
    counts: Policy,
    /// With what it may not have as the device is protected.
    protected: Option<Policy>,
    /// What no rule allows.
    denied: DesiredSettings,
}

impl SplitPolicies {
    /// These policies, which were parted, as they count.
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

    /// Those of them that desire what they may not have as the device is protected, with just that.
    #[must_use]
    pub fn protected<'a>(
        &'a self,
        policies: &[(&'a Policy, &'a PolicyRecord)],
    ) -> Vec<(&'a Policy, &'a PolicyRecord)> {
        let parts = policies.iter().zip(&self.0);
        let protected = parts.filter_map(|((_, record), part)| {
            let aside = part.as_ref()?.protected.as_ref()?;
            Some((aside, *record))
        });
        protected.collect()
    }

    /// What no rule allows each of them, as the spec declares it: it is not compared with the device.
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

impl From<&Field> for PolicyField {
    fn from(field: &Field) -> Self {
        match field {
            Field::Authorized => Self::Authorized,
            Field::Tags => Self::Tags,
            Field::KeyExpiry => Self::KeyExpiry,
            Field::Attribute(_) => Self::PostureAttributes,
            Field::EnabledRoutes => Self::EnabledRoutes,
            Field::ExitNode => Self::ExitNode,
            Field::Name => Self::Name,
            Field::Ipv4 => Self::Ipv4,
            Field::ExpireKeyAt => Self::ExpireKeyAt,
            Field::DeleteInactive => Self::DeleteInactive,
        }
    }
}
