//! The parts of an invalid object that can be read, for the checks between objects: one error must not hide
//! another.

use kube::ResourceExt as _;
use serde_json::Value;

use super::{
    document::Document,
    loaded::{LoadedPolicy, Located},
    path::{FieldPath, Step},
};
use crate::api::{TailscaleDevicePolicy, TailscaleTailnet};

/// The fields that say which devices a policy targets, and how. If one of them has an error, no check between
/// objects can tell what the policy does.
const DECISIVE: [&str; 7] = [
    "tailnetRef",
    "device",
    "deviceSelector",
    "ownership",
    "priority",
    "enforcement",
    "suspend",
];

/// An object with errors.
pub(super) struct Invalid {
    pub document: Document,
    /// What the file declares.
    pub declared: Value,
    /// The fields that have an error.
    pub errors: Vec<FieldPath>,
}

/// The policy without the fields that have an error. `None` if the rest does not tell what it does.
pub(super) fn policy(invalid: Invalid, namespace: &str) -> Option<LoadedPolicy> {
    let Invalid {
        document,
        mut declared,
        mut errors,
    } = invalid;
    // Twice: the planner finds more errors, and only in what the schema accepts.
    for _ in 0..2 {
        for field in &errors {
            remove(&mut declared, field)?;
        }
        let mut object: TailscaleDevicePolicy = serde_json::from_value(declared.clone()).ok()?;
        if object.namespace().is_none() {
            object.metadata.namespace = Some(namespace.to_owned());
        }
        let policy = LoadedPolicy::from(Located {
            object,
            document: document.clone(),
        });
        let Err(more) = &policy.input.policy else {
            return Some(policy);
        };
        errors = more.iter().map(|error| field_of(error)).collect();
    }
    None
}

/// The tailnet, unless the errors are in its rules for policies.
pub(super) fn tailnet(invalid: Invalid) -> Option<Located<TailscaleTailnet>> {
    let rules = FieldPath::parse("spec.allowedPolicies");
    let in_rules = |field: &FieldPath| field.steps().starts_with(rules.steps());
    if invalid.errors.iter().any(in_rules) {
        return None;
    }
    Some(Located {
        object: serde_json::from_value(invalid.declared).ok()?,
        document: invalid.document,
    })
}

/// The field that a message of the planner begins with.
pub(super) fn field_of(message: &str) -> FieldPath {
    FieldPath::parse(message.split_once(": ").map_or("", |(field, _)| field))
}

/// Removes a setting. `None` if the rest would mean something else without it.
fn remove(declared: &mut Value, field: &FieldPath) -> Option<()> {
    let names: Vec<String> = field.steps().iter().map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (parent, key) = match names.as_slice() {
        ["spec", "postureAttributes", key, ..] => ("/spec/postureAttributes", *key),
        ["spec", field, ..] if !DECISIVE.contains(field) => ("/spec", *field),
        ["metadata", field, ..] if !["name", "namespace"].contains(field) => ("/metadata", *field),
        // A rule on several fields: each of them can be read.
        ["spec"] => return Some(()),
        _ => return None,
    };
    if let Some(fields) = declared.pointer_mut(parent).and_then(Value::as_object_mut) {
        fields.remove(key);
    }
    Some(())
}

fn name(step: &Step) -> String {
    match step {
        Step::Field(name) | Step::Key(name) => name.clone(),
        Step::Index(index) => index.to_string(),
    }
}
