//! Manifests from files, read as kubectl reads and sends them, with the place of each field.
//!
//! ```text
//! paths ─► input (texts) ─► split (documents) ─► yaml, scalar (trees)
//!       ─► objects (by kind) ─► schema (the checks of the API server) ─► typed objects
//! ```

mod diagnostic;
mod input;
mod objects;
mod path;
#[cfg(test)]
mod properties;
mod scalar;
mod schema;
mod span;
mod split;
#[cfg(test)]
mod tests;
mod tree;
mod wording;
mod yaml;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde_json::Value;

use crate::{
    api::{TailscaleDeviceInvite, TailscaleDevicePolicy, TailscaleTailnet},
    plan::Labels,
};

pub(in crate::cli) use self::input::is_manifest;
pub use self::{
    diagnostic::{Code, Diagnostic, Diagnostics, Related, Severity},
    objects::Document,
    path::{FieldPath, Step},
    span::{Place, Position, Source, Span},
};

/// An object with its document.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The object. Its namespace is always set.
    pub object: T,
    /// The document, for the places of fields.
    pub document: Document,
}

/// The objects of a set of files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifests {
    /// The policies.
    pub policies: Vec<Located<TailscaleDevicePolicy>>,
    /// The tailnets.
    pub tailnets: Vec<Located<TailscaleTailnet>>,
    /// The invites.
    pub invites: Vec<Located<TailscaleDeviceInvite>>,
    /// The labels of the Namespace objects.
    pub namespaces: BTreeMap<String, Labels>,
    /// The number of objects of tailnet.dev, with the invalid ones.
    pub found: usize,
    /// The number of objects of other kinds, which are ignored.
    pub others: usize,
    /// The number of files.
    pub files: usize,
}

/// Reads files, folders with their subfolders, and `-` for standard input. `namespace` is that of objects
/// that name none. Fails with all diagnostics if the API server would refuse any object.
pub fn load(paths: &[PathBuf], namespace: &str) -> Result<Manifests, Diagnostics> {
    let (manifests, diagnostics) = read(paths, namespace);
    let has_errors = diagnostics.iter().any(|it| it.severity == Severity::Error);
    if has_errors {
        return Err(Diagnostics(diagnostics));
    }
    Ok(manifests)
}

/// As [`load`], but returns the valid objects together with the diagnostics of the others.
#[must_use]
pub fn read(paths: &[PathBuf], namespace: &str) -> (Manifests, Vec<Diagnostic>) {
    let (sources, diagnostics) = input::read(paths);
    read_sources(&sources, namespace, diagnostics)
}

/// As [`read`], for texts that were read already. `diagnostics` are those of reading them.
#[must_use]
pub fn read_sources(
    sources: &[Arc<Source>],
    namespace: &str,
    diagnostics: Vec<Diagnostic>,
) -> (Manifests, Vec<Diagnostic>) {
    let mut reading = objects::Reading::new(namespace, diagnostics);
    for source in sources {
        reading.take(source);
    }
    reading.finish(sources.len())
}

/// The documents of a text as kubectl would send them, of any kind.
pub fn values(text: &str) -> Result<Vec<Value>, Diagnostics> {
    objects::values(&Arc::new(Source {
        name: "-".to_owned(),
        text: text.to_owned(),
    }))
}
