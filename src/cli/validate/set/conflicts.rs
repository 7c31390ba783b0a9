//! Policies that wish for what cannot be both.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::imagined_tailnet::ImaginedTailnet;
use crate::{
    api::TailscaleDevicePolicy,
    cli::manifests::{Code, Diagnostic, FieldPath, Located, Related, Severity},
    plan::{self, Admission, Conflict, ConflictKind, Field, PolicyKey},
};

/// The conflicts between the policies of one tailnet.
pub fn check(
    policies: &[&Located<TailscaleDevicePolicy>],
    guards: &Admission,
    now: Timestamp,
) -> Vec<Diagnostic> {
    let model = ImaginedTailnet::new(policies);
    let survey = plan::plan_tailnet(
        &model.policies,
        guards,
        &model.fleet,
        &model.attributes,
        now,
    );
    let keys = model.policies.iter().map(|declared| &declared.key);
    let located: BTreeMap<&PolicyKey, &Located<TailscaleDevicePolicy>> =
        keys.zip(policies.iter().copied()).collect();
    let mut message: BTreeSet<(&PolicyKey, &Field, &PolicyKey)> = BTreeSet::new();
    let mut diagnostics = Vec::new();
    for plan in survey.devices.values() {
        for conflict in &plan.owners.conflicts {
            let Conflict {
                overridden: loser,
                field,
                owner: winner,
                ..
            } = conflict;
            let both = (located.get(loser), located.get(winner));
            if let (Some(loses), Some(wins)) = both
                && message.insert((loser, field, winner))
            {
                diagnostics.push(diagnostic(conflict, loses, wins));
            }
        }
    }
    diagnostics
}

fn diagnostic(
    conflict: &Conflict,
    loses: &Located<TailscaleDevicePolicy>,
    wins: &Located<TailscaleDevicePolicy>,
) -> Diagnostic {
    let Conflict {
        field,
        owner: winner,
        ..
    } = conflict;
    let (lower, higher) = (loses.priority(), wins.priority());
    let decides = if lower < higher {
        format!("it decides by its priority, {higher}")
    } else {
        "the older one decides".to_owned()
    };
    let by_fleet = loses.selects() || wins.selects();
    let (other, mend, sure) = match &conflict.kind {
        ConflictKind::Field if by_fleet => (
            format!("{winner} wishes otherwise on devices that both select"),
            format!("wish the same in both, or leave {field} out of one"),
            // Of two selectors nobody knows whether they meet.
            false,
        ),
        ConflictKind::Field => (
            format!("{winner} wishes otherwise for the same device"),
            format!("wish the same in both, or leave {field} out of one"),
            // A priority says that somebody knows.
            lower == higher,
        ),
        ConflictKind::Type(attribute_type) => (
            format!(
                "{winner} wishes for {attribute_type}, and a key has one spelling and one type in the whole tailnet"
            ),
            "write it alike in both, or give it another key".to_owned(),
            true,
        ),
        ConflictKind::Device(_) => (
            format!("{winner} wishes for it on another device, and only one can have it"),
            "write another one, or name the device alike in both".to_owned(),
            loses.named_by() == wins.named_by(),
        ),
    };
    let path = FieldPath::parse(&format!("spec.{field}"));
    let theirs = match &conflict.kind {
        ConflictKind::Type(attribute_type) => {
            FieldPath::parse(&format!("spec.postureAttributes[{}]", attribute_type.key))
        }
        _ => path.clone(),
    };
    let message = format!("{other}: {mend}. As it is, {decides}");
    Diagnostic {
        severity: if sure {
            Severity::Error
        } else {
            Severity::Warning
        },
        related: vec![Related {
            place: wins.document.place(&theirs),
            message: format!("the other wish, of {winner}"),
        }],
        ..loses.document.diagnostic(Code::Conflict, &path, message)
    }
}

impl Located<TailscaleDevicePolicy> {
    fn priority(&self) -> i32 {
        self.object.spec.priority.unwrap_or_default()
    }

    fn selects(&self) -> bool {
        self.object.spec.device_selector.is_some()
    }

    /// By which kind of identity the device is named: two kinds may name one device.
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
