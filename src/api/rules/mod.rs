//! The schema of each value that has rules: `kubectl apply` itself refuses an invalid one.
//!
//! The API server checks the types, then evaluates the CEL rules in `x-kubernetes-validations`;
//! each message says what to write instead. The parsers in [`crate::model`] refuse the same values
//! for the same reasons if there is no API server.
//!
//! - Every list, map and string has a maximum: the API server estimates the cost of a rule from it,
//!   and refuses a CRD whose rules could cost too much.
//! - The API server's own message about `maxLength` or `maxItems` does not say what to write, and
//!   such an error keeps it from evaluating the rules. So a rule states the maximum of a field, and
//!   the one in the schema is larger.

mod code;
mod connection;
mod device;
mod guardrails;
mod settings;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

pub use self::code::RuleCode;
use self::code::RuleCode as Code;

pub(super) use self::{connection::*, device::*, guardrails::*, settings::*};

/// Why `expireKeyAt` and `keyExpiry: Disabled` exclude each other.
pub(crate) const KEY_NEVER_EXPIRES: &str = "a key whose expiry is disabled keeps working after it is expired: write \
     keyExpiry: Enabled, or remove keyExpiry or expireKeyAt";

/// The code of a rule, and what to do about a violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remedy<'a> {
    /// The code.
    pub code: RuleCode,
    /// The end of the rule's message.
    pub help: &'a str,
}

impl<'a> Remedy<'a> {
    /// The remedy of a rule of [`super::schema::annotated_definitions`]. `None` for a rule that only an update can
    /// violate.
    #[must_use]
    pub fn of(rule: &'a ValidationRule) -> Option<Self> {
        let (code, help) = rule.reason.as_deref()?.split_once(": ")?;
        let mut codes = RuleCode::ALL.iter().copied();
        let code = codes.find(|it| it.as_str() == code)?;
        Some(Self { code, help })
    }
}

/// What a rule's `reason` says for [`Remedy::of`]. The API server does not know such reasons: the CRDs are installed
/// without them.
fn reason(code: Code, help: &str) -> String {
    format!("{}: {help}", code.as_str())
}

/// The problem and the help of a text that has both.
fn split(text: &str) -> (&str, &str) {
    text.split_once(": ").unwrap_or((text, ""))
}

/// A rule with a fixed message.
fn rule(code: Code, rule: &str, problem: &str, help: &str) -> Value {
    // A fixed message costs nothing in the API server's estimate, in contrast to messageExpression.
    json!({"rule": rule, "message": format!("{problem}: {help}"), "reason": reason(code, help)})
}

/// A rule with a fixed message, about a field of the value.
fn rule_on(field: &str, code: Code, rule: &str, problem: &str, help: &str) -> Value {
    let mut rule = self::rule(code, rule, problem, help);
    rule["fieldPath"] = json!(format!(".{field}"));
    rule
}

/// A rule on a string, whose message begins with the value: `'VALUE' …`.
fn naming(code: Code, rule: &str, problem: &str, help: &str) -> Value {
    let message = format!("{problem}: {help}");
    json!({
        "reason": reason(code, help),
        "rule": rule,
        // The API server falls back to this if messageExpression fails.
        "message": format!("the value {message}"),
        "messageExpression": format!(r#""'" + self + "' {message}""#),
    })
}

/// A rule on each key of a map, whose message begins with the first that breaks it: `'KEY' …`.
fn naming_keys(code: Code, rule: &str, problem: &str, help: &str) -> Value {
    let message = format!("{problem}: {help}");
    json!({
        "reason": reason(code, help),
        // On the map, as a schema has no rules for the keys of one.
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
        rule_on(
            field,
            Code::SameForManyDevices,
            &format!("!has(self.deviceSelector) || !has(self.{field})"),
            &format!("two devices cannot have the same {field}"),
            &format!("write device instead of deviceSelector, or remove {field}"),
        )
    };
    let (never_expires, remedy) = split(KEY_NEVER_EXPIRES);
    // `has` first, as reading an absent field is an error in CEL.
    let clears =
        |spec: &str| format!("(has({spec}.deletionPolicy) && {spec}.deletionPolicy == 'Clear')");
    let tailnet =
        |spec: &str| format!("(has({spec}.tailnetRef) ? {spec}.tailnetRef.name : 'default')");
    json!([rule_on(
        "deleteInactive",
        Code::DeleteInactiveOfOneDevice,
        "!has(self.deleteInactive) || has(self.deviceSelector)",
        "deleteInactive requires deviceSelector",
        "write deviceSelector instead of device, or remove deleteInactive",
    ), rule_on(
        "expireKeyAt",
        Code::ExpireKeyThatNeverExpires,
        "!has(self.expireKeyAt) || !has(self.keyExpiry) || self.keyExpiry != 'Disabled'",
        never_expires,
        remedy,
    ), rule(
        Code::MissingDevice,
        &format!("{given} > 0"),
        "no device is given",
        "write device for one, or deviceSelector for all that match",
    ), rule(
        Code::DeviceAndSelector,
        &format!("{given} < 2"),
        "device and deviceSelector are both given",
        "keep one of them",
    ), only_one("name"), only_one("ipv4"), rule_on(
        "tags",
        Code::LastTag,
        // Under AtLeast an empty list removes nothing.
        "!has(self.tags) || self.tags.size() > 0 \
         || (has(self.ownership) && has(self.ownership.tags) && self.ownership.tags == 'AtLeast')",
        "the API cannot remove the last tag of a device",
        "write at least one tag, or remove tags to leave them as they are",
    ), rule_on(
        "authorized",
        Code::MissingAllowDisruption,
        "!has(self.authorized) || self.authorized \
         || (has(self.allowDisruption) && 'Deauthorize' in self.allowDisruption)",
        "authorized: false cuts the device off",
        "add allowDisruption: [Deauthorize], or remove authorized",
    ), {
        // `oldSelf` makes it a transition rule: the API server skips it when the object is created.
        "rule": format!(
            "!{} || !{} || {} == {}",
            clears("self"), clears("oldSelf"), tailnet("self"), tailnet("oldSelf")
        ),
        "message": "the controller could no longer clear the devices of the previous tailnet: write \
                    deletionPolicy: Retain first, or delete this policy and create another",
        "fieldPath": ".tailnetRef",
    }])
}

/// The rank among the policies that declare one setting.
pub(super) fn priority(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "format": "int32",
        "x-kubernetes-validations": [rule(
            Code::PriorityOutOfRange,
            "self >= -1000 && self <= 1000",
            "the priority is out of range",
            "write one from -1000 to 1000",
        )],
    })
}

/// The rules across the fields of an invite.
pub(super) fn invite() -> Value {
    json!([{
        // A transition rule: the API server skips it when the object is created.
        "rule": "self == oldSelf",
        "message": "the API cannot change an invite: create another TailscaleDeviceInvite, and delete this one \
                    if you no longer need it",
    }])
}
