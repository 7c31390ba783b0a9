//! The type and value of a YAML scalar.
//!
//! kubectl reads YAML with go-yaml v2, which knows the words and numbers of YAML 1.1 (`on` is true,
//! `0777` is 511). It reads sexagesimal numbers and timestamps as strings. kubectl then converts the
//! document to JSON, where a float without a fraction becomes an integer.

use serde_json::Number;

use super::tree::Data;

/// Why a scalar does not have the type of its tag, or has no form in JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScalarError {
    /// `.nan` and `.inf`.
    #[error("JSON has no such number")]
    NoNumber,
    /// `!!int "a"`.
    #[error("the value does not have the type of its tag")]
    Tag,
    /// `!!binary` and the like.
    #[error("tsdp does not read this tag: write the value itself")]
    UnknownTag,
}

/// The value of a scalar without quotes and without a tag.
pub fn plain(text: &str) -> Result<Data, ScalarError> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Data::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Data::Boolean(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Data::Boolean(false));
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
        | "-.inf" | "-.Inf" | "-.INF" => return Err(ScalarError::NoNumber),
        _ => {}
    }
    let number = match text.as_bytes().first() {
        Some(b'.') => between_digits(text).and_then(|text| float(&text)),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            // go-yaml drops all underscores of a number.
            let digits = text.replace('_', "");
            integer(&digits).or_else(|| float(&digits))
        }
        _ => None,
    };
    Ok(number.map_or_else(|| Data::Text(text.to_owned()), Data::Number))
}

/// The value of a scalar with one of YAML's own tags (`int` for `!!int`), or with a tag of another
/// namespace (`None`), which go-yaml reads as a string.
pub fn tagged(tag: Option<&str>, text: &str) -> Result<Data, ScalarError> {
    let Some(tag) = tag else {
        return Ok(Data::Text(text.to_owned()));
    };
    let data = match tag {
        // go-yaml knows it only in front of a key.
        "str" | "merge" => return Ok(Data::Text(text.to_owned())),
        "bool" | "int" | "float" | "null" => plain(text)?,
        _ => return Err(ScalarError::UnknownTag),
    };
    // A plain scalar can have another type than its tag: `!!bool 1`.
    let has_type = match (tag, &data) {
        ("bool", Data::Boolean(_)) | ("null", Data::Null) | ("float", Data::Number(_)) => true,
        ("int", Data::Number(_)) => integer(&text.replace('_', "")).is_some(),
        _ => false,
    };
    if has_type {
        Ok(data)
    } else {
        Err(ScalarError::Tag)
    }
}

/// The text without its underscores, if each has a digit on either side.
fn between_digits(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_digit)
    };
    let between = text
        .match_indices('_')
        .all(|(at, _)| digit(at.checked_sub(1)) && digit(Some(at + 1)));
    between.then(|| text.replace('_', ""))
}

/// As Go's `strconv.ParseInt` with base 0: the prefix means hexadecimal, octal or binary.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(digits) = lower.strip_prefix("0x") {
        (16, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (8, digits)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (2, digits)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        // Go parses a number beyond i64 as unsigned, where a sign is invalid.
        let signed = text.starts_with('+') && i64::try_from(size).is_err();
        return (!signed).then(|| as_sent(size));
    }
    let value = -i128::from(size);
    i64::try_from(value).ok().map(Number::from)
}

/// kubectl keeps a number that fits into a signed 64-bit integer. A larger one becomes a float.
fn as_sent(size: u64) -> Number {
    #[allow(clippy::cast_precision_loss, reason = "as kubectl does")]
    let float = size as f64;
    i64::try_from(size).map_or_else(|_| as_json(float), Number::from)
}

/// As go-yaml reads a float, then as Go writes it as JSON.
fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let well_formed = (digits(whole) && (fraction.is_empty() || digits(fraction)))
        || (whole.is_empty() && digits(fraction));
    let exponent_fits =
        exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)));
    if !well_formed || !exponent_fits {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Go refuses a number that overflows, and go-yaml then reads a string.
    if !value.is_finite() {
        return None;
    }
    Some(as_json(value))
}

/// A number as kubectl sends it. Go prints a float without a fraction without a decimal point (as Rust
/// does), and so the API server reads an integer if it fits into 64 bits.
pub fn as_json(value: f64) -> Number {
    if value.fract() == 0.0
        && let Ok(integer) = value.to_string().parse::<i64>()
    {
        return integer.into();
    }
    Number::from_f64(value).unwrap_or_else(|| 0.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::manifests::{
        span::{Position, Span},
        tree::Node,
    };

    #[test]
    fn a_tag_determines_the_type() {
        assert_eq!(tagged(Some("str"), "5"), Ok(Data::Text("5".to_owned())));
        assert_eq!(tagged(Some("int"), "5"), Ok(Data::Number(5.into())));
        assert_eq!(tagged(Some("int"), "y"), Err(ScalarError::Tag));
        assert_eq!(tagged(Some("binary"), "aGk="), Err(ScalarError::UnknownTag));
        assert_eq!(tagged(None, "5"), Ok(Data::Text("5".to_owned())));
    }

    #[test]
    fn numbers_that_json_lacks_are_refused() {
        assert_eq!(plain(".nan"), Err(ScalarError::NoNumber));
        assert_eq!(plain("-.INF"), Err(ScalarError::NoNumber));
    }

    #[test]
    fn plain_words_and_numbers_have_their_type_of_yaml_1_1() {
        let value = |text| {
            let data = plain(text).unwrap();
            Node::new(Span::at(Position::START), data).to_json()
        };
        assert_eq!(value("y"), json!(true));
        assert_eq!(value("0777"), json!(511));
        assert_eq!(value("0888"), json!(888));
        assert_eq!(value("12:30:45"), json!("12:30:45"));
        assert_eq!(value("1e3"), json!(1000));
        assert_eq!(value("2027-01-01"), json!("2027-01-01"));
    }
}
