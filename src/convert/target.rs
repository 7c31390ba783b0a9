//! Reads which devices a spec names or selects.

use super::spec_errors::SpecErrors;
use crate::{
    api::{DeviceReference, DeviceSelector, GuardedDevices, TailscaleDevicePolicySpec},
    model::TagSet,
    plan::{DeviceTarget, Glob, Identity, Selector, Target},
};

/// Parses a reference to a device.
pub fn device_target(device: &DeviceReference) -> Result<DeviceTarget, Vec<String>> {
    let mut errors = SpecErrors::default();
    let target = errors.device(device);
    errors.or(target)
}

/// Parses a selector of devices.
pub fn selector(selector: &DeviceSelector) -> Result<Selector, Vec<String>> {
    let mut errors = SpecErrors::default();
    let selector = errors.selector(selector, Tags::Exact, "deviceSelector");
    errors.or(selector)
}

/// Parses the devices of a guardrail: a selector like that of a policy, except that its tags may be patterns.
/// `path` is its place in the spec.
pub(super) fn guarded(devices: &GuardedDevices, path: &str) -> Result<Selector, Vec<String>> {
    let mut errors = SpecErrors::default();
    let selector = errors.selector(&devices.into(), Tags::Patterns, path);
    errors.or(selector)
}

/// How the tags of a selector are written.
#[derive(Debug, Clone, Copy)]
enum Tags {
    /// A device must have each of them.
    Exact,
    /// A device must have a tag for each of these patterns.
    Patterns,
}

impl From<&GuardedDevices> for DeviceSelector {
    fn from(devices: &GuardedDevices) -> Self {
        // All fields by name, so that the compiler notices a new one.
        let GuardedDevices {
            tags,
            users,
            hostnames,
            os,
            expression,
            trust_claims,
        } = devices.clone();
        Self {
            tags,
            users,
            hostnames,
            os,
            expression,
            trust_claims,
        }
    }
}

impl SpecErrors {
    pub(super) fn target(&mut self, spec: &TailscaleDevicePolicySpec) -> Target {
        match (&spec.device, &spec.device_selector) {
            (Some(device), None) => Target::Device(self.device(device)),
            (None, Some(selector)) => {
                self.refuse_unique(spec);
                Target::Selector(self.selector(selector, Tags::Exact, "deviceSelector"))
            }
            _ => {
                // The target below is a placeholder: a policy with this error falls back to the recorded device
                // (docs/decisions/0018).
                self.add("device", "write exactly one of device and deviceSelector");
                Target::Selector(Selector::default())
            }
        }
    }

    fn selector(&mut self, selector: &DeviceSelector, written: Tags, path: &str) -> Selector {
        let given = [
            &selector.tags,
            &selector.users,
            &selector.hostnames,
            &selector.os,
        ];
        let nothing = given == [&None; 4] && selector.expression.is_none();
        if nothing || given.into_iter().flatten().any(Vec::is_empty) {
            self.add(
                path,
                "write at least one of tags, users, hostnames, os and expression, none empty",
            );
        }
        // Tags and users come from the tailnet. Everything else is what a machine says of itself.
        let facts = selector.tags.is_some() || selector.users.is_some();
        if !facts && selector.trust_claims != Some(true) {
            self.add(
                path,
                "anyone who runs a machine can choose its hostname and OS: add tags or users, or write \
                 trustClaims: true",
            );
        }
        let texts = |texts: &Option<Vec<String>>| texts.clone().unwrap_or_default();
        let globs = |texts: &Option<Vec<String>>| {
            let texts = texts.iter().flatten();
            texts.map(|text| Glob::new(text)).collect::<Vec<_>>()
        };
        let (tags, tag_patterns) = match written {
            Tags::Exact => {
                let tags = selector.tags.as_deref().unwrap_or_default();
                (self.set(&format!("{path}.tags"), tags).into(), Vec::new())
            }
            Tags::Patterns => (TagSet::new(), globs(&selector.tags)),
        };
        Selector {
            tags,
            tag_patterns,
            users: globs(&selector.users),
            hostnames: texts(&selector.hostnames)
                .iter()
                // Hostnames have no case: a machine may report `FRA-Router`.
                .map(|text| Glob::of_folded(text))
                .collect(),
            os: texts(&selector.os),
            expression: self.one(&format!("{path}.expression"), selector.expression.as_ref()),
        }
    }

    fn device(&mut self, device: &DeviceReference) -> DeviceTarget {
        let node_id = self.one("device.nodeId", device.node_id.as_ref());
        let mut identities = [
            node_id.map(Identity::NodeId),
            device.id.clone().map(Identity::LegacyId),
            device.name.clone().map(Identity::Name),
            device.hostname.clone().map(Identity::Hostname),
        ]
        .into_iter()
        .flatten();
        let given = [&device.node_id, &device.id, &device.name, &device.hostname];
        // Those that are given and not those that can be parsed: an invalid nodeId has its own error.
        if given.into_iter().flatten().count() != 1 {
            self.add(
                "device",
                "write exactly one of nodeId, id, name and hostname",
            );
        }
        for (field, list) in [("tags", &device.tags), ("users", &device.users)] {
            // It would match any device of the name: a template that renders none must not do that.
            if list.as_ref().is_some_and(Vec::is_empty) {
                self.add(
                    &format!("device.{field}"),
                    "write at least one, or remove the field",
                );
            }
        }
        // A placeholder that names no device, for a policy that is refused.
        let identity = identities
            .next()
            .unwrap_or_else(|| Identity::Hostname(String::new()));
        DeviceTarget {
            identity,
            tags: self
                .set("device.tags", device.tags.as_deref().unwrap_or_default())
                .into(),
            users: device.users.clone().unwrap_or_default(),
        }
    }
}
