//! What policies take from a device that they have released.

use super::{FieldOwner, FieldOwners};
use crate::{
    model::RouteSet,
    plan::{ApprovalStates, Released},
};

impl FieldOwners {
    /// What no policy of the device wishes is taken away. Comes after all wishes.
    pub(super) fn clear(&mut self, released: &Released, permits: &ApprovalStates<'_>) {
        let Released {
            policy,
            settings,
            mode,
            ..
        } = released;
        if permits.limits(policy) {
            self.limited.insert(policy.clone());
        }
        self.modes.entry(policy.clone()).or_insert(*mode);
        if !settings.is_empty() {
            self.releasing.insert(policy.clone());
        }
        let nobody_desires = settings.keys.difference(&self.desired);
        let cleared: Vec<_> = nobody_desires
            .filter(|key| !self.is_expired_for(key, policy))
            .cloned()
            .collect();
        for key in cleared {
            let owners = self.released_keys.entry(key).or_default();
            owners.push(policy.clone());
        }
        let (exit, subnets): (RouteSet, RouteSet) = settings
            .routes
            .iter()
            .partition(|route| route.is_exit_node());
        let scope = self.permissions.scope(policy);
        let subnets = subnets.into_iter().filter(|it| scope.covers(it)).collect();
        self.enabled_routes.withdraw(policy, &subnets);
        if exit.is_empty() {
            return;
        }
        match &mut self.exit_node {
            Some(claim) if self.clears_exit_node => claim.owners.push(policy.clone()),
            Some(_) => {}
            None => {
                self.clears_exit_node = true;
                self.exit_node = Some(FieldOwner {
                    desired: false,
                    owners: vec![policy.clone()],
                });
            }
        }
    }
}
