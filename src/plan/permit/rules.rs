//! The rules of `allowedPolicies`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    model::{Device, PolicyField, Route},
    plan::{Glob, Selector},
};

/// The labels of a namespace.
pub type Labels = BTreeMap<String, String>;

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

impl Rule {
    pub(super) fn name_matches(&self, namespace: &str) -> bool {
        let names = self.names.as_ref();
        names.is_none_or(|names| names.contains(namespace))
    }

    pub(super) fn is_for(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        self.name_matches(namespace)
            && self.labels.as_ref().is_none_or(|required| {
                // Unknown labels match nothing: a guess could give a namespace the tailnet.
                required
                    .iter()
                    .all(|(key, value)| labels.is_some_and(|it| it.get(key) == Some(value)))
            })
    }

    pub(super) fn allows(&self, field: PolicyField) -> bool {
        let fields = self.fields.as_ref();
        fields.is_none_or(|fields| fields.contains(&field))
    }

    fn allows_any_field(&self) -> bool {
        let fields = self.fields.as_ref();
        fields.is_none_or(|fields| !fields.is_empty())
    }

    pub(super) fn allows_exit_node(&self) -> bool {
        let Some(routes) = &self.routes else {
            return true;
        };
        let mut exit = Route::exit_node().into_iter();
        exit.all(|route| routes.iter().any(|network| network.covers(&route)))
    }

    /// Whether the rule is, or may be, for a device. It is not if an expression fails on the device. While
    /// that is unknown, nothing is sent for its policies.
    pub(super) fn is_about(&self, device: &Device) -> bool {
        let devices = self.devices.as_ref();
        devices.is_none_or(|devices| devices.iter().any(|it| it.selector.may_match(device)))
    }
}

/// The devices of a guardrail, with their text in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Matches the devices.
    pub selector: Selector,
    /// The manifest's text, in one line.
    pub text: String,
}

/// The rules for one policy, for any device. By default everything is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedRules(pub(super) Option<Arc<[Arc<Rule>]>>);

impl AllowedRules {
    /// Whether a rule lets the policy change something on a device. The policy's author must not learn about
    /// other devices, not even whether there are any.
    #[must_use]
    pub fn is_about(&self, device: &Device) -> bool {
        self.0.as_ref().is_none_or(|rules| {
            // A rule of no fields allows nothing, so it must disclose nothing either.
            rules
                .iter()
                .any(|rule| rule.allows_any_field() && rule.is_about(device))
        })
    }

    /// Whether every rule that lets the policy change the tags of a device also does so after the change.
    #[must_use]
    pub fn keeps_tags(&self, device: &Device, changed: &Device) -> bool {
        let rules = self.0.iter().flat_map(|rules| rules.iter());
        let mut own = rules.filter(|rule| rule.allows(PolicyField::Tags) && rule.is_about(device));
        // Every rule: one that ends with the change would let two policies change the tags back and forth.
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
        devices_of(rules.filter(|rule| rule.allows_any_field()))
    }
}

/// The devices of these rules, as a manifest writes them; `None` if one of the rules is for all devices.
pub(super) fn devices_of<'a>(rules: impl Iterator<Item = &'a Arc<Rule>>) -> Option<String> {
    let mut texts: Vec<&str> = Vec::new();
    for rule in rules {
        for guarded in rule.devices.as_ref()? {
            if !texts.contains(&guarded.text.as_str()) {
                texts.push(&guarded.text);
            }
        }
    }
    Some(format!("[{}]", texts.join(", ")))
}
