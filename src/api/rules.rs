//! What `kubectl apply` itself refuses: the schema of each value that has rules.
//!
//! The API server checks the types, then evaluates the CEL rules in `x-kubernetes-validations`; each
//! message says what to write instead. The parsers in [`crate::model`] refuse the same values with
//! the same reasons where there is no API server.
//!
//! - Every list, map and string has a maximum: the API server estimates the cost of a rule from it,
//!   and refuses a CRD whose rules could cost too much.
//! - A maximum by `maxLength` or `maxItems` is refused in words that do not say what to write, and
//!   keeps the rules from being evaluated. So where the field itself has a maximum, a rule says it,
//!   and the one in the schema is larger.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// A rule with a fixed message.
fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// A rule on a string, whose message begins with the value: `'VALUE' …`.
fn naming(rule: &str, message: &str) -> Value {
    json!({
        "rule": rule,
        "message": format!("the value {message}"),
        "messageExpression": format!(r#""'" + self + "' {message}""#),
    })
}

/// A rule on each key of a map, whose message begins with the first that breaks it: `'KEY' …`.
fn naming_keys(rule: &str, message: &str) -> Value {
    json!({
        "rule": format!("self.all(k, {rule})"),
        "message": format!("a key {message}"),
        "messageExpression":
            format!(r#""'" + self.filter(k, !({rule}))[0] + "' {message}""#),
    })
}

/// The rules across the fields of a policy.
pub(super) fn policy() -> Value {
    let given = "[has(self.device), has(self.deviceSelector)].filter(given, given).size()";
    let only_one = |field: &str| {
        json!({
            "rule": format!("!has(self.deviceSelector) || !has(self.{field})"),
            "message": format!("no two devices can have one {field}: write device instead of \
                                deviceSelector, or leave {field} out"),
            "fieldPath": format!(".{field}"),
        })
    };
    json!([rule(
        &format!("{given} > 0"),
        "no device is named: write device for one, or deviceSelector for all that fit",
    ), rule(
        &format!("{given} < 2"),
        "device and deviceSelector are both given: keep one of them",
    ), only_one("name"), only_one("ipv4"), {
        "rule": "!has(self.tags) || self.tags.size() > 0 \
                 || (has(self.ownership) && has(self.ownership.tags) \
                     && self.ownership.tags == 'AtLeast')",
        "message": "the API cannot take the last tag from a device: write at least one tag, or leave \
                    tags out to leave them as they are",
        "fieldPath": ".tags",
    }, {
        "rule": "!has(self.authorized) || self.authorized \
                 || (has(self.allowDisruption) && 'Deauthorize' in self.allowDisruption)",
        "message": "authorized: false cuts the device off: write allowDisruption: [Deauthorize] \
                    beside it, or leave authorized out",
        "fieldPath": ".authorized",
    }])
}

/// A place among the policies that wish for one setting.
pub(super) fn priority(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "format": "int32",
        "x-kubernetes-validations": [rule(
            "self >= -1000 && self <= 1000",
            "the priority is out of range: write one from -1000 to 1000",
        )],
    })
}

/// The rules across the fields of an invite.
pub(super) fn invite() -> Value {
    json!([rule(
        "self == oldSelf",
        "an invite cannot be changed once it is made: create another TailscaleDeviceInvite, and \
         delete this one if it is not wanted any more",
    )])
}

