//! The definitions under `crds/` are the ones that the code generates.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::assert_generated_folder;

#[test]
fn generated_crds_are_up_to_date() {
    let files: BTreeMap<_, _> = tsdp::cli::crds::files().unwrap().into_iter().collect();
    assert_generated_folder("crds", &files);
}

/// The API server drops an empty list, so that each `kubectl apply` would change the definition again.
#[test]
fn no_definition_contains_an_empty_list_or_map() {
    for (name, content) in &tsdp::cli::crds::files().unwrap() {
        let mut found: Value = serde_yaml::from_str(content).unwrap();
        if let Some(versions) = found.pointer_mut("/spec/versions") {
            for version in versions.as_array_mut().unwrap() {
                // It enables the subresource: the API server keeps it.
                assert_eq!(version["subresources"]["status"], json!({}));
                version["subresources"].take();
            }
        }
        assert_eq!(empty_parts(&found, ""), [] as [String; 0], "{name}");
    }
}

/// An entry that someone else added must not survive the next server-side apply.
#[test]
fn a_list_in_a_spec_has_one_owner() {
    for (name, content) in &tsdp::cli::crds::files().unwrap() {
        let found: Value = serde_yaml::from_str(content).unwrap();
        let spec = found.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
        let lists = spec.map(|spec| lists(spec, "spec")).unwrap_or_default();
        let shared: Vec<_> = lists.iter().filter(|(_, kind)| kind != "atomic").collect();
        assert!(shared.is_empty(), "{name}: {shared:?}");
    }
}

fn empty_parts(value: &Value, path: &str) -> Vec<String> {
    let parts: Vec<(String, &Value)> = match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, item)| (format!("{path}[{i}]"), item))
            .collect(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, entry)| (format!("{path}.{key}"), entry))
            .collect(),
        _ => return Vec::new(),
    };
    if parts.is_empty() {
        return vec![path.to_owned()];
    }
    let inside = parts.iter().map(|(path, part)| empty_parts(part, path));
    inside.flatten().collect()
}

/// Each list in a schema, with its `x-kubernetes-list-type`.
fn lists(schema: &Value, path: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if schema["type"] == "array" {
        let kind = schema["x-kubernetes-list-type"].as_str();
        found.push((path.to_owned(), kind.unwrap_or("absent").to_owned()));
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        found.extend(lists(property, &format!("{path}.{key}")));
    }
    for inside in ["items", "additionalProperties"] {
        if schema[inside].is_object() {
            found.extend(lists(&schema[inside], path));
        }
    }
    found
}
