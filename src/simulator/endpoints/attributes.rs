//! The posture attributes of one device.

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::Call;
use crate::simulator::{
    body::{Body, missing},
    device::{Attribute, Record, ZERO_TIME},
    response::{Answer, Refusal, Reply},
    switches::AttributeWriteAnswer,
    world::{ValueKind, World},
};

/// The longest key, including `custom:` (50 on the page of 2024-05).
const MAX_KEY: usize = 128;
const MAX_STRING: usize = 50;
/// The comment appears only in the audit log.
const MAX_COMMENT: usize = 200;
/// 2^53 − 1, the largest integer that JSON keeps exactly.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// `GET /device/{device}/attributes`
pub(super) fn get(world: &mut World, call: &Call) -> Reply {
    Ok(shown(world.own_record(call.id())?))
}

/// The custom attributes and those that the server sets itself.
fn shown(record: &Record) -> Answer {
    let device = &record.device;
    // Clients must ignore these: only `custom:` can be written.
    let mut attributes: BTreeMap<&str, Value> = BTreeMap::from([
        ("node:os", json!(device.os)),
        ("node:tsVersion", json!(device.client_version)),
        ("node:tsReleaseTrack", json!("stable")),
        ("node:tsAutoUpdate", json!(false)),
    ]);
    let mut expiries: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (key, attribute) in &record.attributes {
        attributes.insert(key, attribute.value.clone());
        if let Some(expiry) = attribute.expiry {
            expiries.insert(key, expiry);
        }
    }
    if expiries.is_empty() {
        return Answer::json(&json!({"attributes": attributes}));
    }
    Answer::json(&json!({"attributes": attributes, "expiries": expiries}))
}

/// `POST /device/{device}/attributes/{key}`: replaces value and expiry.
pub(super) fn set(world: &mut World, call: &Call) -> Reply {
    world.own_record(call.id())?;
    let key = &call.params[1];
    let mut body = Body::parse(call.body, &["value", "expiry", "comment"])?;
    let value = body.take("value").ok_or_else(|| missing("value"))?;
    // Replaces the whole attribute: without an expiry, an earlier one is gone.
    let expiry = Expiry::read(&mut body, world.now())?.or(None);
    check_comment(&mut body)?;
    check_writable(world, key)?;
    check_value(world, key, &value)?;
    world.learn_key(key, &value);
    let written = world.switches.attribute_write_answer;
    let record = world.own_record(call.id())?;
    record
        .attributes
        .insert(key.clone(), Attribute { value, expiry });
    Ok(match written {
        AttributeWriteAnswer::Null => Answer::json(&Value::Null),
        AttributeWriteAnswer::Empty => Answer::empty_object(),
        AttributeWriteAnswer::Attributes => shown(record),
    })
}

/// `DELETE /device/{device}/attributes/{key}`
pub(super) fn delete(world: &mut World, call: &Call) -> Reply {
    world.own_record(call.id())?;
    let key = &call.params[1];
    check_writable(world, key)?;
    let missing_is_404 = world.switches.missing_attribute_is_404;
    let gone = world.own_record(call.id())?.attributes.remove(key);
    if gone.is_none() && missing_is_404 {
        return Err(Refusal::not_found("attribute not found"));
    }
    Ok(Answer::empty_object())
}

/// The expiry in a write.
pub(super) enum Expiry {
    Unsaid,
    Never,
    At(Timestamp),
}

impl Expiry {
    /// Parses the field `expiry`. The Go client sends its zero time for "never".
    pub fn read(body: &mut Body, now: Timestamp) -> Result<Self, Refusal> {
        let json = match body.take("expiry") {
            None => return Ok(Self::Unsaid),
            Some(Value::Null) => return Ok(Self::Never),
            Some(json) => json,
        };
        match json
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
        {
            None => Err(Refusal::bad_request(format!(
                "malformed JSON: expiry {json} is not an RFC 3339 time"
            ))),
            Some(time) if time == ZERO_TIME => Ok(Self::Never),
            Some(time) if time <= now => Err(Refusal::bad_request("expiry must be in the future")),
            Some(time) => Ok(Self::At(time)),
        }
    }

