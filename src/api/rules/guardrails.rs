//! The guardrails of a tailnet.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{Code, naming, naming_keys, rule};
use crate::api::{AllowedPolicies, GuardedDevices, PolicyField};

/// Which policies are allowed. An empty list allows none.
pub(in crate::api) fn allowed_policies(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 20,
        "items": generator.subschema_for::<AllowedPolicies>(),
    })
}

/// The devices that no policy may change.
pub(in crate::api) fn protected_devices(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 20,
        "items": generator.subschema_for::<GuardedDevices>(),
    })
}

/// The devices of a rule.
pub(in crate::api) fn allowed_devices(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 10,
        "x-kubernetes-validations": [rule(Code::EmptyList,
            "self.size() > 0",
            "the list of devices is empty", "write at least one, or remove devices to allow any",
        )],
        "items": generator.subschema_for::<GuardedDevices>(),
    })
}

/// At least one part.
pub(in crate::api) fn allowed_namespaces() -> Value {
    json!([rule(
        Code::MissingNamespaces,
        "has(self.names) || has(self.matchLabels)",
        "no namespace is given",
        "write names or matchLabels, or remove namespaces to allow every one",
    )])
}

/// The names of namespaces.
pub(in crate::api) fn namespace_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 100,
        "x-kubernetes-validations": [rule(Code::EmptyList,
            "self.size() > 0",
            "the list of names is empty", "write at least one, or remove names to match any",
        )],
        "items": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [naming(Code::InvalidNamespace,
                // RFC 1123, as Kubernetes requires of a namespace.
                "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')",
                "is not a valid name of a namespace", "write 1 to 63 lower-case letters, digits or dashes, such as \
                 network",
            )],
        },
    })
}

/// Labels that a namespace has.
pub(in crate::api) fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [naming(Code::InvalidLabelValue,
                // Kubernetes allows an empty value of a label.
                "self.matches('^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$')",
                "is not a valid value of a label", "write at most 63 letters, digits, _ . or -, such as network",
            )],
        },
        "x-kubernetes-validations": [
            rule(Code::EmptyList,
                "self.size() > 0",
                "no label is given", "write at least one, or remove matchLabels to match any",
            ),
            naming_keys(Code::InvalidLabelKey,
                // 253 for the domain, a slash, and 63 for the name.
                "k.size() <= 317 && k.matches('^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$')",
                "is not a valid key of a label", "write one such as team or example.com/team",
            ),
        ],
    })
}

/// The fields of a policy.
pub(in crate::api) fn allowed_fields(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 20,
        "x-kubernetes-validations": [rule(Code::EmptyList,
            "self.size() > 0",
            "the list of fields is empty", "write at least one, or remove fields to allow all",
        )],
        "items": generator.subschema_for::<PolicyField>(),
    })
}

/// The tags that a policy may add and remove.
pub(in crate::api) fn allowed_tags(_: &mut SchemaGenerator) -> Schema {
    tag_patterns("write at least one, or remove tags to allow any (and from fields to allow none)")
}

/// The tags of guarded devices.
pub(in crate::api) fn guarded_tags(_: &mut SchemaGenerator) -> Schema {
    tag_patterns("write at least one, or remove tags to match devices of any tags")
}

fn tag_patterns(help: &str) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 50,
        // An empty list would match every device.
        "x-kubernetes-validations": [rule(Code::EmptyList, "self.size() > 0", "the list of tags is empty", help)],
        "items": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [
                naming(Code::MissingTagPrefix,
                    "self.startsWith('tag:')",
                    "is not a valid tag", "write it with its prefix, such as tag:net-*",
                ),
                naming(Code::InvalidTag,
                    // One error for each mistake: a value without the prefix breaks the rule above.
                    "!self.startsWith('tag:') || self.matches('^tag:[A-Za-z*?][A-Za-z0-9*?-]*$')",
                    "is not a valid tag", "after tag: write a letter, then letters, digits or dashes, with * for any \
                     characters and ? for any one, such as tag:net-*",
                ),
            ],
        },
    })
}

/// The networks in which a policy may approve and withdraw routes.
pub(in crate::api) fn allowed_routes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 100,
        "x-kubernetes-validations": [rule(Code::EmptyList,
            "self.size() > 0",
            "the list of routes is empty", "write at least one, or remove routes to allow any (and \
             enabledRoutes from fields to allow none)",
        )],
        "items": {
            "type": "string",
            "maxLength": 43,
            "x-kubernetes-validations": [
                naming(Code::InvalidCidr,
                    // Here 0.0.0.0/0 and ::/0 are allowed: they stand for every route.
                    "isCIDR(self)",
                    "is not a valid CIDR", "write a network and its prefix length, such as 10.0.0.0/8",
                ),
                naming(Code::HostBits,
                    "!isCIDR(self) || cidr(self).masked() == cidr(self)",
                    "has host bits", "write the address of the network itself, as 10.0.0.0/8 and not \
                     10.0.0.1/8",
                ),
            ],
        },
    })
}

/// Tags or users, or the explicit choice to trust what machines report.
pub(in crate::api) fn guarded_devices() -> Value {
    // As for a policy: a machine could otherwise leave a protection by what it reports.
    super::device_selector()
}
