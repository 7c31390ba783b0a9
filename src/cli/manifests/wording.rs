//! The names of values and types in messages.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use crate::cli::manifests::tree::{Data, Node};

/// The name of an expected type.
pub fn expected(kind: &str) -> &'static str {
    match kind {
        "object" => "a map",
        "array" => "a list",
        "string" => "a string",
        "boolean" => "true or false",
        "integer" => "an integer",
        "int-or-string" => "an integer or a string",
        _ => "a number",
    }
}

/// The value that was found instead, and what to write.
pub fn found(kind: &str, node: &Node) -> String {
    let value = node.to_json();
    match (kind, &node.data) {
        (_, Data::Null) => "nothing. Write a value, or leave the field out".to_owned(),
        ("array", Data::Text(text)) => format!("the string '{text}'. Write [\"{text}\"]"),
        ("array", Data::Boolean(_) | Data::Number(_)) => format!("{value}. Write [{value}]"),
        ("string", Data::Boolean(_) | Data::Number(_)) => {
            let as_read = value.to_string();
            match &node.written {
                Some(written) if *written != as_read => {
                    format!("{written}, which kubectl reads as {as_read}. Write \"{written}\"")
                }
                _ => format!("{as_read}. Write \"{as_read}\""),
            }
        }
        ("integer" | "number", Data::Text(text)) if text.parse::<f64>().is_ok() => {
            format!("the string '{text}'. Write it without quotes")
        }
        ("boolean", Data::Text(text)) if matches!(text.as_str(), "true" | "false") => {
            format!("the string '{text}'. Write it without quotes")
        }
        (_, Data::Text(text)) => format!("the string '{text}'"),
        (_, Data::Boolean(_) | Data::Number(_)) => format!("{value}"),
        (_, Data::List(_)) => "a list".to_owned(),
        (_, Data::Map(_)) => "a map".to_owned(),
    }
}

/// The example in the description of a field.
pub fn example(schema: &JSONSchemaProps) -> Option<&str> {
    let description = schema.description.as_deref()?;
    let (_, example) = description.rsplit_once("Example: ")?;
    Some(example.lines().next()?.trim())
}

/// The known word that a misspelled one most likely stands for.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let near = known.into_iter().filter_map(|known| {
        let edits = distance(&word.to_ascii_lowercase(), &known.to_ascii_lowercase())?;
        Some((edits, known))
    });
    near.min_by_key(|(edits, _)| *edits).map(|(_, known)| known)
}

/// The number of edits from one word to the other, if they are similar.
fn distance(word: &str, known: &str) -> Option<usize> {
    // Also a word without its beginning or end: routes for enabledRoutes. Shorter ones are part of
    // too many words.
    let part = word.len() >= 3 && (known.contains(word) || word.contains(known));
    let edits = strsim::damerau_levenshtein(word, known);
    let close = edits <= 1.max(known.len() / 3);
    (close || part).then_some(edits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found() {
        let known = [
            "tags",
            "enabledRoutes",
            "keyExpiry",
            "os",
            "name",
            "device",
            "deviceSelector",
        ];
        for (word, near) in [
            ("tag", Some("tags")),
            ("Tags", Some("tags")),
            ("routes", Some("enabledRoutes")),
            ("keyexpiry", Some("keyExpiry")),
            ("enabeldRoutes", Some("enabledRoutes")),
            ("devices", Some("device")),
            ("selector", Some("deviceSelector")),
            ("frequency", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), near, "{word}");
        }
    }
}
