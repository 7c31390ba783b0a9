//! Manifests from files, read as kubectl reads and sends them, with the place of each field.
//!
//! ```text
//! paths ─► input (texts) ─► split (documents) ─► yaml, scalar (trees)
//!       ─► objects (by kind) ─► schema (the checks of the API server) ─► typed objects
//! ```

mod code;
mod diagnostic;
mod document;
mod foreign;
mod go_yaml;
mod incomplete;
mod input;
mod loaded;
mod objects;
mod path;
mod scalar;
mod schema;
mod span;
mod split;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod wording;
mod yaml;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

pub(in crate::cli) use self::input::is_manifest;
pub use self::{
    code::Code,
    diagnostic::{Diagnostic, Diagnostics, Related, Severity},
    document::Document,
    loaded::{LoadedPolicy, Located, Manifests},
    path::{FieldPath, Step},
    span::{Place, Position, Source, Span},
    text::Text,
};

/// Reads files, folders with their subfolders, and `-` for standard input. `namespace` is that of objects
/// that name none, and `written` a file of these folders to leave out. Fails with all diagnostics if the API
/// server would refuse any object.
pub fn load(
    paths: &[PathBuf],
    written: Option<&Path>,
    namespace: &str,
) -> Result<Manifests, Diagnostics> {
    let (sources, diagnostics) = input::read(paths, written);
    let (manifests, diagnostics) = read_sources(&sources, namespace, diagnostics);
    // Warnings do not count, as the API server would accept the objects too.
    let has_errors = diagnostics.iter().any(|it| it.severity == Severity::Error);
    if has_errors {
        return Err(Diagnostics(diagnostics));
    }
    Ok(manifests)
}

/// As [`load`], but returns the valid objects together with the diagnostics of the others.
#[must_use]
pub fn read(paths: &[PathBuf], namespace: &str) -> (Manifests, Vec<Diagnostic>) {
    let (sources, diagnostics) = input::read(paths, None);
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
    objects::values(&Arc::new(Source::new("-", text)))
}
