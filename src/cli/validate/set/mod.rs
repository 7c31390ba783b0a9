//! What only the whole set shows: between objects that are right by themselves.

mod conflicts;
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    api::{TailscaleDevicePolicy, TailscaleTailnet},
    cli::manifests::{Code, Document, Fault, FieldPath, Located, Manifests, Severity},
};

/// All that is wrong between the objects, at this time.
pub fn check(manifests: &Manifests, now: Timestamp) -> Vec<Fault> {
    let mut by_tailnet: BTreeMap<&str, Vec<&Located<TailscaleDevicePolicy>>> = BTreeMap::new();
    for policy in &manifests.policies {
        let tailnet = policy.object.spec.tailnet_name();
        by_tailnet.entry(tailnet).or_default().push(policy);
    }
    let mut faults = missing_tailnets(manifests);
    for policies in by_tailnet.values() {
        faults.extend(conflicts::check(policies, now));
    }
    faults
}

/// Objects whose tailnet is not there, though some are: where none is, they are kept elsewhere.
fn missing_tailnets(manifests: &Manifests) -> Vec<Fault> {
    let known: BTreeSet<&str> = manifests.tailnets.iter().map(name).collect();
    if known.is_empty() {
        return Vec::new();
    }
    let policies = manifests
        .policies
        .iter()
        .map(|it| (it.object.spec.tailnet_name(), &it.document));
    let invites = manifests
        .invites
        .iter()
        .map(|it| (it.object.spec.tailnet_name(), &it.document));
    policies
        .chain(invites)
        .filter(|(tailnet, _)| !known.contains(tailnet))
        .map(|(tailnet, document)| missing(tailnet, &known, document))
        .collect()
}

fn missing(tailnet: &str, known: &BTreeSet<&str>, document: &Document) -> Fault {
    let known: Vec<&str> = known.iter().copied().collect();
    let message = format!(
        "there is no TailscaleTailnet {tailnet} among the manifests: add it, or name {} in tailnetRef",
        known.join(" or ")
    );
    let field = FieldPath::parse("spec.tailnetRef.name");
    Fault {
        severity: Severity::Warning,
        ..document.fault(Code::MissingTailnet, &field, message)
    }
}

fn name(tailnet: &Located<TailscaleTailnet>) -> &str {
    tailnet.object.metadata.name.as_deref().unwrap_or_default()
}
