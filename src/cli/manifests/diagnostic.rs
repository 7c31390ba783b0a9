use std::{fmt, io};

use super::{code::Code, path::FieldPath, span::Place, text::Text};

/// An error or a warning, with its place in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the manifests are invalid.
    pub severity: Severity,
    /// The kind of the diagnostic.
    pub code: Code,
    /// The object, such as `TailscaleDevicePolicy network/fra-router`.
    pub object: Option<String>,
    /// The field. The root for a diagnostic about the whole object or file.
    pub field: FieldPath,
    /// What was found, and what to write instead.
    pub text: Text,
    /// The place in the file.
    pub place: Option<Place>,
    /// The file, or the folder that could not be read.
    pub file: String,
    /// Other places that it refers to.
    pub related: Vec<Related>,
}

/// Another place that a diagnostic refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// The place.
    pub place: Place,
    /// Its role, in a few words.
    pub message: String,
}

/// The severity of a diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The manifests are not valid.
    Error,
    /// The manifests are valid, but probably not as intended.
    Warning,
}

impl Severity {
    /// The word before a diagnostic.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(code: Code, place: Place, text: impl Into<Text>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            object: None,
            field: FieldPath::ROOT,
            text: text.into(),
            file: place.source.name.clone(),
            place: Some(place),
            related: Vec::new(),
        }
    }

    /// A file or folder that cannot be read.
    #[must_use]
    pub fn unreadable(file: &str, error: &io::Error) -> Self {
        Self::of_file(Code::Unreadable, file, format!("cannot be read: {error}"))
    }

    /// An error about a whole file.
    #[must_use]
    pub fn of_file(code: Code, file: &str, text: impl Into<Text>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            object: None,
            field: FieldPath::ROOT,
            text: text.into(),
            place: None,
            file: file.to_owned(),
            related: Vec::new(),
        }
    }
}

impl Diagnostic {
    /// The sort key: by file and place.
    #[must_use]
    pub fn order(&self) -> (String, Option<(usize, usize)>, Code) {
        let start = self.place.as_ref().map(|place| {
            let start = place.span.start;
            (start.line, start.column)
        });
        // The code last: two errors at one place keep their order between runs.
        (self.file.clone(), start, self.code)
    }

    /// The problem with its place: `policies.yaml:7:3: spec.tags[0]: 'router' is not a valid tag`.
    #[must_use]
    pub fn problem(&self) -> String {
        let place = match &self.place {
            Some(place) => place.to_string(),
            None => self.file.clone(),
        };
        // An error about a whole file has no field to name.
        if self.field.steps().is_empty() {
            return format!("{place}: {}", self.text.problem);
        }
        format!("{place}: {}: {}", self.field, self.text.problem)
    }
}

impl fmt::Display for Diagnostic {
    /// In one line: `policies.yaml:7:3: spec.tags[0]: 'router' is not a valid tag …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: ")?,
            None => write!(f, "{}: ", self.file)?,
        }
        // An error about a whole file has no field to name.
        if !self.field.steps().is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        self.text.fmt(f)
    }
}

/// All diagnostics of invalid manifests, as one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    /// Each diagnostic as a line for the problem and a line for the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manifests are not valid (tsdp validate shows the lines):")?;
        for diagnostic in &self.0 {
            let severity = diagnostic.severity.as_str();
            write!(f, "\n{severity}: {}", diagnostic.problem())?;
            if let Some(help) = &diagnostic.text.help {
                write!(f, "\nhelp: {help}")?;
            }
        }
        Ok(())
    }
}