/// Exactly one identity.
pub(super) fn device_reference() -> Value {
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
pub(super) fn device_selector() -> Value {
    json!([
        rule(
            "has(self.tags) || has(self.users) || (has(self.trustClaims) && self.trustClaims)",
            "a machine chooses its hostname and what it says of its system: write tags or users too, \
             or trustClaims: true to select by such claims alone",
        ),
        rule(
            "has(self.tags) || has(self.users) || has(self.hostnames) || has(self.os)",
            "nothing is selected by: write at least one of tags, users, hostnames and os",
        ),
    ])
}

/// Exactly one typed value.
pub(super) fn posture_attribute() -> Value {
    let given = "[has(self.string), has(self.integer), has(self.boolean)]\
                 .filter(given, given).size()";
    json!([
        rule(
            &format!("{given} > 0"),
            "no value is given: write one of string, integer and boolean",
        ),
        rule(
            &format!("{given} < 2"),
            "more than one value is given: keep one of string, integer and boolean",
        ),
    ])
}

/// The tags that a device shall have.
pub(super) fn wished_tags(_: &mut SchemaGenerator) -> Schema {
    tags(&[])
}

/// The tags that a device must have to be the one that is meant.
pub(super) fn required_tags(_: &mut SchemaGenerator) -> Schema {
    let none = "no tag is asked for: write at least one, or leave tags out to mean any device of the \
                name";
    tags(&[rule("self.size() > 0", none)])
}

/// The tags that each selected device has.
pub(super) fn selected_tags(_: &mut SchemaGenerator) -> Schema {
    let none =
        "no tag is asked for: write at least one, or leave tags out to mean devices of any tags";
    tags(&[rule("self.size() > 0", none)])
}

/// The logins of which one must fit the user of each selected device.
pub(super) fn selected_users(_: &mut SchemaGenerator) -> Schema {
    patterns("users", "login", "*@example.com")
}

/// What selected machines call themselves.
pub(super) fn selected_hostnames(_: &mut SchemaGenerator) -> Schema {
    patterns("hostnames", "hostname", "fra-*")
}

/// The operating systems of selected machines.
pub(super) fn selected_os(_: &mut SchemaGenerator) -> Schema {
    patterns("os", "operating system", "linux")
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

fn tags(rules: &[Value]) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 50,
        "x-kubernetes-validations": rules,
        "items": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [
                naming(
                    "self.startsWith('tag:')",
                    "is no tag: write it with its prefix, such as tag:router",
                ),
                naming(
                    "!self.startsWith('tag:') || self.matches('^tag:[A-Za-z][A-Za-z0-9-]*$')",
                    "is no tag: after tag: write a letter, then letters, digits or dashes, such as \
                     tag:router",
                ),
            ],
        },
    })
}

/// The users of whom one must have registered a device for it to be the one that is meant.
///
/// An empty list is refused: a template that renders none would otherwise widen who is meant.
pub(super) fn required_users(_: &mut SchemaGenerator) -> Schema {
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

/// The routes that shall be approved, those of an exit node excepted.
pub(super) fn wished_routes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "set",
        "maxItems": 256,
        "items": {
            "type": "string",
            // The longest CIDR: eight groups of four, seven colons, and /128.
            "maxLength": 43,
            "x-kubernetes-validations": [
                naming(
                    "isCIDR(self)",
                    "is no CIDR: write a network and its prefix length, such as 10.0.0.0/16",
                ),
                // The message cannot name the network that is meant: the estimated cost of
                // masked() in a message is beyond the limit.
                naming(
                    "!isCIDR(self) || cidr(self).masked() == cidr(self)",
                    "has host bits: write the address of the network itself, as 10.0.0.0/16 and not \
                     10.0.0.1/16",
                ),
                naming(
                    "!isCIDR(self) || cidr(self).prefixLength() > 0",
                    "is a route of an exit node: write exitNode: true instead",
                ),
            ],
        },
    })
}

/// A free choice among Tailscale's addresses.
pub(super) fn tailnet_ipv4(_: &mut SchemaGenerator) -> Schema {
    let is_ipv4 = "isIP(self) && ip(self).family() == 4";
    json_schema!({
        "type": "string",
        "maxLength": 45,
        "x-kubernetes-validations": [
            naming(is_ipv4, "is no IPv4 address: write one such as 100.80.0.1"),
            naming(
                &format!("!({is_ipv4}) || cidr('100.64.0.0/10').containsIP(self)"),
                "is outside of 100.64.0.0/10: write an address in it, such as 100.80.0.1",
            ),
            naming(
                &format!(
                    "!({is_ipv4}) || !(cidr('100.100.0.0/24').containsIP(self) \
                     || cidr('100.100.100.0/24').containsIP(self) \
                     || cidr('100.115.92.0/23').containsIP(self) || self == '100.101.102.103')"
                ),
                "is reserved by Tailscale (100.100.0.0/24, 100.100.100.0/24, 100.115.92.0/23 and \
                 100.101.102.103): write another address, such as 100.80.0.1",
            ),
        ],
    })
}

