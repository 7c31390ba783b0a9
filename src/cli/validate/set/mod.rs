//! Errors between objects that are valid by themselves.

mod conflicts;
mod guardrails;
mod imagined_tailnet;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    api::TailscaleTailnet,
    cli::manifests::{
        Code, Diagnostic, Document, FieldPath, LoadedPolicy, Located, Manifests, Severity, Text,
    },
    plan::Admission,
};

/// All errors between the objects. `now` decides which expiries have passed.
pub fn check(manifests: &Manifests, controller_namespace: &str, now: Timestamp) -> Vec<Diagnostic> {
    // Policies of different tailnets cannot conflict.
    let mut by_tailnet: BTreeMap<&str, Vec<&LoadedPolicy>> = BTreeMap::new();
    for policy in policies(manifests) {
        let tailnet = policy.object.spec.tailnet_name();
        by_tailnet.entry(tailnet).or_default().push(policy);
    }
    let mut diagnostics = missing_tailnets(manifests);
    for (tailnet, policies) in by_tailnet {
        let tailnet = self::tailnet(manifests, tailnet);
        let admission = guardrails::of(tailnet, manifests, controller_namespace);
        diagnostics.extend(guardrails::check(&policies, &admission, tailnet));
        diagnostics.extend(conflicts::check(&policies, &admission, now));
    }
    diagnostics.extend(guardrails::unreadable(manifests, controller_namespace));
    diagnostics
}

/// The guardrails of a tailnet of the manifests.
pub fn admission(manifests: &Manifests, tailnet: &str, controller_namespace: &str) -> Admission {
    let located = self::tailnet(manifests, tailnet);
    guardrails::of(located, manifests, controller_namespace)
}

/// The policies, with what can be read of the invalid ones.
fn policies(manifests: &Manifests) -> impl Iterator<Item = &LoadedPolicy> {
    let incomplete = &manifests.incomplete_policies;
    manifests.policies.iter().chain(incomplete)
}

/// A tailnet of the manifests.
pub fn tailnet<'a>(
    manifests: &'a Manifests,
    wanted: &str,
) -> Option<&'a Located<TailscaleTailnet>> {
    let incomplete = &manifests.incomplete_tailnets;
    let mut tailnets = manifests.tailnets.iter().chain(incomplete);
    tailnets.find(|it| name(it) == wanted)
}

/// Objects whose tailnet is missing. Reports nothing if there is no tailnet at all: then the tailnets are
/// probably kept elsewhere.
fn missing_tailnets(manifests: &Manifests) -> Vec<Diagnostic> {
    let known = &manifests.tailnet_names;
    if known.is_empty() {
        return Vec::new();
    }
    let policies = policies(manifests).map(|it| (it.object.spec.tailnet_name(), &it.document));
    let invites = manifests
        .invites
        .iter()
        .map(|it| (it.object.spec.tailnet_name(), &it.document));
    policies
        .chain(invites)
        .filter(|(tailnet, _)| !known.contains(*tailnet))
        .map(|(tailnet, document)| missing(tailnet, known, document))
        .collect()
}

fn missing(tailnet: &str, known: &BTreeSet<String>, document: &Document) -> Diagnostic {
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let text = Text::new(format!(
        "found no TailscaleTailnet {tailnet} among the manifests"
    ))
    .help(format!(
        "add it, or name {} in tailnetRef",
        names.join(" or ")
    ));
    let field = FieldPath::parse("spec.tailnetRef.name");
    Diagnostic {
        severity: Severity::Warning,
        ..document.diagnostic(Code::MissingTailnet, &field, text)
    }
}

fn name(tailnet: &Located<TailscaleTailnet>) -> &str {
    tailnet.object.metadata.name.as_deref().unwrap_or_default()
}
