//! Which policies the guardrails admit.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{
    AllowedRules, DevicePermissions, Guardrails, Labels, Rule, permissions,
    suggestion::SuggestedRule,
};
use crate::{
    model::{Device, FieldKind, ListSetting, PolicyField},
    plan::{Hold, Mode, Policy, Suspender},
};

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

impl Guardrails {
    /// The policy with its effective mode and rules, or why it is refused. `labels` are those of its
    /// namespace; unknown labels match no rule that selects by labels.
    pub fn admit(&self, policy: Policy, labels: Option<&Labels>) -> Result<Policy, Forbidden> {
        let allowance = self.allowance(&policy, labels)?;
        let mode = match policy.mode {
            // It stays recognizable as invalid, because the records of an invalid policy must not change.
            Mode::Suspended(Suspender::Invalid) => policy.mode,
            Mode::Enforce | Mode::Approve | Mode::Suspended(_) if self.suspended => {
                Mode::Suspended(Suspender::Tailnet)
            }
            // An observing policy sends nothing anyway. Suspended, it would gain a precedence that it never had.
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
        if self.protects(device) {
            return Some(Hold::Protected);
        }
        let permissions = DevicePermissions::of(policy, device);
        permissions.denied(field).map(Hold::NotAllowed)
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
        let own: Vec<Arc<Rule>> = rules
            .iter()
            .filter(|rule| rule.is_for(namespace, labels))
            .cloned()
            .collect();
        // Without a rule for the namespace every field would have the same error.
        let errors = if own.is_empty() {
            vec![("metadata.namespace".to_owned(), self.no_rule(namespace))]
        } else {
            errors(policy, &own)
        };
        if errors.is_empty() {
            return Ok(AllowedRules(Some(own.into())));
        }
        Err(Forbidden {
            errors,
            suggested_rule: SuggestedRule::for_policy(policy, &own).to_string(),
            labels_unknown: labels.is_none()
                && rules
                    .iter()
                    .any(|rule| rule.labels.is_some() && rule.name_matches(namespace)),
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
        // Two rules may allow one list together: each entry is checked by itself.
        let outside = match field.kind() {
            FieldKind::List(ListSetting::Tags) => {
                permissions::outside(allowing, desired.tags.as_deref())
            }
            FieldKind::List(ListSetting::EnabledRoutes) => {
                permissions::outside(allowing, desired.enabled_routes.as_ref())
            }
            FieldKind::List(ListSetting::ExitNode) => {
                // One rule must allow both routes, because a request enables both or none.
                if allowing.any(|rule| rule.allows_exit_node()) {
                    Vec::new()
                } else {
                    vec!["0.0.0.0/0 and ::/0".to_owned()]
                }
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

/// Why a policy is refused, and what would allow it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Forbidden {
    /// What no rule allows: the path of each field, and the error.
    pub errors: Vec<(String, String)>,
    /// The rule that would allow the policy as it is.
    pub suggested_rule: String,
    /// A rule selects by labels, and the labels of the namespace are not known.
    pub labels_unknown: bool,
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
            self.suggested_rule
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
