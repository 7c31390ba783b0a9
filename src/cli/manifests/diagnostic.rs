use std::{fmt, io};

use super::{path::FieldPath, span::Place};

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
    pub message: String,
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

/// The kinds of diagnostics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// A file or folder cannot be read.
    Unreadable,
    /// It is neither YAML nor JSON.
    Syntax,
    /// A map has a key twice.
    DuplicateKey,
    /// The kind or the version does not exist.
    UnknownKind,
    /// The field does not exist.
    UnknownField,
    /// A value has the wrong type, or is out of bounds.
    Schema,
    /// The object violates a rule of the resource.
    Rule,
    /// The manifests hold an object twice.
    DuplicateObject,
    /// Two policies conflict.
    Conflict,
    /// The tailnet of an object is not among the manifests.
    MissingTailnet,
    /// A guardrail of the tailnet denies it.
    NotAllowed,
    /// No device of the tailnet matches.
    NoDevice,
    /// Several devices of the tailnet have the name.
    AmbiguousDevice,
    /// Neither a device of the tailnet nor its policy file has the tag.
    UnknownTag,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 14] = [
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
        Self::NoDevice,
        Self::AmbiguousDevice,
        Self::UnknownTag,
    ];

    /// The code in the output.
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
            Self::NoDevice => "no-device",
            Self::AmbiguousDevice => "ambiguous-device",
            Self::UnknownTag => "unknown-tag",
        }
    }

    /// Its description, as a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Unreadable => "A file or folder cannot be read.",
            Self::Syntax => "A document is neither YAML nor JSON that kubectl reads.",
            Self::DuplicateKey => "A map has a key twice.",
            Self::UnknownKind => "The kind or the version does not exist.",
            Self::UnknownField => "The field does not exist.",
            Self::Schema => "A value has the wrong type, or is out of bounds.",
            Self::Rule => "The object violates a rule of the resource.",
            Self::DuplicateObject => "The manifests hold an object twice.",
            Self::Conflict => "Two policies conflict.",
            Self::MissingTailnet => "The tailnet of an object is not among the manifests.",
            Self::NotAllowed => "A guardrail of the tailnet denies it.",
            Self::NoDevice => "No device of the tailnet matches.",
            Self::AmbiguousDevice => "Several devices of the tailnet have the name.",
            Self::UnknownTag => "Neither a device of the tailnet nor its policy file has the tag.",
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
            message: format!("cannot be read: {error}"),
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
        f.write_str(&self.message)
    }
}

/// All diagnostics of invalid manifests, as one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    /// A line for each diagnostic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the manifests are not valid (tsdp validate shows the lines):")?;
        for diagnostic in &self.0 {
            write!(f, "\n  {diagnostic}")?;
        }
        Ok(())
    }
}
