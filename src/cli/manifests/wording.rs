//! The names of values and types in messages.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use crate::cli::manifests::{
    text::Text,
    tree::{Data, Node},
};

/// A value that is not of the expected type.
pub fn wrong_type(kind: &str, node: &Node) -> Text {
    let (found, help) = found(kind, node);
    let text = Text::new(format!("expected {}, found {found}", expected(kind)));
    match help {
        Some(help) => text.help(help),
        None => text,
    }
}

/// The name of an expected type.
fn expected(kind: &str) -> &'static str {
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
fn found(kind: &str, node: &Node) -> (String, Option<String>) {
    let value = node.to_json();
    let unquoted = || Some("write it without quotes".to_owned());
    let help = match (kind, &node.data) {
        (_, Data::Null) => Some("write a value, or leave the field out".to_owned()),
        ("array", Data::Text(_) | Data::Boolean(_) | Data::Number(_)) => {
            Some(format!("write [{value}]"))
        }
        ("string", Data::Boolean(_) | Data::Number(_)) => {
            let written = node.written.clone().unwrap_or_else(|| value.to_string());
            Some(format!("write \"{written}\""))
        }
        ("integer" | "number", Data::Text(text)) if text.parse::<f64>().is_ok() => unquoted(),
        ("boolean", Data::Text(text)) if matches!(text.as_str(), "true" | "false") => unquoted(),
        _ => None,
    };
    (described(node), help)
}

/// A value, in a few words.
pub fn described(node: &Node) -> String {
    let as_read = node.to_json().to_string();
    match (&node.data, &node.written) {
        (Data::Null, _) => "nothing".to_owned(),
        (Data::Text(text), _) => format!("the string '{text}'"),
        (Data::Boolean(_) | Data::Number(_), Some(written)) if *written != as_read => {
            format!("{written}, which kubectl reads as {as_read}")
        }
        (Data::Boolean(_) | Data::Number(_), _) => as_read,
        (Data::List(_), _) => "a list".to_owned(),
        (Data::Map(_), _) => "a map".to_owned(),
    }
}

/// The example in the description of a field.
pub fn example(schema: &JSONSchemaProps) -> Option<&str> {
    let description = schema.description.as_deref()?;
    let (_, example) = description.rsplit_once("Example: ")?;
    Some(example.lines().next()?.trim())
}
