//! An error or a warning of a check.

use crate::cli::manifests::{code::Code, diagnostic::Severity, path::FieldPath, text::Text};

/// An error or a warning about an object, before its place in the file is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether the API server refuses it.
    pub severity: Severity,
    /// The kind of diagnostic.
    pub code: Code,
    /// The field.
    pub field: FieldPath,
    /// The part of the field to point to.
    pub location: Location,
    /// What was found, and what to write instead.
    pub text: Text,
}

/// A part of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Its value.
    Value,
    /// Its name.
    Name,
    /// This key within its map.
    Key(String),
}

impl Finding {
    pub(super) fn error(code: Code, field: FieldPath, text: impl Into<Text>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            location: match code {
                Code::UnknownField => Location::Name,
                _ => Location::Value,
            },
            field,
            text: text.into(),
        }
    }

    pub(super) fn warning(code: Code, field: FieldPath, text: impl Into<Text>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, field, text)
        }
    }
}
