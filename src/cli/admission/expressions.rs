//! The rules of `allowedPolicies` in CEL. The planner has the same rules for plans (`plan/permit`).

use crate::{
    api::{AllowedNamespaces, AllowedPolicies},
    model::PolicyField,
};

/// The expressions for one tailnet.
#[derive(Debug)]
pub(super) struct Expressions {
    /// `rule0`, `rule1`, …: whether the rule is for the namespace of the policy.
    pub variables: Vec<(String, String)>,
    /// What must hold.
    pub validations: Vec<Check>,
}

/// An expression that must hold, and one for the message if it does not.
#[derive(Debug)]
pub(super) struct Check {
    pub expression: String,
    pub message: String,
}

impl Expressions {
    pub fn of(tailnet: &str, rules: Option<&[AllowedPolicies]>, own_namespace: &str) -> Self {
        // Absent, only the controller's own namespace is allowed.
        let implied = [AllowedPolicies {
            namespaces: Some(AllowedNamespaces {
                names: Some(vec![own_namespace.to_owned()]),
                match_labels: None,
            }),
            ..AllowedPolicies::default()
        }];
        let rules = rules.unwrap_or(&implied);
        let variables = rules
            .iter()
            .enumerate()
            .map(|(i, rule)| (format!("rule{i}"), is_for_namespace(rule)));
        let mut validations = vec![Check {
            expression: any((0..rules.len()).map(variable)),
            message: format!(
                "{} + request.namespace",
                quoted(&format!(
                    "allowedPolicies of the TailscaleTailnet {tailnet} allows no policies of the namespace "
                ))
            ),
        }];
        // One check for each field, so that the message names the field to edit.
        for field in PolicyField::ALL {
            validations.extend(allows_field(tailnet, rules, field));
        }
        validations.extend(allows_entries(
            tailnet,
            rules,
            PolicyField::Tags,
            tag_is_inside,
        ));
        validations.extend(allows_entries(
            tailnet,
            rules,
            PolicyField::EnabledRoutes,
            route_is_inside,
        ));
        validations.extend(allows_exit_node(tailnet, rules));
        Self {
            variables: variables.collect(),
            validations,
        }
    }
}

/// A string of CEL. Every string of JSON is one.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

fn variable(rule: usize) -> String {
    format!("variables.rule{rule}")
}

/// Whether one of these holds.
fn any(expressions: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = expressions.into_iter().collect();
    if all.is_empty() {
        "false".to_owned()
    } else {
        all.join(" || ")
    }
}

fn is_for_namespace(rule: &AllowedPolicies) -> String {
    let mut parts = Vec::new();
    if let Some(namespaces) = &rule.namespaces {
        if let Some(names) = &namespaces.names {
            parts.push(format!("request.namespace in {}", list(names)));
        }
        for (key, value) in namespaces.match_labels.iter().flatten() {
            // As optionals: an absent label is not an empty one.
            parts.push(format!(
                "namespaceObject.metadata.?labels[?{}] == optional.of({})",
                quoted(key),
                quoted(value)
            ));
        }
    }
    // A rule without namespaces is for all of them.
    if parts.is_empty() {
        "true".to_owned()
    } else {
        parts.join(" && ")
    }
}

fn allows(rule: &AllowedPolicies, field: PolicyField) -> bool {
    let fields = rule.fields.as_ref();
    fields.is_none_or(|fields| fields.contains(&field))
}

/// The rules that allow a field, with their numbers.
fn allowing(
    rules: &[AllowedPolicies],
    field: PolicyField,
) -> impl Iterator<Item = (usize, &AllowedPolicies)> {
    let numbered = rules.iter().enumerate();
    numbered.filter(move |(_, rule)| allows(rule, field))
}

/// The policy does not declare the field, or this holds. Nothing is said about a field in a namespace that no rule
/// is for: one message is enough.
fn if_declared(rules: &[AllowedPolicies], field: PolicyField, holds: &str) -> String {
    let no_rule = any((0..rules.len()).map(variable));
    format!("!has(object.spec.{field}) || !({no_rule}) || {holds}")
}

