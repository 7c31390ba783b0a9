//! The `CustomResourceDefinition`s as they are installed: the output of the derive macro, and the
//! parts that it cannot express.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;
use serde_json::json;

use super::{TailscaleDeviceInvite, TailscaleDevicePolicy, TailscaleTailnet};

/// The definitions of all custom resources, in the order of the reference.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = annotated_definitions();
    for schema in definitions.iter_mut().flat_map(schemas) {
        walk(schema, &mut |schema| {
            for rule in schema.x_kubernetes_validations.iter_mut().flatten() {
                rule.reason = None;
            }
        });
    }
    definitions
}

/// As [`definitions`], with the [remedy](super::Remedy) of each rule in its `reason`. Not to be installed.
#[must_use]
pub(crate) fn annotated_definitions() -> Vec<CustomResourceDefinition> {
    [
        TailscaleDevicePolicy::crd(),
        TailscaleTailnet::crd(),
        TailscaleDeviceInvite::crd(),
    ]
    .into_iter()
    .map(finished)
    .collect()
}

fn finished(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for schema in schemas(&mut definition) {
        walk(schema, &mut plain);
        // Flux considers an object without a status ready. With this default it waits until the
        // controller has observed the generation.
        if let Some(status) = schema
            .properties
            .as_mut()
            .and_then(|all| all.get_mut("status"))
        {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    definition
}

/// The schemas of the versions of a definition.
fn schemas(
    definition: &mut CustomResourceDefinition,
) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let versions = definition.spec.versions.iter_mut();
    versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// Removes the parts of a schema that only reflect Rust types.
fn plain(schema: &mut JSONSchemaProps) {
    // `field: null` has no meaning of its own: server-side apply must refuse it rather than store it.
    schema.nullable = None;
    // The API server drops empty lists: an install that has one would change at each `kubectl apply`.
    let rules = schema.x_kubernetes_validations.take();
    schema.x_kubernetes_validations = rules.filter(|rules| !rules.is_empty());
    if let Some(description) = &mut schema.description {
        *description = unwrapped(description);
    }
    // The API server warns about formats that it does not know.
    if schema
        .format
        .as_deref()
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.format = None;
    }
    // `kubectl explain` prints the description of an element below that of its field, which is enough.
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        items.description = None;
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        values.description = None;
    }
}

/// Calls a function for a schema and all below it.
fn walk(schema: &mut JSONSchemaProps, visit: &mut impl FnMut(&mut JSONSchemaProps)) {
    visit(schema);
    let properties = schema.properties.iter_mut().flatten();
    for (_, property) in properties {
        walk(property, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        walk(items, visit);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        walk(values, visit);
    }
}

/// A doc comment as running text: `kubectl explain` preserves line breaks and then wraps lines
/// itself. Each paragraph becomes one line.
fn unwrapped(comment: &str) -> String {
    let paragraphs: Vec<String> = comment
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    paragraphs.join("\n")
}
