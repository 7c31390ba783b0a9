//! The result of checking manifests.

use crate::cli::manifests::{Diagnostic, Manifests, Severity};

/// The manifests and all diagnostics.
pub(super) struct Outcome {
    pub manifests: Manifests,
    pub diagnostics: Vec<Diagnostic>,
}

impl Outcome {
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
