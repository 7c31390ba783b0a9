//! Policies as text: YAML that every parser reads alike, and comments.

use serde_json::json;
use serde_yaml::{Mapping, Value};

use crate::cli::output::{escaped, printable};

/// A comment of one line. Escapes line breaks, so that no text can leave the comment.
pub(super) fn comment(text: &str) -> String {
    format!("# {}\n", printable(text))
}

/// A Kubernetes object as YAML, in its own order: a line for each field, lists and small maps in flow
/// style, and quotes around each string that some parser could take for another type (`on`, `0777`,
/// `12:30`, `1e3`).
pub(super) fn yaml(object: &Mapping) -> String {
    let mut text = String::new();
    write_fields(&mut text, object, 0);
    text
}

fn write_fields(text: &mut String, fields: &Mapping, depth: usize) {
    for (key, value) in fields {
        text.push_str(&"  ".repeat(depth));
        text.push_str(&flow(key));
        match value {
            // `metadata` and `spec` are always blocks, however small they are.
            Value::Mapping(fields) if depth == 0 || fields.values().any(is_nested) => {
                text.push_str(":\n");
                write_fields(text, fields, depth + 1);
            }
            value => {
                text.push_str(": ");
                text.push_str(&flow(value));
                text.push('\n');
            }
        }
    }
}

fn is_nested(value: &Value) -> bool {
    value.is_mapping() || value.is_sequence()
}

fn flow(value: &Value) -> String {
    match value {
        Value::Sequence(items) => {
            let texts: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", texts.join(", "))
        }
        Value::Mapping(fields) => {
            let texts: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", flow(key), flow(value)))
                .collect();
            format!("{{{}}}", texts.join(", "))
        }
        Value::String(text) => scalar(text),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        // No policy holds either.
        Value::Null | Value::Tagged(_) => "null".to_owned(),
    }
}

/// Words that are booleans or null in YAML 1.1, which kubectl reads.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

fn is_plain(part: &str) -> bool {
    let mut bytes = part.bytes();
    !part.is_empty()
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'/' | b'_'))
}

/// Leaves the quotes out only if every parser reads the text as this string: it begins with a letter, and
/// has no characters that are special in YAML.
fn scalar(text: &str) -> String {
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic())
        // A colon between letters separates no key from a value.
        && text.split(':').all(is_plain)
        && !text.starts_with("tag:")
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if safe {
        text.to_owned()
    } else {
        // A JSON string is a YAML string, without the characters that no YAML may contain.
        escaped(&json!(text).to_string())
    }
}
