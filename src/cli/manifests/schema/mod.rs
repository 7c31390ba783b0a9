//! The API server's checks of an object: its structure by the schema, then the CEL rules of the schema.
//!
//! The server skips all rules if any value is missing, too long or of the wrong type. This module skips
//! only the rules that depend on such a value, so that it reports all errors at once.

mod cel;
mod finding;
mod hints;
mod metadata;
mod network;
mod rules;
mod shape;
mod structure;

use std::collections::HashMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};

use super::tree::Node;
use crate::api::schema;
pub use finding::{Finding, Location};
use rules::Rules;

/// The schemas of all kinds of tailnet.dev.
pub struct Schemas {
    kinds: HashMap<String, Kind>,
    rules: Rules,
}

struct Kind {
    schema: JSONSchemaProps,
    namespaced: bool,
}

impl Schemas {
    /// The schemas of this version.
    #[must_use]
    pub fn new() -> Self {
        let kinds = schema::annotated_definitions().into_iter().filter_map(kind);
        Self {
            kinds: kinds.collect(),
            rules: Rules::new(),
        }
    }

    /// The names of the kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// Whether a kind is namespaced.
    #[must_use]
    pub fn namespaced(&self, kind: &str) -> bool {
        self.kinds.get(kind).is_some_and(|kind| kind.namespaced)
    }

    /// All errors of an object of a kind, in the order of its fields.
    #[must_use]
    pub fn check(&mut self, kind: &str, object: &Node) -> Vec<Finding> {
        let Some(kind) = self.kinds.get(kind) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        // By itself: the schema of a CRD says nothing about metadata.
        metadata::check(object, kind.namespaced, &mut findings);
        structure::check(&kind.schema, object, &mut self.rules, &mut findings);
        findings
    }
}

fn kind(definition: CustomResourceDefinition) -> Option<(String, Kind)> {
    let namespaced = definition.spec.scope == "Namespaced";
    // Each kind has one version.
    let version = definition.spec.versions.into_iter().next()?;
    let schema = version.schema?.open_api_v3_schema?;
    let kind = Kind { schema, namespaced };
    Some((definition.spec.names.kind, kind))
}
