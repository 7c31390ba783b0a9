//! Manifests from files, as kubectl would read and send them, each with its place.
//!
//! ```text
//! paths ─► input (texts) ─► split (documents) ─► yaml, scalar (trees)
//!       ─► objects (of which kind) ─► schema (as the API server checks them) ─► typed
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

/// An object and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The object. Its namespace is filled in.
    pub object: T,
    /// Where it stands.
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
    /// The labels of the namespaces that are among them.
    pub namespaces: BTreeMap<String, Labels>,
    /// How many objects of our kinds there are, those with faults included.
    pub found: usize,
    /// How many objects of other kinds there are: they are left alone.
    pub others: usize,
    /// How many files were read.
    pub files: usize,
}

/// Reads files, folders with all that is in them, and `-` for the standard input. Objects without a
/// namespace are taken to be in `namespace`. Either everything is as the API server would take it, or
/// all faults are given.
pub fn load(paths: &[PathBuf], namespace: &str) -> Result<Manifests, Diagnostics> {
    let (manifests, diagnostics) = read(paths, namespace);
    let broken = diagnostics.iter().any(|it| it.severity == Severity::Error);
    if broken {
        return Err(Diagnostics(diagnostics));
    }
    Ok(manifests)
}

/// As [`load`], but gives what could be read beside the faults of the rest.
#[must_use]
pub fn read(paths: &[PathBuf], namespace: &str) -> (Manifests, Vec<Diagnostic>) {
    let (sources, diagnostics) = input::read(paths);
    read_sources(&sources, namespace, diagnostics)
}

/// As [`read`], for what was read already, with the faults of what could not be.
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

/// The documents of a text as kubectl would send them, of whatever kind.
pub fn values(text: &str) -> Result<Vec<Value>, Diagnostics> {
    objects::values(&Arc::new(Source {
        name: "-".to_owned(),
        text: text.to_owned(),
    }))
}
