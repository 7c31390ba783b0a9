//! Parses request bodies as strictly as the API does: it refuses unknown fields and wrong types.
//!
//! The messages are those of Go's `encoding/json`. Only the one on unknown fields was seen live.

use serde_json::{Map, Value};

use super::response::Refusal;

/// The JSON object of a request without unknown fields.
#[derive(Debug)]
pub(super) struct Body(Map<String, Value>);

impl Body {
    /// Parses `bytes` as an object with the `known` fields at most.
    pub fn parse(bytes: &[u8], known: &[&str]) -> Result<Self, Refusal> {
        Self::of(parse_json(bytes)?, known)
    }

    /// Takes an object inside another body.
    pub fn of(value: Value, known: &[&str]) -> Result<Self, Refusal> {
        let Value::Object(fields) = value else {
            return Err(wrong_type(&value, "object"));
        };
        // Strict, as an unknown field is a typo that the live API refuses in some handlers at
        // least.
        match fields.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Refusal::bad_request(format!(
                "json: unknown field \"{name}\""
            ))),
            None => Ok(Self(fields)),
        }
    }

    /// The field's value, or `None` if it is absent. An explicit `null` is a value.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field)
    }

    pub fn boolean(&mut self, field: &str) -> Result<Option<bool>, Refusal> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type_of(field, &other, "bool")),
        }
    }

    pub fn string(&mut self, field: &str) -> Result<Option<String>, Refusal> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(wrong_type_of(field, &other, "string")),
        }
    }

    pub fn strings(&mut self, field: &str) -> Result<Option<Vec<String>>, Refusal> {
        let items = match self.take(field) {
            None => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(other) => return Err(wrong_type_of(field, &other, "[]string")),
        };
        let texts = items.into_iter().map(|item| match item {
            Value::String(text) => Ok(text),
            other => Err(wrong_type_of(field, &other, "string")),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }
}

/// Parses any JSON. An empty body is an error.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::bad_request("unexpected end of JSON input"));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::bad_request(format!("malformed JSON: {error}")))
}

/// Refuses a body without a required field.
pub(super) fn missing(field: &str) -> Refusal {
    Refusal::bad_request(format!("missing required field \"{field}\""))
}

pub(super) fn wrong_type_of(field: &str, found: &Value, expected: &str) -> Refusal {
    let found = kind(found);
    Refusal::bad_request(format!(
        "json: cannot unmarshal {found} into field \"{field}\" of type {expected}"
    ))
}

fn wrong_type(found: &Value, expected: &str) -> Refusal {
    let found = kind(found);
    Refusal::bad_request(format!(
        "json: cannot unmarshal {found} into value of type {expected}"
    ))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
