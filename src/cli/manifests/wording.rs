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
