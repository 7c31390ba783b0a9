//! The checks that Kubernetes makes for every object: name, namespace, labels and annotations.

use super::finding::Finding;
use crate::cli::manifests::{
    diagnostic::Code,
    path::FieldPath,
    tree::{Data, Node},
    wording::found,
};

const FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Checks the metadata of an object.
pub fn check(object: &Node, namespaced: bool, findings: &mut Vec<Finding>) {
    let path = FieldPath::ROOT.field("metadata");
    let mut add = |code, field, message| findings.push(Finding::error(code, field, message));
    let metadata = object.get("metadata");
    if let Some(node) = metadata
        && !matches!(node.data, Data::Map(_) | Data::Null)
    {
        let message = format!("expected a map, found {}", found("object", node));
        add(Code::Schema, path, message);
        return;
    }
    let entries = metadata.map(Node::entries).unwrap_or_default();
    for entry in entries {
        let field = path.field(&entry.key);
        if !FIELDS.contains(&entry.key.as_str()) {
            let message = match crate::model::nearest(&entry.key, FIELDS) {
                Some(near) => format!("unknown field. Did you mean {near}?"),
                None => "unknown field. Write it as an annotation".to_owned(),
            };
            add(Code::UnknownField, field, message);
            continue;
        }
        match entry.key.as_str() {
            // The API server drops it.
            _ if entry.value.data == Data::Null => {}
            "name" | "namespace" | "generateName" => {
                if let Some(message) = name(&entry.key, &entry.value) {
                    add(Code::Schema, field, message);
                }
            }
            "labels" | "annotations" => {
                for (below, message) in texts(&entry.key, &entry.value, &field) {
                    add(Code::Schema, below, message);
                }
            }
            _ => {}
        }
    }
    let is_named = |field| {
        let entry = entries.iter().find(|entry| entry.key == field);
        entry.is_some_and(|entry| entry.value.data != Data::Null)
    };
    // Despite a generateName, as `kubectl apply` needs a name.
    if !is_named("name") {
        let message = "the object has no name. Write one such as fra-router".to_owned();
        add(Code::Schema, path.field("name"), message);
    }
    if !namespaced && is_named("namespace") {
        let message =
            "the kind is cluster-scoped, so that the field has no effect. Remove it".to_owned();
        let field = path.field("namespace");
        findings.push(Finding::warning(Code::Schema, field, message));
    }
}

fn name(field: &str, node: &Node) -> Option<String> {
    let Data::Text(text) = &node.data else {
        return Some(format!(
            "expected a string, found {}",
            found("string", node)
        ));
    };
    let is_valid = match field {
        // A namespace is one label, other names are subdomains (RFC 1123).
        "namespace" => is_label(text),
        "generateName" => true,
        _ => is_subdomain(text),
    };
    (!is_valid).then(|| {
        format!(
            "'{text}' is not a valid {field} in Kubernetes. Write lowercase letters, digits and dashes, such as \
             fra-router"
        )
    })
}

fn texts(what: &str, node: &Node, path: &FieldPath) -> Vec<(FieldPath, String)> {
    if !matches!(node.data, Data::Map(_) | Data::Null) {
        let message = format!("expected a map, found {}", found("object", node));
        return vec![(path.clone(), message)];
    }
    let mut diagnostics = Vec::new();
    for entry in node.entries() {
        let field = path.key(&entry.key);
        let key = match what {
            // Case does not count in annotations. In labels it does: the domain must be in lower case.
            "annotations" => entry.key.to_ascii_lowercase(),
            _ => entry.key.clone(),
        };
        if !is_qualified(&key) {
            let message = format!(
                "'{}' is not a valid key. Write letters, digits, -, _ or ., optionally after a domain and a \
                 slash, such as example.com/team",
                entry.key
            );
            diagnostics.push((field.clone(), message));
        }
        match &entry.value.data {
            Data::Text(text) if what == "labels" && !is_label_value(text) => {
                let message = format!(
                    "'{text}' is not a valid value of a label. Write at most 63 letters, digits, -, _ or ."
                );
                diagnostics.push((field, message));
            }
            // The API server takes null for the empty string.
            Data::Text(_) | Data::Null => {}
            _ => {
                let found = found("string", &entry.value);
                diagnostics.push((field, format!("expected a string, found {found}")));
            }
        }
    }
    diagnostics
}

/// A label of RFC 1123, by the rules of Kubernetes.
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_subdomain_part(text)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_subdomain_part)
}

/// As a label, but of any length: Kubernetes bounds only the subdomain as a whole.
fn is_subdomain_part(text: &str) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty()
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_qualified(key: &str) -> bool {
    match key.rsplit_once('/') {
        Some((domain, name)) => is_subdomain(domain) && is_name_part(name),
        None => is_name_part(key),
    }
}

fn is_label_value(text: &str) -> bool {
    // Kubernetes allows a label without a value.
    text.is_empty() || is_name_part(text)
}

fn is_name_part(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
