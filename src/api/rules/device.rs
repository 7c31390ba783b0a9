//! Which devices are meant: their ids, names, tags and users.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{naming, rule, settings::tags};

/// Exactly one identity.
pub(in crate::api) fn device_reference() -> Value {
    let given = "[has(self.nodeId), has(self.id), has(self.name), has(self.hostname)]\
                 .filter(given, given).size()";
    json!([
        rule(
            &format!("{given} > 0"),
            "no device is named: write one of nodeId, id, name and hostname",
        ),
        rule(
            &format!("{given} < 2"),
            "the device is named more than once: keep one of nodeId, id, name and hostname",
        ),
    ])
}

/// Facts, or the word that claims will do.
pub(in crate::api) fn device_selector() -> Value {
    json!([
        rule(
            "has(self.tags) || has(self.users) || (has(self.trustClaims) && self.trustClaims)",
            "a machine chooses its hostname and what it says of its system: write tags or users too, \
             or trustClaims: true to select by such claims alone",
        ),
        rule(
            "has(self.tags) || has(self.users) || has(self.hostnames) || has(self.os) \
             || has(self.expression)",
            "nothing is selected by: write at least one of tags, users, hostnames, os and expression",
        ),
    ])
}

/// A preferred device id: it becomes a segment of a URL's path.
pub(in crate::api) fn node_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 128,
        "x-kubernetes-validations": [naming(
            "self.matches('^[A-Za-z0-9]{1,64}$')",
            "is no device id: write 1 to 64 letters and digits, such as n292kg92CNTRL",
        )],
    })
}

/// An older, numeric device id.
pub(in crate::api) fn legacy_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 128,
        "x-kubernetes-validations": [naming(
            "self.matches('^[0-9]{1,20}$')",
            "is no numeric device id: write digits only, such as 92960230385, or use nodeId",
        )],
    })
}

/// A name in MagicDNS, with or without the tailnet's domain.
pub(in crate::api) fn magic_dns_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(
            r"self.matches('^[a-z0-9](-?[a-z0-9])*([.][a-z0-9-]+)*$')",
            "is no MagicDNS name: write it in lower case as the admin console shows it, such as \
             pangolin or pangolin.tailfe8c.ts.net",
        )],
    })
}

/// What a machine calls itself: the server takes anything.
pub(in crate::api) fn hostname(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            "the hostname is empty: write the one that the device reports, such as fra-router",
        )],
    })
}

/// The tags that a device must have to be the one that is meant.
pub(in crate::api) fn required_tags(_: &mut SchemaGenerator) -> Schema {
    let none = "no tag is asked for: write at least one, or leave tags out to mean any device of the \
                name";
    tags(&[rule("self.size() > 0", none)])
}

/// The tags that each selected device has.
pub(in crate::api) fn selected_tags(_: &mut SchemaGenerator) -> Schema {
    let none =
        "no tag is asked for: write at least one, or leave tags out to mean devices of any tags";
    tags(&[rule("self.size() > 0", none)])
}

/// The users of whom one must have registered a device for it to be the one that is meant.
///
/// An empty list is refused: a template that renders none would otherwise widen who is meant.
pub(in crate::api) fn required_users(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 50,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            "no user is asked for: write at least one, or leave users out to mean anyone's device",
        )],
        "items": {
            "type": "string",
            "maxLength": 254,
            "x-kubernetes-validations": [naming(
                "self.contains('@') && !self.contains('*')",
                "is no login: write it in full, such as amelie@example.com",
            )],
        },
    })
}

/// The logins of which one must fit the user of each selected device.
pub(in crate::api) fn selected_users(_: &mut SchemaGenerator) -> Schema {
    patterns("users", "login", "*@example.com")
}

/// What selected machines call themselves.
pub(in crate::api) fn selected_hostnames(_: &mut SchemaGenerator) -> Schema {
    patterns("hostnames", "hostname", "fra-*")
}

/// The operating systems of selected machines.
pub(in crate::api) fn selected_os(_: &mut SchemaGenerator) -> Schema {
    patterns("os", "operating system", "linux")
}

/// The condition on selected devices. What is wrong with it in other ways is said in the status: there
/// is no CEL in CEL.
pub(in crate::api) fn selected_expression(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 1024,
        "x-kubernetes-validations": [
            rule(
                "self.matches('[^ \\\\t\\\\r\\\\n]')",
                "the expression is empty: write a condition, such as device.os == 'linux', or leave \
                 expression out to mean any device",
            ),
            rule("self.size() <= 512", "the expression is too long: write at most 512 characters"),
            rule(
                "!self.matches('[.][ ]*(all|exists|exists_one|map|filter)[ ]*[(]')",
                "the expression walks over a list (all, exists, exists_one, map, filter), which is not \
                 offered: write such as 'tag:a' in device.tags",
            ),
        ],
    })
}

/// A list of texts to fit. Empty ones are refused: a template that renders none would otherwise
/// widen who is meant.
fn patterns(field: &str, one: &str, example: &str) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 50,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            &format!("no {one} is asked for: write at least one, or leave {field} out to mean any"),
        )],
        "items": {
            "type": "string",
            "maxLength": 254,
            "x-kubernetes-validations": [rule(
                "self.size() > 0",
                &format!("an empty {one} fits no device: write one such as {example}"),
            )],
        },
    })
}