/// The first label of a name in MagicDNS, as the server keeps it.
pub(super) fn device_label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(
            "self.size() <= 63 && self.matches('^[a-z0-9](-?[a-z0-9])*$')",
            "would be rewritten by the server: write up to 63 lower-case letters and digits, with \
             single dashes between them, such as fra-router",
        )],
    })
}

/// Posture attributes by their key.
pub(super) fn posture_attributes(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": generator.subschema_for::<super::PostureAttribute>(),
        "x-kubernetes-validations": [
            naming_keys(
                "k.startsWith('custom:')",
                "is outside of the namespace custom: and cannot be written: write it as custom:NAME",
            ),
            naming_keys(
                "!k.startsWith('custom:') || k.matches('^custom:[A-Za-z0-9_:]+$')",
                "is no key: after custom: write letters, digits, _ or :",
            ),
            naming_keys(
                "k.size() <= 128",
                "is too long: write at most 128 characters, custom: included",
            ),
            naming_keys(
                "self.exists_one(j, j.lowerAscii() == k.lowerAscii())",
                "differs only in case from another key, which is one key to the tailnet: keep one of them",
            ),
        ],
    })
}

/// The text of a posture attribute.
pub(super) fn attribute_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 256,
        "x-kubernetes-validations": [naming(
            "self.matches('^[A-Za-z0-9_.]{0,50}$')",
            "is no string value: write at most 50 letters, digits, _ or .",
        )],
    })
}

/// An integer that JSON keeps exactly.
pub(super) fn attribute_integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "format": "int64",
        "x-kubernetes-validations": [rule(
            "self >= -9007199254740991 && self <= 9007199254740991",
            "the integer is too large for JSON to keep it exactly: write one from \
             -9007199254740991 to 9007199254740991",
        )],
    })
}

/// An RFC 3339 time.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// A preferred device id: it becomes a segment of a URL's path.
pub(super) fn node_id(_: &mut SchemaGenerator) -> Schema {
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
pub(super) fn legacy_id(_: &mut SchemaGenerator) -> Schema {
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
pub(super) fn magic_dns_name(_: &mut SchemaGenerator) -> Schema {
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
pub(super) fn hostname(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [rule(
            "self.size() > 0",
            "the hostname is empty: write the one that the device reports, such as fra-router",
        )],
    })
}

/// Where an invite is sent.
pub(super) fn email(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 320,
        "x-kubernetes-validations": [
            naming(
                "self.matches('^[A-Za-z0-9.!#$%&\\'*+/=?^_{|}~-]+@[A-Za-z0-9-]+([.][A-Za-z0-9-]+)+$')",
                "is no email address: write one such as partner@example.com",
            ),
            naming("self.size() <= 254", "is too long: write at most 254 characters"),
        ],
    })
}

/// The name of a Secret.
pub(super) fn secret_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(
            "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",
            "is no name of a Secret: write lower-case letters, digits, dashes and dots, such as \
             partner-invite",
        )],
    })
}

/// A tailnet in the path of a request.
pub(super) fn tailnet(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(
            "self.matches('^[A-Za-z0-9@._-]+$')",
            "is no tailnet: write its ID, such as T1234CNTRL, or - for the credential's own",
        )],
    })
}

/// The address of the API.
pub(super) fn api_url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [
            naming(
                "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''",
                "is no address of an API: write one such as https://api.tailscale.com",
            ),
            naming(
                "!self.contains('@')",
                "holds a credential for everybody to read: leave out what is before the @, and put the \
                 credential into the Secret",
            ),
            naming(
                "!self.contains('?') && !self.contains('#') && !self.contains('/api/v2')",
                "is more than the address: leave out /api/v2, ? and # and what follows them, as in \
                 https://api.tailscale.com",
            ),
        ],
    })
}

/// An interval of at least one second.
pub(super) fn interval(_: &mut SchemaGenerator) -> Schema {
    let is_duration = "self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != ''";
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [
            naming(
                is_duration,
                "is no duration: write hours, minutes and seconds, such as 30s, 1m or 1h30m",
            ),
            naming(
                &format!("!({is_duration}) || duration(self) >= duration('1s')"),
                "is too short: write at least 1s",
            ),
        ],
    })
}
