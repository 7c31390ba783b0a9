//! The result of checking manifests.

use crate::cli::manifests::{Diagnostic, Manifests, Severity};

/// The manifests and all diagnostics.
pub(super) struct Outcome {
    pub manifests: Manifests,
    pub diagnostics: Vec<Diagnostic>,
}

impl Outcome {
    pub fn new(manifests: Manifests, diagnostics: Vec<Diagnostic>) -> Self {
        let mut outcome = Self {
            manifests,
            diagnostics: Vec::new(),
        };
        outcome.add(diagnostics);
        outcome
    }

    pub fn add(&mut self, diagnostics: Vec<Diagnostic>) {
        self.diagnostics.extend(diagnostics);
        // By place and not by check, as an author reads the file from its start.
        self.diagnostics.sort_by_key(Diagnostic::order);
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == severity)
            .count()
    }

    pub fn valid(&self) -> bool {
        self.count(Severity::Error) == 0
    }
}
