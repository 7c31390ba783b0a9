//! Conflicts between policies.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::imagined_tailnet::ImaginedTailnet;
use crate::{
    cli::manifests::{Code, Diagnostic, FieldPath, LoadedPolicy, Related, Severity, Text},
    plan::{self, Admission, Conflict, ConflictKind, Field, PolicyKey},
};

/// The conflicts between the policies of one tailnet.
pub fn check(policies: &[&LoadedPolicy], admission: &Admission, now: Timestamp) -> Vec<Diagnostic> {
    let model = ImaginedTailnet::new(policies);
    let tailnet_plan = plan::plan_tailnet(
        &model.policies,
        admission,
        &model.fleet,
        &model.attributes,
        now,
    );
    let keys = model.policies.iter().map(|declared| &declared.key);
    let located: BTreeMap<&PolicyKey, &LoadedPolicy> = keys.zip(policies.iter().copied()).collect();
    let mut reported: BTreeSet<(&PolicyKey, &Field, &PolicyKey)> = BTreeSet::new();
    let mut diagnostics = Vec::new();
    for plan in tailnet_plan.devices.values() {
        for conflict in &plan.owners.conflicts {
            let Conflict {
                overridden,
                field,
                owner,
                ..
            } = conflict;
            let both = (located.get(overridden), located.get(owner));
            if let (Some(overridden_object), Some(owner_object)) = both
                // Once for two policies, however many devices they share.
                && reported.insert((overridden, field, owner))
            {
                diagnostics.push(diagnostic(conflict, overridden_object, owner_object));
            }
        }
    }
    diagnostics
}

fn diagnostic(
    conflict: &Conflict,
    overridden: &LoadedPolicy,
    precedent: &LoadedPolicy,
) -> Diagnostic {
    let Conflict { field, owner, .. } = conflict;
    let (lower, higher) = (overridden.priority(), precedent.priority());
    let precedence = if lower < higher {
        format!("{owner} takes precedence by its priority, {higher}")
    } else {
        "the older policy takes precedence".to_owned()
    };
    let (problem, advice, is_certain) = described(conflict, overridden, precedent);
    let path = FieldPath::parse(&format!("spec.{field}"));
    let other_path = match &conflict.kind {
        ConflictKind::Type(attribute_type) => {
            // The other policy may write the same key in another case.
            FieldPath::parse(&format!("spec.postureAttributes[{}]", attribute_type.key))
        }
        _ => path.clone(),
    };
    let text = Text::new(problem).help(format!("{advice}; until then, {precedence}"));
    Diagnostic {
        severity: if is_certain {
            Severity::Error
        } else {
            Severity::Warning
        },
        related: vec![Related {
            place: precedent.document.place(&other_path),
            message: format!("the other declaration, of {owner}"),
        }],
        ..overridden.document.diagnostic(Code::Conflict, &path, text)
    }
}

/// What is wrong, what to do, and whether it is certain that both policies match one device.
fn described(
    conflict: &Conflict,
    overridden: &LoadedPolicy,
    precedent: &LoadedPolicy,
) -> (String, String, bool) {
    let Conflict { field, owner, .. } = conflict;
    let by_selector = overridden.selects() || precedent.selects();
    let same_in_both = || format!("declare the same in both, or leave {field} out of one");
    match &conflict.kind {
        ConflictKind::Field if by_selector => (
            format!("{owner} declares another value for devices that both select"),
            same_in_both(),
            // Two selectors can match different devices, so this is only a warning.
            false,
        ),
        ConflictKind::Field => (
            format!("{owner} declares another value for the same device"),
            same_in_both(),
            // With different priorities the conflict is intended.
            overridden.priority() == precedent.priority(),
        ),
        ConflictKind::Type(attribute_type) => (
            format!(
                "{owner} declares {attribute_type}, and a key has one spelling and one type in the whole tailnet"
            ),
            "declare it in the same way in both, or choose another key".to_owned(),
            true,
        ),
        ConflictKind::Device(_) => (
            format!(
                "{owner} declares the same value for another device, and only one device can have it"
            ),
            "choose another value, or name the device in the same way in both".to_owned(),
            overridden.named_by() == precedent.named_by(),
        ),
    }
}

impl LoadedPolicy {
    fn priority(&self) -> i32 {
        self.object.spec.priority.unwrap_or_default()
    }

    fn selects(&self) -> bool {
        self.object.spec.device_selector.is_some()
    }

    /// The kind of identity that names the device. Two names of different kinds can mean the same device.
    fn named_by(&self) -> [bool; 4] {
        let device = self.object.spec.device.as_ref();
        device.map_or([false; 4], |device| {
            [
                device.node_id.is_some(),
                device.id.is_some(),
                device.name.is_some(),
                device.hostname.is_some(),
            ]
        })
    }
}
