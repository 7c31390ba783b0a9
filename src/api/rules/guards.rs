//! What may be done through a tailnet.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{naming, naming_keys, rule};
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

/// The devices that no policy changes.
pub(in crate::api) fn protected_devices(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 20,
        "items": generator.subschema_for::<GuardedDevices>(),
    })
}

/// The devices that a rule is about.
pub(in crate::api) fn allowed_devices(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 10,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            "no device is allowed: write at least one, or leave devices out to allow any",
        )],
        "items": generator.subschema_for::<GuardedDevices>(),
    })
}

/// At least one part.
pub(in crate::api) fn allowed_namespaces() -> Value {
    json!([rule(
        "has(self.names) || has(self.matchLabels)",
        "no namespace is named: write names or matchLabels, or leave namespaces out to allow every one",
    )])
}

/// The names of namespaces.
pub(in crate::api) fn namespace_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 100,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            "no namespace is named: write at least one, or leave names out to mean any",
        )],
        "items": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [naming(
                "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')",
                "is no name of a namespace: write 1 to 63 lower-case letters, digits or dashes, such as \
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
            "x-kubernetes-validations": [naming(
                "self.matches('^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$')",
                "is no value of a label: write at most 63 letters, digits, _ . or -, such as network",
            )],
        },
        "x-kubernetes-validations": [
            rule(
                "self.size() > 0",
                "no label is named: write at least one, or leave matchLabels out to mean any",
            ),
            naming_keys(
                "k.size() <= 317 && k.matches('^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$')",
                "is no key of a label: write one such as team or example.com/team",
            ),
        ],
    })
}

/// The fields of a policy.
pub(in crate::api) fn allowed_fields(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 20,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            "no field is allowed: write at least one, or leave fields out to allow all",
        )],
        "items": generator.subschema_for::<PolicyField>(),
    })
}

/// The tags that may be given and taken.
pub(in crate::api) fn allowed_tags(_: &mut SchemaGenerator) -> Schema {
    tag_patterns(
        "no tag is allowed: write at least one, or leave tags out to allow any (and out of fields to \
         allow none)",
    )
}

/// The tags of guarded devices.
pub(in crate::api) fn guarded_tags(_: &mut SchemaGenerator) -> Schema {
    tag_patterns(
        "no tag is asked for: write at least one, or leave tags out to mean devices of any tags",
    )
}

fn tag_patterns(none: &str) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 50,
        "x-kubernetes-validations": [rule("self.size() > 0", none)],
        "items": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [
                naming(
                    "self.startsWith('tag:')",
                    "is no tag: write it with its prefix, such as tag:net-*",
                ),
                naming(
                    "!self.startsWith('tag:') || self.matches('^tag:[A-Za-z*?][A-Za-z0-9*?-]*$')",
                    "is no tag: after tag: write a letter, then letters, digits or dashes, with * for any \
                     characters and ? for any one, such as tag:net-*",
                ),
            ],
        },
    })
}

/// The networks of which routes may be approved and withdrawn.
pub(in crate::api) fn allowed_routes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 100,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            "no route is allowed: write at least one, or leave routes out to allow any (and \
             enabledRoutes out of fields to allow none)",
        )],
        "items": {
            "type": "string",
            "maxLength": 43,
            "x-kubernetes-validations": [
                naming(
                    "isCIDR(self)",
                    "is no CIDR: write a network and its prefix length, such as 10.0.0.0/8",
                ),
                naming(
                    "!isCIDR(self) || cidr(self).masked() == cidr(self)",
                    "has host bits: write the address of the network itself, as 10.0.0.0/8 and not \
                     10.0.0.1/8",
                ),
            ],
        },
    })
}

/// Facts, or the word that claims will do.
pub(in crate::api) fn guarded_devices() -> Value {
    super::device_selector()
}
