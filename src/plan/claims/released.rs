//! What policies take from a device that they have released.

use super::{Claim, Claims};
use crate::{
    model::RouteSet,
    plan::{LetGo, Permits},
};

impl Claims {
    /// What no policy of the device wishes is taken away. Comes after all wishes.
    pub(super) fn clear(&mut self, let_go: &LetGo, permits: &Permits<'_>) {
        let LetGo {
            policy,
            belongings,
            mode,
            ..
        } = let_go;
        if permits.limits(policy) {
            self.limited.insert(policy.clone());
        }
        self.modes.entry(policy.clone()).or_insert(*mode);
        if !belongings.is_empty() {
            self.releasing.insert(policy.clone());
        }
        let nobody_desires = belongings.keys.difference(&self.desired);
        let cleared: Vec<_> = nobody_desires
            .filter(|key| !self.is_expired_for(key, policy))
            .cloned()
            .collect();
        for key in cleared {
            let owners = self.clears.entry(key).or_default();
            owners.push(policy.clone());
        }
        let (exit, subnets): (RouteSet, RouteSet) = belongings
            .routes
            .iter()
            .partition(|route| route.is_exit_node());
        let scope = self.reaches.scope(policy);
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
                self.exit_node = Some(Claim {
                    wish: false,
                    owners: vec![policy.clone()],
                });
            }
        }
    }
}
