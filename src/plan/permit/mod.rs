//! Guardrails: which policies a tailnet allows, what they may change, and on which devices.
//!
//! | guardrail          | evaluated for                    | effect                                          |
//! |--------------------|----------------------------------|-------------------------------------------------|
//! | `allowedPolicies`  | a policy ([`Guardrails::admit`]) | the whole policy is refused                     |
//! |                    | a device ([`DevicePermissions`]) | held there; `Exact` owns only allowed entries   |
//! | `protectedDevices` | a device                         | every change of it is held                      |
//! | `suspend`          | all policies                     | each counts as suspended                        |
//!
//! A rule allows a change that matches all of its parts, and *one* such rule is enough: a policy may give a
//! tag to a device if one rule is for its namespace, the field `tags`, that tag, and that device. Parts of
//! different rules never combine.

mod permissions;
mod suggestion;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

pub use permissions::{AllowedEntries, DevicePermissions, Entry, PolicyPermissions, SplitPolicies};

use super::{Glob, Hold, Mode, Policy, Selector, Suspender};
use crate::model::{Device, FieldKind, ListSetting, PolicyField, Route};
use suggestion::SuggestedRule;
pub use suggestion::{yaml_list, yaml_string};

/// The labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// The guardrails of a tailnet. By default there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guardrails {
    /// `None` allows everything.
    rules: Option<Vec<Arc<Rule>>>,
    /// The only allowed namespace, if `allowedPolicies` is absent.
    implied: Option<String>,
    protected: Vec<DeviceRule>,
    suspended: bool,
}

/// A rule of `allowedPolicies`: which policies it allows, and what they may change. An absent part allows
/// everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The names of the namespaces.
    pub names: Option<BTreeSet<String>>,
    /// The labels that the namespaces must have.
    pub labels: Option<Labels>,
    /// The fields that it allows.
    pub fields: Option<BTreeSet<PolicyField>>,
    /// The tags that it allows.
    pub tags: Option<Vec<Glob>>,
    /// The networks whose routes it allows.
    pub routes: Option<Vec<Route>>,
    /// The devices that it is for.
    pub devices: Option<Vec<DeviceRule>>,
}

/// The devices of a guardrail, with their text in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Matches the devices.
    pub selector: Selector,
    /// The manifest's text, in one line.
    pub text: String,
}

impl Guardrails {
    /// The guardrails of a tailnet that declares these rules.
    #[must_use]
    pub fn of_rules(rules: Vec<Rule>) -> Self {
        Self {
            rules: Some(rules.into_iter().map(Arc::new).collect()),
            ..Self::default()
        }
    }

    /// The guardrails of a tailnet that declares none: only policies of the controller's own namespace are
    /// allowed.
    #[must_use]
    pub fn of_namespace(own: &str) -> Self {
        let rule = Rule {
            names: Some(BTreeSet::from([own.to_owned()])),
            ..Rule::default()
        };
        Self {
            rules: Some(vec![Arc::new(rule)]),
            implied: Some(own.to_owned()),
            ..Self::default()
        }
    }

    /// These guardrails, with the devices that no policy may change, and whether all policies are suspended.
    #[must_use]
    pub fn with(self, protected: Vec<DeviceRule>, suspended: bool) -> Self {
        Self {
            protected,
            suspended,
            ..self
        }
    }
}

/// The guardrails of a tailnet, with the known namespaces. By default there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// The declared guardrails.
    pub guardrails: Guardrails,
    /// The labels of the known namespaces.
    pub namespaces: BTreeMap<String, Labels>,
}

impl Admission {
    /// The policy with its effective mode and rules, or why it is refused.
    pub fn admit(&self, policy: Policy) -> Result<Policy, Forbidden> {
        let labels = self.namespaces.get(&policy.key.namespace);
        self.guardrails.admit(policy, labels)
    }
}

/// The rules for one policy, for any device. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedRules(Option<Arc<[Arc<Rule>]>>);

