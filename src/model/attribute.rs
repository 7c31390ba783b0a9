use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::Serialize;

use super::Refused;

/// The key of a posture attribute that may be written: `custom:` and letters, digits, `_`, `:`.
///
/// Keys are case-sensitive, but unique in a tailnet without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AttributeKey(String);

/// A string value: at most 50 letters, digits, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AttributeString(String);

/// An integer that JSON keeps exactly: from −(2^53−1) to 2^53−1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SafeInteger(i64);

/// The value of a posture attribute. The first write of a key fixes its type in the whole tailnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Hash)]
#[serde(untagged)]
pub enum AttributeValue {
    /// A string.
    String(AttributeString),
    /// An integer.
    Integer(SafeInteger),
    /// A boolean.
    Boolean(bool),
}

/// The type of an attribute's values: one for each key in the whole tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueKind {
    /// A string.
    String,
    /// An integer.
    Integer,
    /// A boolean.
    Boolean,
}

/// The desired value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Hash)]
pub struct DesiredAttribute {
    /// The value.
    pub value: AttributeValue,
    /// When the server removes it by itself; `None`: never. Compared by the second.
    pub expiry: Option<Timestamp>,
}

impl DesiredAttribute {
    /// Whether its expiry has passed: the attribute is no longer desired.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        // The server removes it minutes later: until then it must not be set again.
        self.expiry.is_some_and(|expiry| expiry <= now)
    }
}

/// A custom attribute as the API reports it.
///
/// The value is kept as reported: a float, or a string that no policy can declare, is a value that differs
/// from every desired one, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Hash)]
pub struct ReportedAttribute {
    /// The value as JSON.
    pub value: serde_json::Value,
    /// When the server removes it.
    pub expiry: Option<Timestamp>,
}

/// The custom attributes of one device. Attributes in read-only namespaces (`node:`, `ip:`, those of vendors)
/// are dropped when the answer is read.
pub type Attributes = BTreeMap<AttributeKey, ReportedAttribute>;

impl AttributeKey {
    /// Why a key with other letters is refused.
    pub const INVALID: &str = "is not a valid key: after custom: write letters, digits, _ or :";

    /// Why a long key is refused.
    pub const TOO_LONG: &str = "is too long: write at most 128 characters, custom: included";

    /// The maximum length of a key, including its namespace (the API specification; 50 on the page of
    /// 2024-05).
    pub const MAX_LENGTH: usize = 128;

    /// A custom key as the API reports it; `None` for the read-only namespaces.
    #[must_use]
    pub fn reported(text: &str) -> Option<Self> {
        // The rest is not checked: a key that the API has accepted must be readable, whatever its
        // form.
        text.starts_with("custom:").then(|| Self(text.to_owned()))
    }

    /// The key with its namespace.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as the tailnet compares keys: without regard to case.
    #[must_use]
    pub fn folded(&self) -> String {
        // ASCII only, as keys have no other letters.
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for AttributeKey {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = |why: &str| Err(Refused(format!("'{text}' {why}")));
        let Some(name) = text.strip_prefix("custom:") else {
            return refused("is not in the namespace custom: — write it as custom:NAME");
        };
        // In bytes, as only ASCII passes the check below.
        if text.len() > Self::MAX_LENGTH {
            return refused(Self::TOO_LONG);
        }
        let mut bytes = name.bytes();
        if name.is_empty() || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':') {
            return refused(Self::INVALID);
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for AttributeString {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
        // The empty string is a value.
        if text.len() <= 50 && text.bytes().all(letters) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Refused(format!(
                "'{text}' is not a valid string value: write at most 50 letters, digits, _ or ."
            )))
        }
    }
}

impl TryFrom<i64> for SafeInteger {
    type Error = Refused;

    fn try_from(number: i64) -> Result<Self, Refused> {
        // Beyond it, the doubles of JSON cannot tell two integers apart.
        const MAX: i64 = (1 << 53) - 1;
        if (-MAX..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(Refused(format!(
                "{number} is not an integer that JSON keeps exactly: write one from -{MAX} to {MAX}"
            )))
        }
    }
}

impl AttributeValue {
    /// Whether a reported value is this one. JSON has one kind of number: 3.0 is 3.
    fn is(&self, reported: &serde_json::Value) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a safe integer is below 2^53, so that f64 holds it exactly"
        )]
        match self {
            // Through f64, as serde_json holds 3 and 3.0 to be different.
            Self::Integer(number) => reported.as_f64() == Some(number.0 as f64),
            _ => self.to_json() == *reported,
        }
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::String(_) => ValueKind::String,
            Self::Integer(_) => ValueKind::Integer,
            Self::Boolean(_) => ValueKind::Boolean,
        }
    }

    /// The value as the API takes and gives it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::String(text) => text.0.clone().into(),
            Self::Integer(number) => number.0.into(),
            Self::Boolean(flag) => (*flag).into(),
        }
    }
}

impl ReportedAttribute {
    /// An attribute that the API reports in a form that cannot be read: it exists, and has some value.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            // Null equals no desired value, and has no type.
            value: serde_json::Value::Null,
            expiry: None,
        }
    }

    /// Whether its value or its expiry could not be read.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        // The API deletes an attribute that is set to null, so it never reports one.
        self.value.is_null()
    }

    /// Its type; `None` if no attribute can have such a value.
    #[must_use]
    pub fn kind(&self) -> Option<ValueKind> {
        match &self.value {
            serde_json::Value::String(_) => Some(ValueKind::String),
            // The API has one type for numbers, so a float has the same type.
            serde_json::Value::Number(_) => Some(ValueKind::Integer),
            serde_json::Value::Bool(_) => Some(ValueKind::Boolean),
            _ => None,
        }
    }
}

impl DesiredAttribute {
    /// Whether the reported attribute is the desired one: the same value, and the same expiry by the second.
    #[must_use]
    pub fn is_met_by(&self, reported: &ReportedAttribute) -> bool {
        // The API may drop the fraction, and would then never meet a desired expiry that has one.
        let second = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        self.value.is(&reported.value) && second(self.expiry) == second(reported.expiry)
    }
}

/// The name of the type in a manifest.
impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
        })
    }
}

impl fmt::Display for AttributeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DesiredAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_attribute(f, &self.value.to_json(), self.expiry)
    }
}

impl fmt::Display for ReportedAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_attribute(f, &self.value, self.expiry)
    }
}

fn write_attribute(
    f: &mut fmt::Formatter<'_>,
    value: &serde_json::Value,
    expiry: Option<Timestamp>,
) -> fmt::Result {
    // As JSON, so that the string "true" does not look like the boolean.
    write!(f, "{value}")?;
    match expiry {
        Some(time) => write!(f, " until {time:.0}"),
        None => Ok(()),
    }
}
