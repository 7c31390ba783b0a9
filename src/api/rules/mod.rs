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

mod connection;
mod device;
mod guards;
mod settings;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

pub(super) use self::{connection::*, device::*, guards::*, settings::*};

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
    let clears =
        |spec: &str| format!("(has({spec}.deletionPolicy) && {spec}.deletionPolicy == 'Clear')");
    let tailnet =
        |spec: &str| format!("(has({spec}.tailnetRef) ? {spec}.tailnetRef.name : 'default')");
    json!([{
        "rule": "!has(self.deleteInactive) || has(self.deviceSelector)",
        "message": "deleteInactive deletes devices of a deviceSelector that have been away for long: write \
                    deviceSelector instead of device, or leave deleteInactive out",
        "fieldPath": ".deleteInactive",
    }, {
        "rule": "!has(self.expireKeyAt) || !has(self.keyExpiry) || self.keyExpiry != 'Disabled'",
        "message": "a key whose expiry is disabled goes on working when it is expired: write \
                    keyExpiry: Enabled, or leave keyExpiry or expireKeyAt out",
        "fieldPath": ".expireKeyAt",
    }, rule(
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
    }, {
        "rule": format!(
            "!{} || !{} || {} == {}",
            clears("self"), clears("oldSelf"), tailnet("self"), tailnet("oldSelf")
        ),
        "message": "the devices of the former tailnet could not be cleared any more: write \
                    deletionPolicy: Retain first, or delete this policy and create another",
        "fieldPath": ".tailnetRef",
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
