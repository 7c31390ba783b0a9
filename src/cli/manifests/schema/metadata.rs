//! The checks that Kubernetes makes for every object: name, namespace, labels and annotations.

use super::finding::Finding;
use crate::cli::manifests::{
    code::Code,
    path::FieldPath,
    text::Text,
    tree::{Data, Node},
    wording::wrong_type,
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
    let mut add = |code, field, text: Text| findings.push(Finding::error(code, field, text));
    let metadata = object.get("metadata");
    if let Some(node) = metadata
        && !matches!(node.data, Data::Map(_) | Data::Null)
    {
        add(Code::WrongType, path, wrong_type("object", node));
        return;
    }
    let entries = metadata.map(Node::entries).unwrap_or_default();
    for entry in entries {
        let field = path.field(&entry.key);
        if !FIELDS.contains(&entry.key.as_str()) {
            let help = match crate::model::nearest(&entry.key, FIELDS) {
                Some(near) => format!("did you mean {near}?"),
                None => "write it as an annotation".to_owned(),
            };
            add(
                Code::UnknownField,
                field,
                Text::new("unknown field").help(help),
            );
            continue;
        }
        match entry.key.as_str() {
            // The API server drops it.
            _ if entry.value.data == Data::Null => {}
            "name" | "namespace" | "generateName" => {
                if let Some((code, text)) = name(&entry.key, &entry.value) {
                    add(code, field, text);
                }
            }
            "labels" | "annotations" => {
                for (code, below, text) in texts(&entry.key, &entry.value, &field) {
                    add(code, below, text);
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
        let text = Text::new("the object has no name").help("write one such as fra-router");
        add(Code::MissingField, path.field("name"), text);
    }
    if !namespaced && is_named("namespace") {
        let text = Text::new("the kind is cluster-scoped, so that the field has no effect")
            .help("remove it");
        let field = path.field("namespace");
        findings.push(Finding::warning(Code::IgnoredNamespace, field, text));
    }
}

fn name(field: &str, node: &Node) -> Option<(Code, Text)> {
    let Data::Text(text) = &node.data else {
        return Some((Code::WrongType, wrong_type("string", node)));
    };
    let is_valid = match field {
        // A namespace is one label, other names are subdomains (RFC 1123).
        "namespace" => is_label(text),
        "generateName" => true,
        _ => is_subdomain(text),
    };
    (!is_valid).then(|| {
        let text = Text::new(format!("'{text}' is not a valid {field} in Kubernetes"))
            .help("write lowercase letters, digits and dashes, such as fra-router");
        (Code::InvalidMetadata, text)
    })
}

fn texts(what: &str, node: &Node, path: &FieldPath) -> Vec<(Code, FieldPath, Text)> {
    if !matches!(node.data, Data::Map(_) | Data::Null) {
        return vec![(Code::WrongType, path.clone(), wrong_type("object", node))];
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
            let text = Text::new(format!("'{}' is not a valid key", entry.key)).help(
                "write letters, digits, -, _ or ., optionally after a domain and a slash, such as \
                 example.com/team",
            );
            diagnostics.push((Code::InvalidMetadata, field.clone(), text));
        }
        match &entry.value.data {
            Data::Text(text) if what == "labels" && !is_label_value(text) => {
                let text = Text::new(format!("'{text}' is not a valid value of a label"))
                    .help("write at most 63 letters, digits, -, _ or .");
                diagnostics.push((Code::InvalidMetadata, field, text));
            }
            // The API server takes null for the empty string.
            Data::Text(_) | Data::Null => {}
            _ => diagnostics.push((Code::WrongType, field, wrong_type("string", &entry.value))),
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