fn allows_field(tailnet: &str, rules: &[AllowedPolicies], field: PolicyField) -> Option<Check> {
    // A check that always holds would only cost time for each request.
    if rules.iter().all(|rule| allows(rule, field)) {
        return None;
    }
    let some = any(allowing(rules, field).map(|(i, _)| variable(i)));
    let message = format!(
        "spec.{field}: allowedPolicies of the TailscaleTailnet {tailnet} does not allow this field"
    );
    Some(Check {
        expression: if_declared(rules, field, &some),
        message: quoted(&message),
    })
}

/// Each entry of a list is allowed by some rule; each is checked by itself, as in plans.
fn allows_entries(
    tailnet: &str,
    rules: &[AllowedPolicies],
    field: PolicyField,
    is_inside: fn(&AllowedPolicies) -> Option<String>,
) -> Option<Check> {
    let mut bounded = false;
    let parts: Vec<String> = allowing(rules, field)
        .map(|(i, rule)| match is_inside(rule) {
            Some(inside) => {
                bounded = true;
                format!("{} && ({inside})", variable(i))
            }
            None => variable(i),
        })
        .collect();
    // No rule says which entries, so each of them allows all.
    if !bounded {
        return None;
    }
    let some = any(allowing(rules, field).map(|(i, _)| variable(i)));
    let inside = any(parts);
    let entries = format!("object.spec.{field}");
    let message = quoted(&format!(
        "spec.{field}: allowedPolicies of the TailscaleTailnet {tailnet} does not allow "
    ));
    Some(Check {
        // Where no rule allows the field at all, that is the message.
        expression: if_declared(
            rules,
            field,
            &format!("!({some}) || {entries}.all(entry, {inside})"),
        ),
        message: format!("{message} + {entries}.filter(entry, !({inside})).join(\", \")"),
    })
}

fn tag_is_inside(rule: &AllowedPolicies) -> Option<String> {
    let patterns = rule.tags.as_ref()?;
    let matches = |pattern: &String| format!("entry.matches({})", quoted(&expression(pattern)));
    Some(any(patterns.iter().map(matches)))
}

/// The regular expression of a pattern. RE2 has the syntax of the crate regex.
fn expression(pattern: &str) -> String {
    let mut text = String::from("^");
    for letter in pattern.chars() {
        match letter {
            '*' => text.push_str(".*"),
            '?' => text.push('.'),
            // Every other letter stands for itself: a dot in a tag must not match any letter.
            letter => text.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4]))),
        }
    }
    text.push('$');
    text
}

fn route_is_inside(rule: &AllowedPolicies) -> Option<String> {
    let networks = rule.routes.as_ref()?;
    Some(any(networks.iter().map(|network| {
        format!("cidr({}).containsCIDR(entry)", quoted(network))
    })))
}

fn allows_exit_node(tailnet: &str, rules: &[AllowedPolicies]) -> Option<Check> {
    let has_both = |rule: &AllowedPolicies| {
        let Some(networks) = &rule.routes else {
            return true;
        };
        ["0.0.0.0/0", "::/0"]
            .iter()
            .all(|exit| networks.iter().any(|network| network == exit))
    };
    let field = PolicyField::ExitNode;
    if allowing(rules, field).all(|(_, rule)| has_both(rule)) {
        return None;
    }
    let some = any(allowing(rules, field).map(|(i, _)| variable(i)));
    // An exit node needs both routes, and one rule must allow both, as in plans.
    let both = allowing(rules, field).filter(|(_, rule)| has_both(rule));
    let both = any(both.map(|(i, _)| variable(i)));
    let message = format!(
        "spec.{field}: allowedPolicies of the TailscaleTailnet {tailnet} does not allow 0.0.0.0/0 and ::/0"
    );
    Some(Check {
        expression: if_declared(rules, field, &format!("!({some}) || {both}")),
        message: quoted(&message),
    })
}
