//! Decides when a policy under `Clear` starts to manage the routes that it declares.

use std::sync::Arc;

use super::Engine;
use crate::{
    model::{NodeId, Route, RouteSet},
    plan::{DevicePlan, Field, PolicyKey},
};

impl Engine {
    /// Policies start to manage the routes that they set on a device, or would set if they differed. Runs
    /// after the change limit has been applied, as a policy does not manage the routes of a held change.
    pub(super) fn manage_routes(&mut self) {
        for id in self.dirty.take_managed_routes() {
            self.manage_routes_of(&id);
        }
    }

    fn manage_routes_of(&mut self, id: &NodeId) {
        let (Some(node), Some(device)) = (self.devices.get(id), self.observed.index().get(id))
        else {
            return;
        };
        if device.enabled_routes.is_none() {
            return;
        }
        for key in &node.policies {
            let Some(entry) = self.policies.get_mut(key) else {
                continue;
            };
            let managed = &entry.needed_record.managed;
            // The limit holds a whole policy, also on devices where nothing differs.
            if self.change_budget.held.contains(key) || !managed.is_partly_managed(id) {
                continue;
            }
            let sends = |route: &&Route| {
                let field = if route.is_exit_node() {
                    Field::ExitNode
                } else {
                    Field::EnabledRoutes
                };
                node.plan.acts_on(key, &field)
            };
            let routes: RouteSet = managed.routes.iter().filter(sends).copied().collect();
            if !routes.is_subset(managed.managed_routes(id)) {
                Arc::make_mut(&mut entry.needed_record.managed).manage_routes(id, &routes);
                self.dirty.report(key);
            }
        }
    }
}

impl DevicePlan {
    /// Whether a policy owns a field of the device and would change it if it differed.
    fn acts_on(&self, policy: &PolicyKey, field: &Field) -> bool {
        let mut differences = self.of(policy).filter(|it| it.change.field() == *field);
        let mut conflicts = self.owners.conflicts.iter();
        if conflicts.any(|conflict| conflict.overridden == *policy && conflict.field == *field) {
            return false;
        }
        match differences.next() {
            Some(difference) => difference.hold.is_none(),
            None => self.owners.acts_on(policy, field),
        }
    }
}
