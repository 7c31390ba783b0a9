//! Reads the guardrails from the spec of a tailnet.

use super::target;
use crate::{
    api::{AllowedPolicies, GuardedDevices, TailscaleTailnetSpec},
    model::{Refused, Route},
    plan::{DeviceRule, Glob, Guardrails, Rule, Selector, yaml_list, yaml_string},
};

/// The source of guardrails.
#[derive(Debug, Clone, Copy)]
pub struct GuardrailsSource<'a> {
    /// The spec of the tailnet.
    pub spec: &'a TailscaleTailnetSpec,
    /// The controller's own namespace, whose policies are allowed if `allowedPolicies` is absent.
    pub own_namespace: &'a str,
}

impl TryFrom<GuardrailsSource<'_>> for Guardrails {
    type Error = Refused;

    /// The API server's rules refuse most errors at apply. An error here is in an object that is older than
    /// the rule, or in a file.
    fn try_from(source: GuardrailsSource<'_>) -> Result<Self, Refused> {
        let GuardrailsSource {
            spec,
            own_namespace,
        } = source;
        let protected =
            devices(spec.protected_devices.as_deref(), "protectedDevices")?.unwrap_or_default();
        let suspended = spec.suspend.unwrap_or_default();
        let Some(allowed) = &spec.allowed_policies else {
            // Safe by default: anyone who can write policies elsewhere needs a rule that allows it.
            return Ok(Self::of_namespace(own_namespace).with(protected, suspended));
        };
        let rules = allowed
            .iter()
            .enumerate()
            .map(|(i, it)| rule(it, &format!("allowedPolicies[{i}]")))
            .collect::<Result<Vec<_>, _>>()?;
        // Without a rule it allows nothing: only an absent list stands for the controller's own namespace.
        Ok(Self::of_rules(rules).with(protected, suspended))
    }
}

fn rule(given: &AllowedPolicies, path: &str) -> Result<Rule, Refused> {
    let namespaces = given.namespaces.as_ref();
    let names = namespaces.and_then(|it| it.names.as_ref());
    let routes = given.routes.as_ref().map(|routes| {
        let networks = routes.iter().map(|route| {
            let network = Route::network(route);
            network.map_err(|refused| Refused(format!("spec.{path}.routes: {refused}")))
        });
        networks.collect::<Result<Vec<_>, _>>()
    });
    Ok(Rule {
        names: names.map(|names| names.iter().cloned().collect()),
        labels: namespaces.and_then(|it| it.match_labels.clone()),
        fields: given.fields.as_ref().map(|it| it.iter().copied().collect()),
        tags: given.tags.as_deref().map(globs),
        routes: routes.transpose()?,
        devices: devices(given.devices.as_deref(), &format!("{path}.devices"))?,
    })
}

fn devices(
    given: Option<&[GuardedDevices]>,
    path: &str,
) -> Result<Option<Vec<DeviceRule>>, Refused> {
    let Some(given) = given else {
        return Ok(None);
    };
    let guarded = given.iter().enumerate().map(|(i, devices)| {
        Ok(DeviceRule {
            selector: selector(devices, &format!("{path}[{i}]"))?,
            text: text(devices),
        })
    });
    guarded.collect::<Result<_, _>>().map(Some)
}

fn selector(devices: &GuardedDevices, path: &str) -> Result<Selector, Refused> {
    target::guarded(devices, path).map_err(|errors| Refused(errors.join("; ")))
}

fn globs(patterns: &[String]) -> Vec<Glob> {
    patterns.iter().map(|pattern| Glob::new(pattern)).collect()
}

/// The manifest's text, in one line.
fn text(devices: &GuardedDevices) -> String {
    let lists = [
        ("tags", &devices.tags),
        ("users", &devices.users),
        ("hostnames", &devices.hostnames),
        ("os", &devices.os),
    ];
    let mut parts = Vec::new();
    for (name, list) in lists {
        if let Some(items) = list {
            parts.push(format!("{name}: {}", yaml_list(items.iter().cloned())));
        }
    }
    if let Some(expression) = &devices.expression {
        parts.push(format!("expression: {}", yaml_string(expression)));
    }
    format!("{{{}}}", parts.join(", "))
}
