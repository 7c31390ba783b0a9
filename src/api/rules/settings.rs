//! The settings that a policy declares.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{Code, naming, naming_keys, rule, split};
use crate::model::AttributeKey;

/// Why a number of deletions per day is refused.
pub(in crate::api) const TOO_MANY_DELETIONS: &str =
    "the number of deletions is out of range: write one from 1 to 1000";

/// The desired tags of a device.
pub(in crate::api) fn desired_tags(_: &mut SchemaGenerator) -> Schema {
    tags(&[])
}

pub(super) fn tags(rules: &[Value]) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 50,
        "x-kubernetes-validations": rules,
        "items": {
            "type": "string",
            "maxLength": 128,
            "x-kubernetes-validations": [
                naming(Code::MissingTagPrefix,
                    "self.startsWith('tag:')",
                    "is not a valid tag", "write it with its prefix, such as tag:router",
                ),
                naming(Code::InvalidTag,
                    "!self.startsWith('tag:') || self.matches('^tag:[A-Za-z][A-Za-z0-9-]*$')",
                    "is not a valid tag", "after tag: write a letter, then letters, digits or dashes, such as \
                     tag:router",
                ),
            ],
        },
    })
}

/// The desired routes, without those of an exit node.
pub(in crate::api) fn desired_routes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "maxItems": 256,
        "items": {
            "type": "string",
            // The longest CIDR: eight groups of four, seven colons, and /128.
            "maxLength": 43,
            "x-kubernetes-validations": [
                naming(Code::InvalidCidr,
                    "isCIDR(self)",
                    "is not a valid CIDR", "write a network and its prefix length, such as 10.0.0.0/16",
                ),
                // The message cannot name the right network: the estimated cost of
                // masked() in a message is beyond the limit.
                naming(Code::HostBits,
                    "!isCIDR(self) || cidr(self).masked() == cidr(self)",
                    "has host bits", "write the address of the network itself, as 10.0.0.0/16 and not \
                     10.0.0.1/16",
                ),
                naming(Code::ExitNodeRoute,
                    // An exit node needs both routes or none, so it is a field of its own.
                    "!isCIDR(self) || cidr(self).prefixLength() > 0",
                    "is a route of an exit node", "write exitNode: true instead",
                ),
            ],
        },
    })
}

/// A free address among Tailscale's.
pub(in crate::api) fn tailnet_ipv4(_: &mut SchemaGenerator) -> Schema {
    let is_ipv4 = "isIP(self) && ip(self).family() == 4";
    json_schema!({
        "type": "string",
        "maxLength": 45,
        "x-kubernetes-validations": [
            naming(Code::InvalidIpv4, is_ipv4, "is not a valid IPv4 address", "write one such as 100.80.0.1"),
            naming(Code::Ipv4OutsideTailnet,
                // One error for each mistake: this holds for every other text.
                &format!("!({is_ipv4}) || cidr('100.64.0.0/10').containsIP(self)"),
                "is outside of 100.64.0.0/10", "write an address in it, such as 100.80.0.1",
            ),
            naming(Code::ReservedIpv4,
                &format!(
                    "!({is_ipv4}) || !(cidr('100.100.0.0/24').containsIP(self) \
                     || cidr('100.100.100.0/24').containsIP(self) \
                     || cidr('100.115.92.0/23').containsIP(self) || self == '100.101.102.103')"
                ),
                "is reserved by Tailscale (100.100.0.0/24, 100.100.100.0/24, 100.115.92.0/23 and \
                 100.101.102.103)", "write another address, such as 100.80.0.1",
            ),
        ],
    })
}

/// The first label of a name in MagicDNS, in the form that the server stores.
pub(in crate::api) fn device_label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 253,
        "x-kubernetes-validations": [naming(Code::InvalidDeviceName,
            // The server rewrites other names, and the policy would never be in sync.
            "self.size() <= 63 && self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
            "would be rewritten by the server", "write up to 63 lower-case letters and digits, with \
             dashes between them, such as fra-router",
        )],
    })
}