impl AllowedRules {
    /// Whether a rule lets the policy change something on a device. The policy's author must not learn about
    /// other devices, not even whether there are any.
    #[must_use]
    pub fn is_about(&self, device: &Device) -> bool {
        let changes = |rule: &Arc<Rule>| rule.allows_any_field() && rule.is_about(device);
        self.0
            .as_ref()
            .is_none_or(|rules| rules.iter().any(changes))
    }

    /// Whether every rule that lets the policy change the tags of a device also does so after the change.
    #[must_use]
    pub fn keeps_tags(&self, device: &Device, changed: &Device) -> bool {
        let rules = self.0.iter().flat_map(|rules| rules.iter());
        let mut own = rules.filter(|rule| rule.allows(PolicyField::Tags) && rule.is_about(device));
        own.all(|rule| rule.is_about(changed))
    }

    /// Whether a message to the policy's author may name a device that causes a conflict. A device that is
    /// gone may have been anybody's.
    #[must_use]
    pub fn discloses(&self, device: Option<&Device>) -> bool {
        device.map_or_else(|| self.devices().is_none(), |device| self.is_about(device))
    }

    /// The devices of the rules, as the manifest writes them; `None` if a rule is for all devices.
    #[must_use]
    pub fn devices(&self) -> Option<String> {
        let rules = self.0.as_ref()?.iter();
        suggestion::devices_of(rules.filter(|rule| rule.allows_any_field()))
    }
}

/// Why a policy is refused, and what would allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// What no rule allows: the path of each field, and the error.
    pub errors: Vec<(String, String)>,
    /// The rule that would allow the policy as it is.
    pub line: String,
    /// A rule selects by labels, and the labels of the namespace are not known.
    pub selector_errors: bool,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (path, error)) in self.errors.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{path}: {error}")?;
        }
        write!(
            f,
            ". To allow it, give the TailscaleTailnet a rule such as {}",
            self.line
        )
    }
}

/// Why a declared policy is not in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is invalid; all of its errors.
    Invalid(Vec<String>),
    /// The tailnet does not allow it.
    NotAllowed(Forbidden),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(errors) => f.write_str(&errors.join("; ")),
            Self::NotAllowed(forbidden) => forbidden.fmt(f),
        }
    }
}

impl Guardrails {
    /// Whether all policies are suspended.
    #[must_use]
    pub fn suspended(&self) -> bool {
        self.suspended
    }

    /// The policy with its effective mode and rules, or why it is refused. `labels` are those of its
    /// namespace; unknown labels match no rule that selects by labels.
    pub fn admit(&self, policy: Policy, labels: Option<&Labels>) -> Result<Policy, Forbidden> {
        let allowance = self.allowance(&policy, labels)?;
        let mode = match policy.mode {
            Mode::Suspended(Suspender::Invalid) => policy.mode,
            Mode::Enforce | Mode::Approve | Mode::Suspended(_) if self.suspended => {
                Mode::Suspended(Suspender::Tailnet)
            }
            mode => mode,
        };
        Ok(Policy {
            mode,
            allowance,
            ..policy
        })
    }

    /// Why an admitted policy may not change a field of a device, if so. One-shot actions check this before
    /// they are sent. It does not check entries of lists ([`DevicePermissions`]).
    #[must_use]
    pub fn denies(&self, policy: &Policy, field: PolicyField, device: &Device) -> Option<Hold> {
        let protected = || self.protects(device).then_some(Hold::Protected);
        let not_allowed = || {
            let permissions = DevicePermissions::of(policy, device);
            permissions.denied(field).map(Hold::NotAllowed)
        };
        protected().or_else(not_allowed)
    }

    /// Whether a device is protected. To be safe, a device is protected if an expression fails on it. The
    /// entry is not returned, because a policy's author must not learn it.
    #[must_use]
    pub fn protects(&self, device: &Device) -> bool {
        let mut protected = self.protected.iter();
        protected.any(|guarded| guarded.selector.check(device).unwrap_or(true))
    }

