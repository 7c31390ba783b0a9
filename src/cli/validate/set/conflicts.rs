//! Policies that wish for what cannot be both.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::model::Model;
use crate::{
    api::TailscaleDevicePolicy,
    cli::manifests::{Code, Fault, FieldPath, Located, Related, Severity},
    plan::{self, Conflict, Field, PolicyKey},
};

/// The conflicts between the policies of one tailnet.
pub fn check(policies: &[&Located<TailscaleDevicePolicy>], now: Timestamp) -> Vec<Fault> {
    let model = Model::new(policies);
    let survey = plan::survey(&model.policies, &model.fleet, &model.attributes, now);
    let keys = model.policies.iter().map(|declared| &declared.key);
    let located: BTreeMap<&PolicyKey, &Located<TailscaleDevicePolicy>> =
        keys.zip(policies.iter().copied()).collect();
    let mut said: BTreeSet<(&PolicyKey, &Field, &PolicyKey)> = BTreeSet::new();
    let mut faults = Vec::new();
    for plan in survey.devices.values() {
        for conflict in &plan.claims.conflicts {
            let Conflict {
                loser,
                field,
                winner,
                ..
            } = conflict;
            let both = (located.get(loser), located.get(winner));
            if let (Some(loses), Some(wins)) = both
                && said.insert((loser, field, winner))
            {
                faults.push(fault(conflict, loses, wins));
            }
        }
    }
    faults
}

fn fault(
    conflict: &Conflict,
    loses: &Located<TailscaleDevicePolicy>,
    wins: &Located<TailscaleDevicePolicy>,
) -> Fault {
    let Conflict { field, winner, .. } = conflict;
    let (lower, higher) = (loses.priority(), wins.priority());
    let by_fleet = loses.selects() || wins.selects();
    let where_ = if by_fleet {
        "on devices that both select"
    } else {
        "for the same device"
    };
    let decides = if lower < higher {
        format!("it decides by its priority, {higher}")
    } else {
        "the older one decides".to_owned()
    };
    let message = format!(
        "{winner} wishes otherwise {where_}, and {decides}: wish the same in both, or leave {field} out \
         of one"
    );
    let path = FieldPath::parse(&format!("spec.{field}"));
    Fault {
        // A priority says that somebody knows, and of two selectors nobody knows whether they meet.
        severity: if by_fleet || lower < higher {
            Severity::Warning
        } else {
            Severity::Error
        },
        related: vec![Related {
            place: wins.document.place(&path),
            message: format!("the other wish, of {winner}"),
        }],
        ..loses.document.fault(Code::Conflict, &path, message)
    }
}

impl Located<TailscaleDevicePolicy> {
    fn priority(&self) -> i32 {
        self.object.spec.priority.unwrap_or_default()
    }

    fn selects(&self) -> bool {
        self.object.spec.device_selector.is_some()
    }
}
