//! Ids, names, tags and users: the values that select devices.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{Code, naming, rule, settings::tags};

/// Exactly one identity.
pub(in crate::api) fn device_reference() -> Value {
    let given = "[has(self.nodeId), has(self.id), has(self.name), has(self.hostname)]\
                 .filter(given, given).size()";
    json!([
        rule(
            Code::MissingIdentity,
            &format!("{given} > 0"),
            "no device is given",
            "write one of nodeId, id, name and hostname",
        ),
        rule(
            Code::SeveralIdentities,
            &format!("{given} < 2"),
            "more than one of nodeId, id, name and hostname is given",
            "keep one of nodeId, id, name and hostname",
        ),
    ])
}

/// Tags or users, or the explicit choice to trust what machines report.
pub(in crate::api) fn device_selector() -> Value {
    json!([
        rule(
            Code::UntrustedClaims,
            // One error for each mistake: of an empty selector the rule below says what is missing.
            "has(self.tags) || has(self.users) || (has(self.trustClaims) && self.trustClaims) \
             || !(has(self.hostnames) || has(self.os) || has(self.expression))",
            "anyone who runs a machine can choose its hostname and OS",
            "add tags or users, \
             or write trustClaims: true to select only by these",
        ),
        rule(
            Code::EmptySelector,
            // trustClaims alone would select every device of the tailnet.
            "has(self.tags) || has(self.users) || has(self.hostnames) || has(self.os) \
             || has(self.expression)",
            "the selector is empty",
            "write at least one of tags, users, hostnames, os and expression, such as tags: [\"tag:router\"]",
        ),
    ])
}

/// A preferred device id: it becomes a segment of a URL's path.
pub(in crate::api) fn node_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 128,
        "x-kubernetes-validations": [naming(Code::InvalidNodeId,
            "self.matches('^[A-Za-z0-9]{1,64}$')",
            "is not a valid device id", "write 1 to 64 letters and digits, such as n292kg92CNTRL",
        )],
    })
}

/// An older, numeric device id.
pub(in crate::api) fn legacy_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 128,
        "x-kubernetes-validations": [naming(Code::InvalidDeviceId,
            "self.matches('^[0-9]{1,20}$')",
            "is not a valid numeric device id", "write digits only, such as 92960230385, or use nodeId",
        )],
    })
}

/// A name in MagicDNS, with or without the tailnet's domain.
pub(in crate::api) fn magic_dns_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(Code::InvalidMagicDnsName,
            // Lower case only, as the server stores it: another spelling would never match.
            r"self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9-]+)*[.]?$')",
            "is not a valid MagicDNS name", "write it in lower case as the admin console shows it, such as \
             pangolin or pangolin.tailfe8c.ts.net",
        )],
    })
}

/// The hostname that a machine reports: the server accepts any.
pub(in crate::api) fn hostname(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [rule(Code::EmptyHostname,
            "self.size() > 0",
            "the hostname is empty", "write the one that the device reports, such as fra-router",
        )],
    })
}

/// The tags that the named device must have.
pub(in crate::api) fn required_tags(_: &mut SchemaGenerator) -> Schema {
    let help = "write at least one, or remove tags to match any device of the name";
    // An empty list would match any device: a template that renders none must not do that.
    let none = "the list of tags is empty";
    tags(&[rule(Code::EmptyList, "self.size() > 0", none, help)])
}

/// The tags that each selected device has.
pub(in crate::api) fn selected_tags(_: &mut SchemaGenerator) -> Schema {
    let none = "the list of tags is empty";
    let help = "write at least one, or remove tags to match devices of any tags";
    tags(&[rule(Code::EmptyList, "self.size() > 0", none, help)])
}

/// The users of whom one must have registered the named device.
///
/// An empty list is refused: a template that renders none would otherwise match any device.
pub(in crate::api) fn required_users(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 50,
        "x-kubernetes-validations": [rule(Code::EmptyList,
            "self.size() > 0",
            "the list of users is empty", "write at least one, or remove users to match anyone's device",
        )],
        "items": {
            "type": "string",
            "maxLength": 254,
            "x-kubernetes-validations": [naming(Code::NotALogin,
                // A pattern is a mistake here: the user of the one device is known.
                "self.contains('@') && !self.contains('*')",
                "is not a full login", "write one, such as amelie@example.com",
            )],
        },
    })
}

/// The patterns of which one must match the login of the user of each selected device.
pub(in crate::api) fn selected_users(_: &mut SchemaGenerator) -> Schema {
    patterns("users", "login", "*@example.com")
}

/// The hostnames of selected machines.
pub(in crate::api) fn selected_hostnames(_: &mut SchemaGenerator) -> Schema {
    patterns("hostnames", "hostname", "fra-*")
}

/// The operating systems of selected machines.
pub(in crate::api) fn selected_os(_: &mut SchemaGenerator) -> Schema {
    patterns("os", "operating system", "linux")
}

/// The condition on selected devices. The status reports other errors in it: CEL cannot parse CEL.
pub(in crate::api) fn selected_expression(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 1024,
        "x-kubernetes-validations": [
            rule(Code::EmptyExpression,
                "self.matches('[^ \\\\t\\\\r\\\\n]')",
                "the expression is empty", "write a condition, such as device.os == 'linux', or remove \
                 expression to match any device",
            ),
            rule(Code::ExpressionTooLong, "self.size() <= 512", "the expression is too long", "write at most 512 characters"),
            rule(Code::UnsupportedMacro,
                // An early answer for the common form only: the controller's parser refuses the others
                // (docs/decisions/0006).
                "!self.matches('[.][ ]*(all|exists|exists_one|map|filter)[ ]*[(]')",
                "the expression has a macro over a list (all, exists, exists_one, map, filter), which \
                 is not supported", "write an expression such as 'tag:a' in device.tags",
            ),
        ],
    })
}

/// A list of patterns. Empty ones are refused: a template that renders none would otherwise match
/// more devices.
fn patterns(field: &str, one: &str, example: &str) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 50,
        "x-kubernetes-validations": [rule(Code::EmptyList,
            "self.size() > 0",
            &format!("no {one} is given"), &format!("write at least one, or remove {field} to match any"),
        )],
        "items": {
            "type": "string",
            "maxLength": 254,
            "x-kubernetes-validations": [rule(Code::EmptyPattern,
                "self.size() > 0",
                &format!("an empty {one} matches no device"), &format!("write one such as {example}"),
            )],
        },
    })
}