    fn allowance(
        &self,
        policy: &Policy,
        labels: Option<&Labels>,
    ) -> Result<AllowedRules, Forbidden> {
        let Some(rules) = &self.rules else {
            return Ok(AllowedRules::default());
        };
        let namespace = &policy.key.namespace;
        let own = rules.iter().filter(|rule| rule.is_for(namespace, labels));
        let own: Vec<Arc<Rule>> = own.cloned().collect();
        let errors = if own.is_empty() {
            vec![("metadata.namespace".to_owned(), self.no_rule(namespace))]
        } else {
            errors(policy, &own)
        };
        if errors.is_empty() {
            return Ok(AllowedRules(Some(own.into())));
        }
        let of_unknown = |rule: &Arc<Rule>| rule.labels.is_some() && rule.name_matches(namespace);
        Err(Forbidden {
            errors,
            line: SuggestedRule::for_policy(policy, &own).to_string(),
            selector_errors: labels.is_none() && rules.iter().any(of_unknown),
        })
    }

    fn no_rule(&self, namespace: &str) -> String {
        match &self.implied {
            Some(own) => format!(
                "policies of {namespace} are not allowed: without allowedPolicies only those of {own} are"
            ),
            None => format!("no rule of allowedPolicies allows the namespace {namespace}"),
        }
    }
}

impl Rule {
    fn name_matches(&self, namespace: &str) -> bool {
        let names = self.names.as_ref();
        names.is_none_or(|names| names.contains(namespace))
    }

    fn is_for(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        let has = |(key, value): (&String, &String)| {
            labels.is_some_and(|labels| labels.get(key) == Some(value))
        };
        let required = self.labels.as_ref();
        self.name_matches(namespace) && required.is_none_or(|required| required.iter().all(has))
    }

    fn allows(&self, field: PolicyField) -> bool {
        let fields = self.fields.as_ref();
        fields.is_none_or(|fields| fields.contains(&field))
    }

    fn allows_any_field(&self) -> bool {
        let fields = self.fields.as_ref();
        fields.is_none_or(|fields| !fields.is_empty())
    }

    fn allows_exit_node(&self) -> bool {
        let Some(routes) = &self.routes else {
            return true;
        };
        let mut exit = Route::exit_node().into_iter();
        exit.all(|route| routes.iter().any(|network| network.covers(&route)))
    }
}

/// What none of these rules allows on any device.
fn errors(policy: &Policy, rules: &[Arc<Rule>]) -> Vec<(String, String)> {
    let mut errors = Vec::new();
    let mut add = |field: PolicyField, error: String| errors.push((format!("spec.{field}"), error));
    for field in policy.desired.fields() {
        let mut allowing = rules.iter().filter(|rule| rule.allows(field)).peekable();
        if allowing.peek().is_none() {
            add(
                field,
                "no rule of allowedPolicies allows this field".to_owned(),
            );
            continue;
        }
        let desired = &policy.desired;
        let outside = match field.kind() {
            FieldKind::List(ListSetting::Tags) => {
                permissions::outside(allowing, desired.tags.as_ref())
            }
            FieldKind::List(ListSetting::EnabledRoutes) => {
                permissions::outside(allowing, desired.enabled_routes.as_ref())
            }
            FieldKind::List(ListSetting::ExitNode) => {
                let is_allowed = allowing.any(|rule| rule.allows_exit_node());
                let both = || "0.0.0.0/0 and ::/0".to_owned();
                (!is_allowed).then(both).into_iter().collect()
            }
            FieldKind::Setting(_)
            | FieldKind::PostureAttributes
            | FieldKind::ExpireKeyAt
            | FieldKind::DeleteInactive => Vec::new(),
        };
        if !outside.is_empty() {
            let entries = outside.join(", ");
            add(
                field,
                format!("no rule of allowedPolicies allows {entries}"),
            );
        }
    }
    errors
}
