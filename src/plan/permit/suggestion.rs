//! Suggests the rule that would allow what is denied, as a line of YAML.

use std::{fmt, sync::Arc};

use super::{Rule, rules::devices_of};
use crate::{
    model::{PolicyField, Route},
    plan::{DesiredSettings, Policy, PolicyKey},
};

/// A rule for one policy, as a manifest writes it.
pub(super) struct SuggestedRule {
    namespace: String,
    fields: Vec<PolicyField>,
    tags: Vec<String>,
    routes: Vec<String>,
    devices: Option<String>,
}

impl SuggestedRule {
    /// The rule that would allow a policy as it is. It bounds a list if one of these rules, which are those
    /// for its namespace, bounds it.
    pub fn for_policy(policy: &Policy, rules: &[Arc<Rule>]) -> Self {
        let desired = &policy.desired;
        let bounds = |field: PolicyField, bounded: fn(&Rule) -> bool| {
            let mut rules = rules.iter().filter(|rule| rule.allows(field));
            rules.any(|rule| bounded(rule))
        };
        let mut routes: Vec<String> = Vec::new();
        let of_routes = [PolicyField::EnabledRoutes, PolicyField::ExitNode];
        if of_routes
            .into_iter()
            .any(|field| bounds(field, |rule| rule.routes.is_some()))
        {
            let named = desired.enabled_routes.iter().flatten();
            routes.extend(named.map(ToString::to_string));
            // exitNode: false withdraws the two routes, which needs the same permission.
            if desired.exit_node.is_some() {
                routes.extend(Route::exit_node().iter().map(ToString::to_string));
            }
        }
        let tags = if bounds(PolicyField::Tags, |rule| rule.tags.is_some()) {
            let named = desired.tags.iter().flatten();
            named.map(ToString::to_string).collect()
        } else {
            Vec::new()
        };
        Self {
            namespace: policy.key.namespace.clone(),
            fields: desired.fields(),
            tags,
            routes,
            devices: None,
        }
    }

    /// The rule that would allow a policy to change a device that these rules are for. It repeats their
    /// devices, and discloses nothing about the device.
    pub fn for_device(key: &PolicyKey, desired: &DesiredSettings, rules: &[&Arc<Rule>]) -> Self {
        Self {
            namespace: key.namespace.clone(),
            fields: desired.fields(),
            tags: Vec::new(),
            routes: Vec::new(),
            devices: devices_of(rules.iter().copied()),
        }
    }
}

impl fmt::Display for SuggestedRule {
    /// `allowedPolicies: [{namespaces: {names: [network]}, fields: [tags]}]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = plain(&self.namespace);
        write!(
            f,
            "allowedPolicies: [{{namespaces: {{names: [{namespace}]}}"
        )?;
        // An empty list of fields would allow nothing.
        if !self.fields.is_empty() {
            let fields: Vec<&str> = self.fields.iter().map(|field| field.as_str()).collect();
            write!(f, ", fields: [{}]", fields.join(", "))?;
        }
        if !self.tags.is_empty() {
            write!(f, ", tags: {}", yaml_list(self.tags.iter().cloned()))?;
        }
        if !self.routes.is_empty() {
            write!(f, ", routes: {}", yaml_list(self.routes.iter().cloned()))?;
        }
        if let Some(devices) = &self.devices {
            write!(f, ", devices: {devices}")?;
        }
        f.write_str("}]")
    }
}

/// Strings as a list of YAML, in one line.
pub fn yaml_list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| yaml_string(&item)).collect();
    format!("[{}]", items.join(", "))
}

/// A string of YAML.
#[must_use]
pub fn yaml_string(text: &str) -> String {
    // JSON is YAML.
    serde_json::Value::from(text).to_string()
}

/// A name, quoted only if YAML would not read it as a string.
fn plain(name: &str) -> String {
    // kubectl reads YAML 1.1, in which these are booleans and null, and a name of digits is a number.
    const OTHERS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && !OTHERS.contains(&name) {
        name.to_owned()
    } else {
        yaml_string(name)
    }
}
