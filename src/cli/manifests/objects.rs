//! From documents to objects of tailnet.dev.

use std::{collections::HashMap, sync::Arc};

use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    code::Code,
    diagnostic::{Diagnostic, Diagnostics, Related, Severity},
    document::Document,
    foreign::{self, NotYaml},
    incomplete::{self, Invalid},
    loaded::{LoadedPolicy, Located, Manifests},
    path::FieldPath,
    schema::Schemas,
    span::{Place, Position, Source, Span},
    split::{self, BadSeparator},
    template::{self, Kustomization},
    text::Text,
    tree::{Data, Entry, Node},
    yaml::{self, YamlError},
};
use crate::api::{APPROVE, GROUP, VERSION};

/// The fields of `metadata` that a file can declare.
const DECLARED_METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];

/// The field by which a saved plan is recognized.
const SAVED_PLAN: &str = "policiesHash";

/// The objects and diagnostics so far.
pub struct Reading<'n> {
    namespace: &'n str,
    schemas: Schemas,
    manifests: Manifests,
    diagnostics: Vec<Diagnostic>,
    /// The places of each object, to find duplicates.
    places: HashMap<String, Vec<Place>>,
    /// The kustomizations.
    kustomizations: Vec<(Kustomization, Place)>,
}

impl<'n> Reading<'n> {
    /// Starts with the diagnostics of reading the files.
    pub fn new(namespace: &'n str, diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            namespace,
            schemas: Schemas::new(),
            manifests: Manifests::default(),
            diagnostics,
            places: HashMap::new(),
            kustomizations: Vec::new(),
        }
    }

    /// Adds the objects of a file.
    pub fn take(&mut self, source: &Arc<Source>) {
        for root in roots(source, &mut self.diagnostics) {
            self.object(source, root);
        }
    }

    /// Returns the objects and diagnostics.
    pub fn finish(mut self, files: usize) -> (Manifests, Vec<Diagnostic>) {
        self.manifests.files = files;
        self.refuse_duplicates();
        let nothing_else = self.manifests.found == 0;
        for (kustomization, place) in self.kustomizations {
            // Of files that are applied as they are, a list does not change anything.
            if kustomization.changes || nothing_else {
                self.diagnostics.push(Kustomization::warning(place));
            }
        }
        (self.manifests, self.diagnostics)
    }

    fn object(&mut self, source: &Arc<Source>, root: Node) {
        let text = |field: &str| root.get(field).and_then(Node::text).unwrap_or_default();
        let (version, kind) = (text("apiVersion").to_owned(), text("kind").to_owned());
        // A list of any kind: kubectl sends its items one by one.
        if is_list(&root) {
            self.list(source, &root, &version, &kind);
            return;
        }
        if version != format!("{GROUP}/{VERSION}") || self.schemas.kinds().all(|it| it != kind) {
            self.other(source, &root, &version, &kind);
            return;
        }
        // Before the checks, as the total includes invalid objects.
        self.manifests.found += 1;
        let document = self.document(source, root, &kind);
        // A second object of a name does not conflict with the first one too: that is one mistake.
        let is_first = self.is_first(&document);
        match kind.as_str() {
            "TailscaleDevicePolicy" => {
                let policy = self.typed(document, &kind).map(LoadedPolicy::from);
                match policy.and_then(|policy| self.planned(policy)) {
                    Ok(policy) => self.manifests.policies.extend(is_first.then_some(policy)),
                    Err(invalid) => {
                        let rest = incomplete::policy(*invalid, self.namespace);
                        let rest = rest.filter(|_| is_first);
                        self.manifests.incomplete_policies.extend(rest);
                    }
                }
            }
            "TailscaleTailnet" => {
                let name = Some(document.name().to_owned()).filter(|name| !name.is_empty());
                let tailnet = self.typed(document, &kind);
                self.manifests.tailnet_names.extend(name);
                match tailnet {
                    Ok(tailnet) => self.manifests.tailnets.extend(is_first.then_some(tailnet)),
                    Err(invalid) => {
                        let rest = incomplete::tailnet(*invalid).filter(|_| is_first);
                        self.manifests.incomplete_tailnets.extend(rest);
                    }
                }
            }
            _ => {
                let invite = self.typed(document, &kind).ok();
                self.manifests.invites.extend(invite.filter(|_| is_first));
            }
        }
    }

    /// Whether no object before has the same kind and name.
    fn is_first(&mut self, document: &Document) -> bool {
        let place = document.place(&name_field());
        let places = self.places.entry(document.title().to_owned()).or_default();
        places.push(place);
        places.len() == 1
    }

    /// Refuses objects that the files hold more than once: in the cluster the last one would silently overwrite
    /// the others. One error for each name, with all places.
    fn refuse_duplicates(&mut self) {
        for (title, places) in std::mem::take(&mut self.places) {
            let mut places = places.into_iter();
            let (Some(first), Some(second)) = (places.next(), places.next()) else {
                continue;
            };
            let also = |place: Place| Related {
                place,
                message: "the same name again".to_owned(),
            };
            let text = Text::new(format!(
                "the object also exists at {first}, and kubectl would overwrite one with the other"
            ))
            .help("keep one of them, or rename one");
            let related = std::iter::once(Related {
                place: first,
                message: "the first one".to_owned(),
            });
            let diagnostic = Diagnostic {
                object: Some(title),
                field: name_field(),
                related: related.chain(places.map(also)).collect(),
                ..Diagnostic::error(Code::DuplicateObject, second, text)
            };
            self.diagnostics.push(diagnostic);
        }
    }

    fn document(&self, source: &Arc<Source>, root: Node, kind: &str) -> Document {
        let metadata = |field| root.get("metadata")?.get(field)?.text();
        let name = metadata("name").unwrap_or("(without a name)");
        let title = if self.schemas.namespaced(kind) {
            let namespace = metadata("namespace").unwrap_or(self.namespace);
            format!("{kind} {namespace}/{name}")
        } else {
            format!("{kind} {name}")
        };
        Document::new(Arc::clone(source), root, title)
    }

    /// Adds the items of a list. In a list of one kind the items need not name it.
    fn list(&mut self, source: &Arc<Source>, root: &Node, version: &str, kind: &str) {
        let items = root.get("items").and_then(Node::items);
        let of = kind.strip_suffix("List").filter(|of| !of.is_empty());
        for item in items.unwrap_or_default() {
            let mut item = item.clone();
            if is_list(&item) {
                let place = Place {
                    source: Arc::clone(source),
                    span: item.span,
                };
                let text = Text::new("kubectl does not read a list within a list")
                    .help("write its items in the outer list");
                let diagnostic = Diagnostic::error(Code::NotAnObject, place, text);
                self.diagnostics.push(diagnostic);
                continue;
            }
            if let (Some(of), Data::Map(entries)) = (of, &mut item.data) {
                // The place of the item, as its file does not have these keys.
                let key_span = item.span;
                for (key, text) in [("apiVersion", version), ("kind", of)] {
                    if entries.iter().all(|entry| entry.key != key) {
                        entries.push(Entry {
                            key: key.to_owned(),
                            key_span,
                            value: Node::new(key_span, Data::Text(text.to_owned())),
                        });
                    }
                }
            }
            self.object(source, item);
        }
    }

    /// The typed object, if the API server would accept it.
    fn typed<T: DeserializeOwned + Resource>(
        &mut self,
        document: Document,
        kind: &str,
    ) -> Result<Located<T>, Box<Invalid>> {
        let findings = self.schemas.check(kind, document.root());
        let findings = template::instead_of_values(findings, document.root());
        // Warnings do not count: the API server accepts the object.
        let errors = findings.iter().filter(|it| it.severity == Severity::Error);
        let errors: Vec<_> = errors.map(|it| it.field.clone()).collect();
        let diagnostics = findings.into_iter().map(|it| document.located(it));
        self.diagnostics.extend(diagnostics);
        let declared = only_declared(document.root().given());
        if !errors.is_empty() {
            return Err(Box::new(Invalid {
                document,
                declared,
                errors,
            }));
        }
        match serde_path_to_error::deserialize::<&Value, T>(&declared) {
            Ok(mut object) => {
                if self.schemas.namespaced(kind) && object.namespace().is_none() {
                    // As kubectl, which fills in the namespace of its context.
                    object.meta_mut().namespace = Some(self.namespace.to_owned());
                }
                Ok(Located { object, document })
            }
            // Rare, as the schema was checked: the type is stricter than its schema here.
            Err(error) => {
                let field = FieldPath::parse(&error.path().to_string());
                let message = error.inner().to_string();
                let diagnostic = document.diagnostic(Code::InvalidSpec, &field, message);
                self.diagnostics.push(diagnostic);
                Err(Box::new(Invalid {
                    document,
                    declared,
                    errors: vec![field],
                }))
            }
        }
    }

    /// The policy, if the planner accepts it too. It finds errors that no CEL rule can find.
    fn planned(&mut self, policy: LoadedPolicy) -> Result<LoadedPolicy, Box<Invalid>> {
        let Err(errors) = &policy.input.policy else {
            return Ok(policy);
        };
        for error in errors {
            // The errors of the planner begin with the path of the field.
            let (_, message) = error.split_once(": ").unwrap_or(("", error));
            let field = incomplete::field_of(error);
            let text = Text::split(message);
            let diagnostic = policy.document.diagnostic(Code::InvalidSpec, &field, text);
            self.diagnostics.push(diagnostic);
        }
        Err(Box::new(Invalid {
            errors: errors.iter().map(|it| incomplete::field_of(it)).collect(),
            declared: only_declared(policy.document.root().given()),
            document: policy.document,
        }))
    }

    /// Records the labels of a namespace, by which `allowedPolicies` can select policies.
    fn namespace(&mut self, root: &Node) {
        let metadata = root.get("metadata");
        let Some(name) = metadata.and_then(|it| it.get("name")?.text()) else {
            return;
        };
        let labels = metadata
            .and_then(|it| it.get("labels"))
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .filter_map(|label| {
                let value = label.value.text()?;
                Some((label.key.clone(), value.to_owned()))
            })
            .collect();
        self.manifests.namespaces.insert(name.to_owned(), labels);
    }

    /// Ignores an object of another kind, unless its group or its kind is one of tailnet.dev: then it is
    /// probably misspelled.
    fn other(&mut self, source: &Arc<Source>, root: &Node, version: &str, kind: &str) {
        let (group, _) = version.split_once('/').unwrap_or(("", version));
        let place = Place {
            source: Arc::clone(source),
            span: root.span,
        };
        let (field, text) = if self.schemas.kinds().any(|known| known == kind) {
            let problem = if version.is_empty() {
                "the version is missing".to_owned()
            } else {
                format!("{kind} does not exist in '{version}'")
            };
            let text = Text::new(problem).help(format!("write {GROUP}/{VERSION}"));
            ("apiVersion", text)
        } else if group == GROUP {
            ("kind", self.unknown_kind(kind))
        } else if let Some(kustomization) = template::kustomization(source, root, group) {
            self.manifests.others += 1;
            self.kustomizations.push((kustomization, place));
            return;
        } else if let Some((code, text)) = no_object(source, root, version, kind) {
            self.diagnostics.push(Diagnostic::error(code, place, text));
            return;
        } else {
            self.manifests.others += 1;
            if (version, kind) == ("v1", "Namespace") {
                self.namespace(root);
            }
            return;
        };
        let document = self.document(source, root.clone(), kind);
        let field = FieldPath::ROOT.field(field);
        let diagnostic = document.diagnostic(Code::UnknownKind, &field, text);
        self.diagnostics.push(diagnostic);
    }

    fn unknown_kind(&self, kind: &str) -> Text {
        let mut kinds: Vec<&str> = self.schemas.kinds().collect();
        // The map of kinds has no order.
        kinds.sort_unstable();
        let near = crate::model::nearest(kind, kinds.iter().copied());
        let help = near.map_or_else(
            || format!("write {}", kinds.join(" or ")),
            |near| format!("did you mean {near}?"),
        );
        Text::new(format!("the kind '{kind}' does not exist in {GROUP}")).help(help)
    }
}