    /// The time, or `unsaid` if the write has no expiry.
    pub fn or(self, unsaid: Option<Timestamp>) -> Option<Timestamp> {
        match self {
            Self::Unsaid => unsaid,
            Self::Never => None,
            Self::At(time) => Some(time),
        }
    }
}

pub(super) fn check_comment(body: &mut Body) -> Result<(), Refusal> {
    let comment = body.string("comment")?.unwrap_or_default();
    if comment.chars().count() > MAX_COMMENT {
        return Err(Refusal::bad_request(format!(
            "comment is longer than {MAX_COMMENT} characters"
        )));
    }
    Ok(())
}

/// Refuses reserved keys, and every key if the plan has no custom attributes.
pub(super) fn check_writable(world: &World, key: &str) -> Result<(), Refusal> {
    let refuse = |why: &str| {
        Err(Refusal::bad_request(format!(
            "invalid attribute key \"{key}\": {why}"
        )))
    };
    // First, as the plan refuses every write. 403 is also the status of a missing scope.
    if !world.switches.custom_attributes_in_plan {
        let message = "feature not available on current billing plan";
        return Err(Refusal::new(StatusCode::FORBIDDEN, message));
    }
    let Some(name) = key.strip_prefix("custom:") else {
        return refuse("only the namespace \"custom:\" can be written");
    };
    if key.len() > MAX_KEY {
        return refuse("longer than 128 characters");
    }
    let mut letters = name.chars();
    if name.is_empty() || !letters.all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | ':')) {
        return refuse("only letters, digits, underscores and colons may follow \"custom:\"");
    }
    Ok(())
}

/// Refuses values that no attribute can have, and types that this key cannot have in this tailnet.
pub(super) fn check_value(world: &World, key: &str, value: &Value) -> Result<(), Refusal> {
    let Some(kind) = ValueKind::of(value) else {
        return Err(Refusal::bad_request(
            "attribute value must be a string, number or boolean",
        ));
    };
    match value {
        Value::String(text) => check_string(text)?,
        Value::Number(number) => {
            let size = number
                .as_u64()
                // Both signs have the same limit.
                .or_else(|| number.as_i64().map(i64::unsigned_abs));
            if size.is_none_or(|size| size > MAX_INTEGER) {
                return Err(Refusal::bad_request(format!(
                    "attribute value {number} is not an integer of at most 2^53-1"
                )));
            }
        }
        _ => {}
    }
    let Some(known) = world.attribute_keys.get(&key.to_ascii_lowercase()) else {
        return Ok(());
    };
    // A spelling is free again once no device has the attribute.
    if known.spelling != key && is_set_anywhere(world, &known.spelling) {
        return Err(world.switches.attribute_case_collision.clone());
    }
    if known.kind != kind {
        return Err(world.switches.attribute_type_conflict.clone());
    }
    Ok(())
}

fn check_string(text: &str) -> Result<(), Refusal> {
    if text.chars().count() > MAX_STRING {
        return Err(Refusal::bad_request(format!(
            "attribute value is longer than {MAX_STRING} characters"
        )));
    }
    if text
        .chars()
        .all(|it| it.is_ascii_alphanumeric() || it == '_' || it == '.')
    {
        return Ok(());
    }
    Err(Refusal::bad_request(
        "attribute value may hold only letters, digits, underscores and periods",
    ))
}

fn is_set_anywhere(world: &World, key: &str) -> bool {
    let now = world.now();
    world
        .records
        .iter()
        .filter_map(|record| record.attributes.get(key))
        .any(|attribute| attribute.expiry.is_none_or(|expiry| expiry > now))
}
