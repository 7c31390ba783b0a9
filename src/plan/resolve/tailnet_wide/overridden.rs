//! Unique settings that a policy of another device takes.

use super::UniqueSetting;
use crate::{
    model::{NodeId, Setting},
    plan::{Conflict, ConflictKind, Field, FieldOwners, PlanContext, Policy, PolicyRecord},
};

impl FieldOwners {
    /// Drops the unique settings that a policy of another device, which ranks before, declares too.
    pub(in crate::plan) fn drop_overridden_by_other_devices(
        &mut self,
        node: &NodeId,
        unique: &UniqueSetting,
        policies: &[(&Policy, &PolicyRecord)],
        context: &PlanContext<'_>,
    ) {
        let (index, claimed) = (context.index, &context.tailnet_wide.unique);
        // The setting goes: it cannot be sent, and the conflict reports it instead of a difference.
        let mut lost = Vec::new();
        if let Some(ipv4) = &unique.ipv4
            && let Some((winner, other)) = claimed.before_for_ipv4(node, ipv4, index)
            && let Some(claim) = self.settings.remove(&Setting::Ipv4)
        {
            lost.push((Setting::Ipv4, claim, winner, other));
        }
        if let Some(name) = &unique.name
            && let Some((winner, other)) = claimed.before_for_name(node, name, index)
            && let Some(claim) = self.settings.remove(&Setting::Name)
        {
            lost.push((Setting::Name, claim, winner, other));
        }
        for (setting, claim, winner, other) in lost {
            let declared = claim.desired.to_string();
            let conflicts = claim.owners.into_iter().map(|overridden| {
                let policies = policies.iter().map(|(policy, _)| *policy);
                let of = policies.filter(|policy| policy.key == overridden);
                let reported = context.discloses(other, of);
                Conflict {
                    field: Field::Setting(setting),
                    declared: declared.clone(),
                    owner: winner.clone(),
                    // An author who may read one policy of a namespace may read the others too.
                    is_named: reported || winner.namespace == overridden.namespace,
                    kind: ConflictKind::Device(context.disclosed_name(reported, other)),
                    overridden,
                }
            });
            self.conflicts.extend(conflicts);
        }
    }
}