fn is_list(node: &Node) -> bool {
    let kind = node.get("kind").and_then(Node::text);
    let has_items = node.get("items").is_some_and(|it| it.items().is_some());
    has_items && kind.is_some_and(|kind| kind.ends_with("List"))
}

fn name_field() -> FieldPath {
    FieldPath::ROOT.field("metadata").field("name")
}

/// Why a document is no object of any kind. kubectl refuses it too.
fn no_object(source: &Source, root: &Node, version: &str, kind: &str) -> Option<(Code, Text)> {
    let text = match &root.data {
        Data::Map(_) if root.get(SAVED_PLAN).is_some() => {
            Text::new("this is a plan that tsdp plan --out saved")
                .help("run tsdp apply with this file alone, or move it away from the manifests")
        }
        Data::Map(_) => {
            let missing = match (version.is_empty(), kind.is_empty()) {
                (false, false) => return None,
                (true, true) => "apiVersion and kind are",
                (true, false) => "apiVersion is",
                (false, true) => "kind is",
            };
            if let Some(text) = template::part_of_a_chart(source) {
                return Some((Code::NotRendered, text));
            }
            Text::new(format!("this is not a Kubernetes object: {missing} missing"))
                .help("add what is missing, or move the file away from the manifests")
        }
        Data::List(_) => Text::new("found a list, expected an object").help(
            "write each object as a document of its own, with --- between them, or write kind: List with the \
             list as items",
        ),
        _ => Text::new("found a single value, expected an object with apiVersion and kind")
            .help("give a file of manifests"),
    };
    Some((Code::NotAnObject, text))
}