/// Posture attributes by their key.
pub(in crate::api) fn posture_attributes(generator: &mut SchemaGenerator) -> Schema {
    let (invalid, valid) = split(AttributeKey::INVALID);
    let (too_long, shorter) = split(AttributeKey::TOO_LONG);
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": generator.subschema_for::<crate::api::PostureAttribute>(),
        "x-kubernetes-validations": [
            naming_keys(Code::AttributeNamespace,
                "k.startsWith('custom:')",
                "is outside of the namespace custom: and cannot be written", "write it as custom:NAME",
            ),
            naming_keys(Code::InvalidAttributeKey,
                "!k.startsWith('custom:') || k.matches('^custom:[A-Za-z0-9_:]+$')",
                invalid,
                valid,
            ),
            naming_keys(Code::AttributeKeyTooLong,
                "k.size() <= 128",
                too_long,
                shorter,
            ),
            naming_keys(Code::AttributeKeyCase,
                // Costs grow with the square of the number of keys, hence at most 64.
                "self.exists_one(j, j.lowerAscii() == k.lowerAscii())",
                "differs only in case from another key, and the tailnet treats both as one", "keep one of them",
            ),
        ],
    })
}

/// Exactly one typed value.
pub(in crate::api) fn posture_attribute() -> Value {
    let given = "[has(self.string), has(self.integer), has(self.boolean)]\
                 .filter(given, given).size()";
    json!([
        rule(
            Code::MissingAttributeValue,
            &format!("{given} > 0"),
            "no value is given",
            "write one of string, integer and boolean",
        ),
        rule(
            Code::SeveralAttributeValues,
            &format!("{given} < 2"),
            "more than one value is given",
            "keep one of string, integer and boolean",
        ),
    ])
}

/// The string of a posture attribute.
pub(in crate::api) fn attribute_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 256,
        "x-kubernetes-validations": [naming(Code::InvalidAttributeString,
            // The empty string is a value, too.
            "self.matches('^[A-Za-z0-9_.]{0,50}$')",
            "is not a valid string value", "write at most 50 letters, digits, _ or .",
        )],
    })
}

/// An integer that JSON keeps exactly.
pub(in crate::api) fn attribute_integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "format": "int64",
        "x-kubernetes-validations": [rule(Code::IntegerOutOfRange,
            // 2^53 - 1: beyond it, a float cannot tell two integers apart.
            "self >= -9007199254740991 && self <= 9007199254740991",
            "the integer is too large for JSON to keep it exactly", "write one from \
             -9007199254740991 to 9007199254740991",
        )],
    })
}

/// How long ago a device must have been seen last before the controller deletes it.
pub(in crate::api) fn inactivity(_: &mut SchemaGenerator) -> Schema {
    // Six digits for each unit, so that CEL's duration() cannot overflow its 64 bits of nanoseconds.
    let is_duration = "self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != ''";
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [
            naming(Code::InvalidDuration,
                is_duration,
                "is not a valid duration", "write hours, minutes and seconds, such as 720h or 2160h",
            ),
            naming(Code::InactivityTooShort,
                &format!("!({is_duration}) || duration(self) >= duration('24h')"),
                "is too short", "write at least 24h",
            ),
        ],
    })
}

/// How many devices are deleted in a day.
pub(in crate::api) fn deletions_per_day(_: &mut SchemaGenerator) -> Schema {
    let (problem, help) = split(TOO_MANY_DELETIONS);
    json_schema!({
        "type": "integer",
        "format": "int32",
        "x-kubernetes-validations": [rule(Code::DeletionsOutOfRange,
            "self >= 1 && self <= 1000",
            problem,
            help,
        )],
    })
}

/// An RFC 3339 time, exactly as [`crate::model::parse_time`] accepts it.
pub(in crate::api) fn time(_: &mut SchemaGenerator) -> Schema {
    let is_time = "self.matches('^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\
                   [Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?\
                   ([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$')";
    let is_day = "!self.matches('^[0-9]{4}-(02-3|(02|04|06|09|11)-31)') \
                  && (!self.matches('^[0-9]{4}-02-29') \
                  || self.matches('^([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-'))";
    json_schema!({
        // Without the format date-time: with it, the API server does not check the type, and accepts a list.
        "type": "string",
        "maxLength": 64,
        "x-kubernetes-validations": [naming(Code::InvalidTime,
            &format!("{is_time} && {is_day}"),
            "is not a valid time", "write one such as 2027-01-01T00:00:00Z",
        )],
    })
}
