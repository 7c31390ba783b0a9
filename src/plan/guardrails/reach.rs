//! How far a policy reaches on one device.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use super::{Allowance, Guardrails, Line, Rule};
use crate::{
    api::PolicyField,
    model::{Device, Route, Tag},
    plan::{Change, Field, Glob, Hold, LetGo, Memory, Mode, Policy, PolicyKey, Wishes},
};

/// An entry of a list, of which rules may allow some.
pub trait Entry: Ord + Clone + Display {
    /// Whether a rule allows this one.
    #[doc(hidden)]
    fn is_inside(&self, scope: &Scope) -> bool;
}

impl Entry for Tag {
    fn is_inside(&self, scope: &Scope) -> bool {
        let fits = |globs: &Arc<[Glob]>| globs.iter().any(|glob| glob.fits(self.as_str()));
        scope.tags.as_ref().is_none_or(fits)
    }
}

impl Entry for Route {
    fn is_inside(&self, scope: &Scope) -> bool {
        let fits = |networks: &Arc<[Route]>| networks.iter().any(|it| it.covers(self));
        scope.routes.as_ref().is_none_or(fits)
    }
}

/// The entries of lists that a policy owns at most. By default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    tags: Option<Arc<[Glob]>>,
    routes: Option<Arc<[Route]>>,
}

impl Scope {
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
        fn inside<T: Entry>(scope: &Scope, entries: &BTreeSet<T>) -> BTreeSet<T> {
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
    wished: Option<&BTreeSet<T>>,
) -> Vec<String> {
    let scope = Scope::of(&rules.collect::<Vec<_>>());
    let outside = wished.into_iter().flatten().filter(|it| !scope.covers(*it));
    outside.map(ToString::to_string).collect()
}

/// How far one policy reaches on one device. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// The fields that the policy may not change here.
    barred: BTreeSet<PolicyField>,
    /// The rule that would allow it.
    line: String,
    /// The entries of lists that it owns here.
    scope: Scope,
}

impl Reach {
    /// How far an admitted policy reaches on a device.
    #[must_use]
    pub fn of(policy: &Policy, device: &Device) -> Self {
        Self::new(&policy.key, &policy.wishes, &policy.allowance, device)
    }

    fn new(key: &PolicyKey, wishes: &Wishes, allowance: &Allowance, device: &Device) -> Self {
        let Some(rules) = &allowance.0 else {
            return Self::default();
        };
        let here: Vec<&Arc<Rule>> = rules.iter().filter(|rule| rule.is_about(device)).collect();
        let scope = Scope::of(&here);
        let mut tags = wishes.tags.iter().flatten();
        let mut routes = wishes.enabled_routes.iter().flatten();
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
        let barred = PolicyField::ALL.into_iter().filter(|field| !allows(*field));
        let barred: BTreeSet<PolicyField> = barred.collect();
        // Of a device that is not one of the policy's there is no rule to start from.
        let line = if barred.is_empty() || here.is_empty() {
            String::new()
        } else {
            Line::for_device(key, wishes, &here).to_string()
        };
        Self {
            barred,
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
    pub fn barred(&self, field: PolicyField) -> Option<String> {
        self.barred.contains(&field).then(|| self.line.clone())
    }
}

impl Rule {
    /// A device of which an expression cannot tell is not meant.
    pub(super) fn is_about(&self, device: &Device) -> bool {
        let devices = self.devices.as_ref();
        devices.is_none_or(|devices| devices.iter().any(|it| it.selector.fits(device)))
    }
}

/// How far all the policies of one device reach there. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaches {
    protected: bool,
    /// Those policies for which rules bound something.
    of: BTreeMap<PolicyKey, Reach>,
}

impl Reaches {
    /// Of policies that hold a device, and of those that have let it go.
    #[must_use]
    pub fn on(
        device: &Device,
        policies: &[(&Policy, &Memory)],
        let_go: &[LetGo],
        guardrails: &Guardrails,
    ) -> Self {
        let mut of = BTreeMap::new();
        for LetGo {
            policy, allowance, ..
        } in let_go
        {
            if allowance.0.is_some() {
                let reach = Reach::new(policy, &Wishes::default(), allowance, device);
                of.insert(policy.clone(), reach);
            }
        }
        let holding = policies.iter().map(|(policy, _)| *policy);
        for policy in holding.filter(|policy| policy.allowance.0.is_some()) {
            of.insert(policy.key.clone(), Reach::of(policy, device));
        }
        Self {
            protected: guardrails.protects(device),
            of,
        }
    }

