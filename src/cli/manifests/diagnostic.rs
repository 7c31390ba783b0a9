use std::{fmt, io};

use super::{path::FieldPath, span::Place};

/// What is wrong with manifests: where, what was found, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops what is to be done.
    pub severity: Severity,
    /// What kind of fault it is.
    pub code: Code,
    /// The object that it is about, such as `TailscaleDevicePolicy network/fra-router`.
    pub object: Option<String>,
    /// The field that it is about; the root where it is the whole object or file.
    pub field: FieldPath,
    /// What was found and what to write.
    pub message: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// The file or folder, where nothing of it could be read.
    pub file: String,
    /// Other places that play a part.
    pub related: Vec<Related>,
}

/// Another place that plays a part in a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Where.
    pub place: Place,
    /// Which part it plays.
    pub message: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The manifests are not valid.
    Error,
    /// They are, but maybe not as they were meant.
    Warning,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A file or folder cannot be read.
    Unreadable,
    /// It is neither YAML nor JSON.
    Syntax,
    /// One key stands twice.
    DuplicateKey,
    /// There is no such kind in this version.
    UnknownKind,
    /// There is no such field.
    UnknownField,
    /// A value is not of its type, or not within its bounds.
    Schema,
    /// A rule of the resource is broken.
    Rule,
    /// One object stands twice.
    DuplicateObject,
    /// Two policies wish for what cannot be both.
    Conflict,
    /// The tailnet that is named is not among the manifests.
    MissingTailnet,
    /// The guards of the tailnet do not allow it.
    NotAllowed,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Unreadable,
        Self::Syntax,
        Self::DuplicateKey,
        Self::UnknownKind,
        Self::UnknownField,
        Self::Schema,
        Self::Rule,
        Self::DuplicateObject,
        Self::Conflict,
        Self::MissingTailnet,
        Self::NotAllowed,
    ];

    /// The word that stands for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::DuplicateKey => "duplicate-key",
            Self::UnknownKind => "unknown-kind",
            Self::UnknownField => "unknown-field",
            Self::Schema => "schema",
            Self::Rule => "rule",
            Self::DuplicateObject => "duplicate-object",
            Self::Conflict => "conflict",
            Self::MissingTailnet => "missing-tailnet",
            Self::NotAllowed => "not-allowed",
        }
    }

    /// What it means, as a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Unreadable => "A file or folder cannot be read.",
            Self::Syntax => "A document is neither YAML nor JSON as kubectl reads it.",
            Self::DuplicateKey => "A key stands twice in one map.",
            Self::UnknownKind => "There is no such kind, or not in this version.",
            Self::UnknownField => "There is no such field.",
            Self::Schema => "A value is not of its type or not within its bounds.",
            Self::Rule => "A rule of the resource is broken.",
            Self::DuplicateObject => "One object stands twice.",
            Self::Conflict => "Two policies wish for what cannot be both.",
            Self::MissingTailnet => "The tailnet that is named is not among the manifests.",
            Self::NotAllowed => "The guards of the tailnet do not allow it.",
        }
    }
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(code: Code, place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            object: None,
            field: FieldPath::ROOT,
            message: message.into(),
            file: place.source.name.clone(),
            place: Some(place),
            related: Vec::new(),
        }
    }

    /// A file or folder that cannot be read.
    #[must_use]
    pub fn unreadable(file: &str, error: &io::Error) -> Self {
        Self {
            severity: Severity::Error,
            code: Code::Unreadable,
            object: None,
            field: FieldPath::ROOT,
            message: format!("cannot read it: {error}"),
            place: None,
            file: file.to_owned(),
            related: Vec::new(),
        }
    }
}

impl Diagnostic {
    /// Sorts faults as they stand in the files.
    #[must_use]
    pub fn order(&self) -> (String, Option<(usize, usize)>, Code) {
        let start = self.place.as_ref().map(|place| place.span.start);
        let start = start.map(|start| (start.line, start.column));
        (self.file.clone(), start, self.code)
    }
}

impl fmt::Display for Diagnostic {
    /// In one line: `policies.yaml:7:3: spec.tags[0]: 'router' is no tag …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: ")?,
            None => write!(f, "{}: ", self.file)?,
        }
        if !self.field.steps().is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Why manifests are not used: all faults at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    /// A line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manifests are not valid (tsdp validate shows the lines):")?;
        for diagnostic in &self.0 {
            write!(f, "\n  {diagnostic}")?;
        }
        Ok(())
    }
}