/// Removes all that a file cannot declare. The API server ignores the status, the age, the deletion and the
/// other fields that a server writes. An approval goes too: a person writes it on the object in the
/// cluster, after seeing the plan in its status.
fn only_declared(mut object: Value) -> Value {
    let Some(fields) = object.as_object_mut() else {
        return object;
    };
    fields.remove("status");
    let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(metadata) = metadata {
        metadata.retain(|field, _| DECLARED_METADATA.contains(&field.as_str()));
        let annotations = metadata.get_mut("annotations");
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            annotations.remove(APPROVE);
        }
    }
    object
}

/// The documents of a text as values.
pub fn values(source: &Arc<Source>) -> Result<Vec<Value>, Diagnostics> {
    let mut diagnostics = Vec::new();
    let roots = roots(source, &mut diagnostics);
    if diagnostics.is_empty() {
        Ok(roots.iter().map(Node::to_json).collect())
    } else {
        Err(Diagnostics(diagnostics))
    }
}

/// The root nodes of the documents of a file.
fn roots(source: &Arc<Source>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut add = |code, span, text: Text| {
        let source = Arc::clone(source);
        diagnostics.push(Diagnostic::error(code, Place { source, span }, text));
    };
    if let Some(NotYaml { what, help }) = foreign::recognize(&source.text) {
        let text = Text::new(format!("this is {what}")).help(help);
        add(Code::NotYaml, Span::at(Position::START), text);
        return Vec::new();
    }
    let documents = match split::documents(&source.text) {
        Ok(documents) => documents,
        Err(BadSeparator { line, rest }) => {
            let start = Position { line, column: 1 };
            let text = Text::new(format!(
                "found '{rest}' after ---, where kubectl accepts only a comment"
            ));
            let help = "write it on the next line";
            add(Code::Syntax, Span::at(start), text.help(help));
            return Vec::new();
        }
    };
    let mut roots = Vec::new();
    for document in documents {
        match yaml::read(&document) {
            Ok(read) => {
                for YamlError { span, text } in read.diagnostics {
                    add(Code::DuplicateKey, span, text);
                }
                // kubectl skips a document that holds only comments or null.
                roots.extend(read.root.filter(|root| root.data != Data::Null));
            }
            Err(YamlError { span, .. }) if template::is_in(document.text) => {
                add(Code::NotRendered, span, template::of_helm());
            }
            Err(YamlError { span, text }) => add(Code::Syntax, span, text),
        }
    }
    roots
}