    /// The same, for a policy that observes: what it would own, and no word of what it may not do.
    #[must_use]
    pub fn of_an_observer(&self, policy: &PolicyKey) -> Self {
        let reach = self.of.get(policy).map(|reach| Reach {
            barred: BTreeSet::new(),
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
    pub fn part(&self, policies: &[(&Policy, &Memory)]) -> Parted {
        let parts = policies.iter().map(|(policy, _)| self.part_one(policy));
        Parted(parts.collect())
    }

    fn part_one(&self, policy: &Policy) -> Option<Part> {
        let denied = |field: PolicyField| {
            let reach = self.of.get(&policy.key);
            reach.is_some_and(|reach| reach.barred.contains(&field))
        };
        let protected = self.protected && policy.mode != Mode::Observe;
        if !protected && !policy.wishes.fields().into_iter().any(denied) {
            return None;
        }
        let with = |mode, wishes| Policy {
            wishes,
            mode,
            ..policy.clone()
        };
        let set_aside = policy.wishes.only(denied);
        let allowed = with(policy.mode, policy.wishes.only(|field| !denied(field)));
        Some(if protected {
            // What it would do if the device were not protected.
            let aside = with(Mode::Enforce, allowed.wishes.clone());
            Part {
                counts: with(policy.mode, policy.wishes.only(|_| false)),
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
    pub fn bars(&self, policy: &PolicyKey, field: &Field) -> Option<Hold> {
        if self.protected {
            return Some(Hold::Protected);
        }
        let barred = self.of.get(policy)?.barred(field.into())?;
        Some(Hold::NotAllowed(barred))
    }

    /// The rule that would allow a policy what no rule allows it here.
    #[must_use]
    pub fn line(&self, policy: &PolicyKey) -> String {
        let reach = self.of.get(policy);
        reach.map(|reach| reach.line.clone()).unwrap_or_default()
    }

    /// What a policy owns of the lists of the device.
    #[must_use]
    pub fn scope(&self, policy: &PolicyKey) -> Scope {
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
pub struct Parted(Vec<Option<Part>>);

#[derive(Debug)]
struct Part {
    /// With what counts.
    counts: Policy,
    /// With what it may not have as the device is protected.
    protected: Option<Policy>,
    /// What no rule allows.
    denied: Wishes,
}

impl Parted {
    /// These policies, which were parted, as they count.
    #[must_use]
    pub fn counting<'a>(
        &'a self,
        policies: &[(&'a Policy, &'a Memory)],
    ) -> Vec<(&'a Policy, &'a Memory)> {
        let parts = policies.iter().zip(&self.0);
        let counting = parts.map(|((policy, memory), part)| {
            let counts = part.as_ref().map_or(*policy, |part| &part.counts);
            (counts, *memory)
        });
        counting.collect()
    }

    /// Those of them that desire what they may not have as the device is protected, with just that.
    #[must_use]
    pub fn protected<'a>(
        &'a self,
        policies: &[(&'a Policy, &'a Memory)],
    ) -> Vec<(&'a Policy, &'a Memory)> {
        let parts = policies.iter().zip(&self.0);
        let protected = parts.filter_map(|((_, memory), part)| {
            let aside = part.as_ref()?.protected.as_ref()?;
            Some((aside, *memory))
        });
        protected.collect()
    }

    /// What no rule allows each of them, as the spec declares it: it is not compared with the device.
    pub fn denied<'a>(
        &'a self,
        policies: &'a [(&'a Policy, &'a Memory)],
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
            Field::Reap => Self::Reap,
        }
    }
}
