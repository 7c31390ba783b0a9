//! Policies as text: YAML that means the same to every reader, and comments.

use std::fmt::Write as _;

use serde_json::Value;

/// A comment of one line. Machines name themselves: what they say must not end the comment.
pub(super) fn comment(text: &str) -> String {
    let mut line = "# ".to_owned();
    for letter in text.chars() {
        // The line ends of YAML 1.1 among them, and what turns the direction of a line.
        let odd = letter.is_control()
            || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if odd {
            line.extend(letter.escape_unicode());
        } else {
            line.push(letter);
        }
    }
    line.push('\n');
    line
}

/// A JSON object as YAML: a line for each field, lists in brackets, and quotes around each text
/// that some reader of YAML could take for something else (`on`, `0777`, `12:30`, `1e3`).
pub(super) fn yaml(object: &Value) -> String {
    let mut text = String::new();
    write_fields(&mut text, object, 0);
    text
}

fn write_fields(text: &mut String, object: &Value, depth: usize) {
    for (key, value) in object.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        // Writing to a string cannot fail.
        let _ = write!(text, "{indent}{}:", scalar(key));
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                text.push('\n');
                write_fields(text, value, depth + 1);
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(flow).collect();
                let _ = writeln!(text, " [{}]", items.join(", "));
            }
            value => {
                let _ = writeln!(text, " {}", flow(value));
            }
        }
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // JSON is YAML.
        other => other.to_string(),
    }
}

/// Words that YAML 1.1, which kubectl reads, takes for booleans or nothing.
const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// Without quotes only what no reader takes for anything but this text: it begins with a letter,
/// and has no letters of YAML's own.
fn scalar(text: &str) -> String {
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'/' | b'_');
    // A colon between letters separates nothing.
    let plain = |part: &str| !part.is_empty() && part.bytes().all(letters);
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.split(':').all(plain)
        && !text.starts_with("tag:")
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if safe {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
