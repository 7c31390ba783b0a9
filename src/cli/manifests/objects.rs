//! From documents to objects of our kinds.

use std::sync::Arc;

use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Located, Manifests,
    fault::{Code, Fault},
    path::FieldPath,
    place::{Place, Position, Source, Span},
    split,
    tree::{Data, Node},
    yaml::{self, YamlError},
};
use crate::api::{GROUP, VERSION};

/// An object as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    source: Arc<Source>,
    root: Node,
    /// The kind and the name, such as `TailscaleDevicePolicy network/fra-router`.
    title: String,
}

impl Document {
    /// The kind, the namespace and the name.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The file that it stands in.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Where a field stands, or the nearest thing above it.
    #[must_use]
    pub fn place(&self, path: &FieldPath) -> Place {
        self.at(self.root.locate(path))
    }

    /// Where the key of a field stands.
    #[must_use]
    pub fn place_of_key(&self, path: &FieldPath) -> Place {
        self.at(self.root.locate_key(path))
    }

    /// An error about a field.
    #[must_use]
    pub fn fault(&self, code: Code, field: &FieldPath, message: impl Into<String>) -> Fault {
        Fault {
            object: Some(self.title.clone()),
            field: field.clone(),
            ..Fault::error(code, self.place(field), message)
        }
    }

    fn at(&self, span: Span) -> Place {
        Place {
            source: Arc::clone(&self.source),
            span,
        }
    }
}

/// The objects that were read so far.
pub struct Reading<'n> {
    namespace: &'n str,
    manifests: Manifests,
    faults: Vec<Fault>,
}

impl<'n> Reading<'n> {
    /// Begins, with the faults of what could not be read.
    pub fn new(namespace: &'n str, faults: Vec<Fault>) -> Self {
        Self {
            namespace,
            manifests: Manifests::default(),
            faults,
        }
    }

    /// Takes the objects of a file.
    pub fn take(&mut self, source: &Arc<Source>) {
        let documents = match split::documents(&source.text) {
            Ok(documents) => documents,
            Err(separator) => {
                let start = Position {
                    line: separator.line,
                    column: 1,
                };
                let message = format!(
                    "kubectl takes nothing but a comment behind ---, found '{}': write it into the \
                     next line",
                    separator.behind
                );
                self.add(source, Code::Syntax, Span::at(start), message);
                return;
            }
        };
        for document in documents {
            match yaml::read(document.text, document.start) {
                Ok(read) => {
                    for YamlError { span, message } in read.faults {
                        self.add(source, Code::DuplicateKey, span, message);
                    }
                    if let Some(root) = read.root {
                        self.object(source, root);
                    }
                }
                Err(YamlError { span, message }) => self.add(source, Code::Syntax, span, message),
            }
        }
    }

    /// What was read.
    pub fn finish(mut self, files: usize) -> (Manifests, Vec<Fault>) {
        self.manifests.files = files;
        (self.manifests, self.faults)
    }

    fn add(&mut self, source: &Arc<Source>, code: Code, span: Span, message: String) {
        let source = Arc::clone(source);
        self.faults
            .push(Fault::error(code, Place { source, span }, message));
    }

    fn object(&mut self, source: &Arc<Source>, root: Node) {
        if root.data == Data::Null {
            return;
        }
        let text = |field: &str| root.get(field).and_then(Node::text).unwrap_or_default();
        let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        if kind.ends_with("List") && root.get("items").is_some_and(|it| it.items().is_some()) {
            self.list(source, &root, &version, &kind);
            return;
        }
        let namespace = root.get("metadata").and_then(|it| it.get("namespace"));
        let namespace = namespace.and_then(Node::text).unwrap_or(self.namespace);
        let name = root.get("metadata").and_then(|it| it.get("name"));
        let name = name.and_then(Node::text).unwrap_or("without a name");
        let title = match kind.as_str() {
            "TailscaleTailnet" => format!("{kind} {name}"),
            _ => format!("{kind} {namespace}/{name}"),
        };
        let source = Arc::clone(source);
        let document = Document {
            source,
            root,
            title,
        };
        let ours = version == format!("{GROUP}/{VERSION}");
        match kind.as_str() {
            "TailscaleDevicePolicy" if ours => {
                if let Some(located) = self.typed(document, true) {
                    self.manifests.policies.push(located);
                }
            }
            "TailscaleTailnet" if ours => {
                if let Some(located) = self.typed(document, false) {
                    self.manifests.tailnets.push(located);
                }
            }
            "TailscaleDeviceInvite" if ours => {
                if let Some(located) = self.typed(document, true) {
                    self.manifests.invites.push(located);
                }
            }
            _ => self.other(&document, &version, &kind),
        }
    }

    /// The items of a list; in a list of one kind they need not name it.
    fn list(&mut self, source: &Arc<Source>, root: &Node, version: &str, kind: &str) {
        let items = root.entries().iter().find(|entry| entry.key == "items");
        let items = items.and_then(|entry| entry.value.items());
        let of = kind.strip_suffix("List").filter(|of| !of.is_empty());
        for item in items.unwrap_or_default() {
            let mut item = item.clone();
            if let (Some(of), Data::Map(entries)) = (of, &mut item.data) {
                let span = item.span;
                for (key, value) in [("apiVersion", version), ("kind", of)] {
                    if entries.iter().all(|entry| entry.key != key) {
                        let data = Data::Text(value.to_owned());
                        entries.push(super::tree::Entry {
                            key: key.to_owned(),
                            key_span: span,
                            value: Node { span, data },
                        });
                    }
                }
            }
            self.object(source, item);
        }
    }

    fn typed<T: DeserializeOwned + Resource>(
        &mut self,
        document: Document,
        namespaced: bool,
    ) -> Option<Located<T>> {
        match serde_path_to_error::deserialize::<Value, T>(document.root.to_json()) {
            Ok(mut object) => {
                if namespaced && object.namespace().is_none() {
                    object.meta_mut().namespace = Some(self.namespace.to_owned());
                }
                Some(Located { object, document })
            }
            Err(error) => {
                let field = FieldPath::parse(&error.path().to_string());
                let message = error.inner().to_string();
                self.faults
                    .push(document.fault(Code::Schema, &field, message));
                None
            }
        }
    }

    /// An object of another kind is left alone, unless it was meant to be one of ours.
    fn other(&mut self, document: &Document, version: &str, kind: &str) {
        let (group, _) = version.split_once('/').unwrap_or(("", version));
        let our_kind = crate::api::schema::definitions()
            .iter()
            .any(|definition| definition.spec.names.kind == kind);
        if our_kind {
            let message =
                format!("'{version}' is not the version of a {kind}: write {GROUP}/{VERSION}");
            let field = FieldPath::ROOT.field("apiVersion");
            self.faults
                .push(document.fault(Code::UnknownKind, &field, message));
        } else if group == GROUP {
            let message = format!("there is no kind '{kind}' in {GROUP}");
            let field = FieldPath::ROOT.field("kind");
            self.faults
                .push(document.fault(Code::UnknownKind, &field, message));
        } else {
            self.manifests.others += 1;
        }
    }
}
