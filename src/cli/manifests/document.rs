//! An object in a file, with the place of each field.

use std::sync::Arc;

use super::{
    code::Code,
    diagnostic::Diagnostic,
    path::FieldPath,
    schema::{Finding, Location},
    span::{Place, Source, Span},
    text::Text,
    tree::Node,
};

/// An object in a file, with the place of each field.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    source: Arc<Source>,
    root: Node,
    /// The kind and the name, such as `TailscaleDevicePolicy network/fra-router`.
    title: String,
}

impl Document {
    pub(super) fn new(source: Arc<Source>, root: Node, title: String) -> Self {
        Self {
            source,
            root,
            title,
        }
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// The kind, the namespace and the name.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The name of the object. Empty without one.
    #[must_use]
    pub fn name(&self) -> &str {
        let name = self.root.get("metadata").and_then(|it| it.get("name"));
        name.and_then(Node::text).unwrap_or_default()
    }

    /// The file of the object.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The place of a field, or of its nearest parent that exists.
    #[must_use]
    pub fn place(&self, path: &FieldPath) -> Place {
        self.at(self.root.locate(path))
    }

    /// The place of a field's key.
    #[must_use]
    pub fn place_of_key(&self, path: &FieldPath) -> Place {
        self.at(self.root.locate_key(path))
    }

    /// An error at a field.
    #[must_use]
    pub fn diagnostic(&self, code: Code, field: &FieldPath, text: impl Into<Text>) -> Diagnostic {
        Diagnostic {
            object: Some(self.title.clone()),
            field: field.clone(),
            ..Diagnostic::error(code, self.place(field), text)
        }
    }

    pub(super) fn located(&self, finding: Finding) -> Diagnostic {
        let field = &finding.field;
        let place = match &finding.location {
            Location::Value => self.place(field),
            Location::Name => self.place_of_key(field),
            // An entry of a map has a key in the file, which is not part of the schema.
            Location::Key(key) => self.place_of_key(&field.key(key)),
        };
        Diagnostic {
            severity: finding.severity,
            place: Some(place),
            ..self.diagnostic(finding.code, &finding.field, finding.text)
        }
    }

    fn at(&self, span: Span) -> Place {
        Place {
            source: Arc::clone(&self.source),
            span,
        }
    }
}
