//! Recognizes what must be rendered before it is a manifest: Helm charts and kustomizations.

use std::path::Path;

use super::{
    code::Code,
    diagnostic::{Diagnostic, Severity},
    schema::{Finding, Location},
    span::{Place, Source},
    text::Text,
    tree::{Data, Node},
};

/// The API group of kustomizations.
const KUSTOMIZE: &str = "kustomize.config.k8s.io";

/// The fields of a kustomization that change nothing in the files beside it.
const UNCHANGED: [&str; 4] = ["apiVersion", "kind", "metadata", "resources"];

/// The files of a Helm chart that are no templates.
const CHART_FILES: [&str; 2] = ["chart", "values"];

const RENDER_CHART: &str = "render it first, as in helm template CHART | tsdp validate -f -";

/// Whether a text has an action of a template: `{{ … }}`.
pub fn is_in(text: &str) -> bool {
    text.split_once("{{")
        .is_some_and(|(_, rest)| rest.contains("}}"))
}

/// A text that cannot be read because it is a template.
pub fn of_helm() -> Text {
    Text::new("this is a Helm template, which kubectl does not read").help(RENDER_CHART)
}

/// A file of a chart that is no template.
pub fn part_of_a_chart(source: &Source) -> Option<Text> {
    let stem = stem(source)?;
    CHART_FILES.contains(&stem.as_str()).then(|| {
        Text::new("this is a part of a Helm chart, which kubectl does not read").help(RENDER_CHART)
    })
}

/// Replaces the errors about a value that is a template: they are all because of that.
pub fn instead_of_values(findings: Vec<Finding>, root: &Node) -> Vec<Finding> {
    let mut replaced: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        let text = match &finding.location {
            Location::Key(key) => Some(key.as_str()),
            _ => root.find(&finding.field).and_then(Node::text),
        };
        let Some(text) = text.filter(|text| is_in(text)) else {
            replaced.push(finding);
            continue;
        };
        let problem = format!("'{text}' is a template that is not rendered");
        let not_rendered = Finding {
            code: Code::NotRendered,
            text: Text::new(problem).help(RENDER_CHART),
            ..finding
        };
        // A value can break several rules.
        if !replaced.contains(&not_rendered) {
            replaced.push(not_rendered);
        }
    }
    replaced
}

/// A kustomization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kustomization {
    /// Whether its output is something else than the files beside it.
    pub changes: bool,
}

/// A document that is a kustomization. kustomize reads one without `apiVersion` and `kind` too.
pub fn kustomization(source: &Source, root: &Node, group: &str) -> Option<Kustomization> {
    let by_name = stem(source).is_some_and(|stem| stem == "kustomization");
    let is_untyped = root.get("kind").is_none() && matches!(root.data, Data::Map(_));
    if group != KUSTOMIZE && !(by_name && is_untyped) {
        return None;
    }
    let mut entries = root.entries().iter();
    let resources = root.get("resources").and_then(Node::items);
    let mut elsewhere = resources.into_iter().flatten().filter_map(Node::text);
    Some(Kustomization {
        changes: entries.any(|entry| !UNCHANGED.contains(&entry.key.as_str()))
            || elsewhere.any(|path| path.starts_with("..") || path.contains("://")),
    })
}

impl Kustomization {
    /// A warning that the output of the kustomization is not what is checked.
    pub fn warning(place: Place) -> Diagnostic {
        let text = Text::new("tsdp reads the files beside this kustomization, and not its output")
            .help("render it first, as in kustomize build FOLDER | tsdp validate -f -");
        Diagnostic {
            severity: Severity::Warning,
            ..Diagnostic::error(Code::NotRendered, place, text)
        }
    }
}

fn stem(source: &Source) -> Option<String> {
    let stem = Path::new(&source.name).file_stem()?;
    Some(stem.to_string_lossy().to_lowercase())
}
