//! What policies clear on a device that they have released.

use super::{FieldOwner, FieldOwners};
use crate::{
    model::{ListSetting, RouteSet},
    plan::{ApprovalStates, Released},
};

impl FieldOwners {
    /// Clears the released settings that no policy of the device declares. Call it after all policies are
    /// resolved.
    pub(super) fn clear(&mut self, released: &Released, approvals: &ApprovalStates<'_>) {
        let Released {
            policy,
            settings,
            mode,
            ..
        } = released;
        if approvals.limits(policy) {
            self.limited.insert(policy.clone());
        }
        self.modes.entry(policy.clone()).or_insert(*mode);
        if !settings.is_empty() {
            self.releasing.insert(policy.clone());
        }
        let cleared: Vec<_> = settings
            .keys
            .difference(&self.desired)
            // The server has deleted the attribute at its expiry. A value that is there now is someone else's.
            .filter(|key| !self.is_expired_for(key, policy))
            .cloned()
            .collect();
        for key in cleared {
            let owners = self.released_keys.entry(key).or_default();
            owners.push(policy.clone());
        }
        let exit = ListSetting::ExitNode.among(&settings.routes);
        let subnets = ListSetting::EnabledRoutes.among(&settings.routes);
        // The rules may have changed since the policy enabled a route.
        let scope = self.permissions.scope(policy);
        let subnets = subnets.into_iter().filter(|it| scope.covers(it)).collect();
        self.enabled_routes.withdraw(policy, &subnets);
        if exit.is_empty() {
            return;
        }
        match &mut self.exit_node {
            Some(claim) if self.clears_exit_node => claim.owners.push(policy.clone()),
            // A policy of the device declares it.
            Some(_) => {}
            None => {
                self.clears_exit_node = true;
                self.exit_node = Some(FieldOwner {
                    desired: RouteSet::new(),
                    owners: vec![policy.clone()],
                });
            }
        }
    }
}
