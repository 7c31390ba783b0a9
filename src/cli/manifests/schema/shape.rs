//! Whether a value has the shape that its schema asks for, regardless of what is in it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;

use crate::cli::manifests::tree::{Data, Node};

/// The type that a schema names.
pub fn kind(schema: &JSONSchemaProps) -> Option<&str> {
    match schema.x_kubernetes_int_or_string {
        // The API server gives it no type.
        Some(true) => Some("int-or-string"),
        _ => schema.type_.as_deref(),
    }
}

/// The values that a string can have. None if it can have any.
pub fn choices(schema: &JSONSchemaProps) -> Vec<&str> {
    let choices = schema.enum_.iter().flatten();
    choices.filter_map(|it| it.0.as_str()).collect()
}

/// Whether a value has the right type.
pub fn is_of_type(schema: &JSONSchemaProps, node: &Node) -> bool {
    match (kind(schema), &node.data) {
        (None, _)
        | (Some("object"), Data::Map(_))
        | (Some("array"), Data::List(_))
        | (Some("string" | "int-or-string"), Data::Text(_))
        | (Some("boolean"), Data::Boolean(_))
        | (Some("number"), Data::Number(_)) => true,
        // 3.0 has become an integer when it was read, as in kubectl.
        (Some("integer" | "int-or-string"), Data::Number(number)) => !number.is_f64(),
        _ => false,
    }
}

/// Whether rules can read a value: it has the right type and size, and is one of the choices.
pub fn is_readable(schema: &JSONSchemaProps, node: &Node) -> bool {
    let within = |max: Option<i64>, count: usize| {
        max.is_none_or(|max| i64::try_from(count).is_ok_and(|count| count <= max))
    };
    let choices = choices(schema);
    is_of_type(schema, node)
        && match &node.data {
            Data::Map(entries) => within(schema.max_properties, entries.len()),
            Data::List(items) => within(schema.max_items, items.len()),
            Data::Text(text) => {
                (choices.is_empty() || choices.contains(&text.as_str()))
                    && within(schema.max_length, text.chars().count())
            }
            _ => true,
        }
}
