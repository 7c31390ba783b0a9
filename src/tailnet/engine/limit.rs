//! What the change limit allows now, in total and for each namespace.

use std::sync::Arc;

use crate::{
    model::{NodeId, share_of_one_namespace},
    plan::{ApprovedOn, FrozenPlan, LimitedPlan, PolicyKey},
    tailnet::{
        Now, Settings, change_budget::ChangeBudget, devices::Devices, dirty::Dirty, gate::Gate,
        held_plan::HeldPlan, mutants::mutant, observed::Observed, policy_set::PolicySet,
    },
};

/// What the change limit is computed from.
pub(super) struct ChangeLimit<'e> {
    pub settings: &'e Settings,
    pub gate: &'e Gate,
    pub observed: &'e Observed,
    pub policies: &'e PolicySet,
    pub change_budget: &'e ChangeBudget,
}

impl ChangeLimit<'_> {
    /// How many devices the policies of one namespace may change within an hour, if policies of another
    /// namespace exist. Policies that are not allowed do not count.
    pub(super) fn namespace_share(&self) -> Option<usize> {
        let accepted = self
            .policies
            .iter()
            .filter(|(_, held)| held.policy().is_ok());
        let mut namespaces = accepted.map(|(key, _)| &key.namespace);
        // Policies are sorted by namespace.
        let (first, last) = (namespaces.next()?, namespaces.next_back()?);
        // Alone in the tailnet, a namespace may use the whole limit.
        (first != last).then(|| self.most_changes().map(share_of_one_namespace))?
    }

    /// How many devices may be changed within an hour.
    pub(super) fn most_changes(&self) -> Option<usize> {
        self.settings
            .limit
            .devices(self.observed.index().own_count())
    }

    /// Whether the limit needs to know which devices are changed.
    pub(super) fn counts_changes(&self) -> bool {
        self.gate.approved_plan().is_none() && self.most_changes().is_some()
    }

    /// Whether a device may be changed: the change is counted durably, or need not be.
    pub(super) fn may_change(&self, id: &NodeId) -> bool {
        let is_counted = self.change_budget.reservations().is_recorded(id);
        is_counted || !self.counts_changes() || mutant!(NothingIsReserved)
    }

    /// How the limit holds a policy, for people.
    pub(super) fn limited_plan(&self, key: &PolicyKey) -> Option<LimitedPlan> {
        let most = self.most_changes()?;
        let frozen = self.policies.get(key)?.approval().frozen_plan();
        let frozen = frozen.filter(|plan| plan.on == ApprovedOn::Tailnet);
        let is_beyond_share = self.change_budget.is_beyond_share(key);
        let share = self.namespace_share().filter(|_| is_beyond_share);
        Some(LimitedPlan {
            devices: frozen.map_or_else(
                || self.change_budget.wanted_by(key).len(),
                |plan| plan.changes().devices(),
            ),
            limit: share.unwrap_or(most),
            declared: Some(self.settings.limit),
            is_share: share.is_some(),
            hash: frozen.map(|plan| plan.hash.clone()),
        })
    }

    /// A frozen plan as it is reported, with the limit that holds it.
    pub(super) fn held_plan(&self, key: &PolicyKey, plan: &FrozenPlan) -> HeldPlan {
        let limit = self.most_changes();
        let is_beyond_share = self.change_budget.is_beyond_share(key);
        let share = self.namespace_share().filter(|_| is_beyond_share);
        HeldPlan {
            hash: plan.hash.clone(),
            on: plan.on,
            changes: plan.changes().count(),
            devices: plan.changes().devices(),
            open: plan.open().count(),
            limit: limit.filter(|_| plan.on == ApprovedOn::Tailnet),
            share: share.filter(|_| plan.on == ApprovedOn::Tailnet),
            summary: Arc::clone(plan.summary()),
        }
    }
}

/// Devices whose last change is an hour old count again.
pub(super) fn expire_changes(
    change_budget: &mut ChangeBudget,
    devices: &Devices,
    dirty: &mut Dirty,
    now: Now,
) {
    let over = change_budget.expire(now.monotonic);
    let known = over.into_iter().filter(|id| devices.contains(id));
    dirty.plan_all(known);
}
