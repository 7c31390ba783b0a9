//! The routes that a policy under `Clear` manages on each of its devices. They are withdrawn when the policy
//! releases the device.
//!
//! As with attribute keys, a policy that sends nothing manages nothing: while its change is held, a route that it
//! declares may be one that a person approved. A policy usually manages every route that it declares, so only the
//! exceptions are recorded.

use crate::model::{ListSetting, NodeId, Route, RouteSet};
use crate::plan::{ManagedDevices, ManagedSettings};

impl ManagedDevices {
    /// The routes that the policy manages on one of its devices.
    #[must_use]
    pub fn managed_routes(&self, id: &NodeId) -> &RouteSet {
        self.partly.0.get(id).unwrap_or(&self.routes)
    }

    /// Whether the policy declares a route that it does not manage on this device.
    #[must_use]
    pub fn is_partly_managed(&self, id: &NodeId) -> bool {
        self.partly.0.contains_key(id)
    }

    /// Adds devices. At first the policy manages only routes there that it set before and that have not been
    /// cleared yet.
    pub fn hold(&mut self, new: Vec<NodeId>) {
        for id in new {
            // What the policy has set and not cleared yet is its own, and all else may be a person's.
            let before = self.due(&id).routes;
            self.set_managed(&id, &before);
            self.nodes.insert(id);
        }
    }

    /// The policy declares other routes now. Of these it manages those that it managed before, and those that
    /// it released and that have not been cleared yet.
    pub fn name_routes(&mut self, routes: RouteSet) {
        // Called for each device that a selector matches, so an equal declaration must cost nothing.
        if self.routes == routes {
            return;
        }
        let before = std::mem::replace(&mut self.routes, routes);
        for id in self.nodes.clone() {
            let mut managed = self.due(&id).routes;
            managed.extend(self.partly.0.get(&id).unwrap_or(&before));
            self.set_managed(&id, &managed);
        }
    }

    /// The policy no longer declares some lists of routes. On each of its devices, the routes that it manages
    /// there become due.
    pub(in crate::plan) fn release_lists(&mut self, is_declared: impl Fn(ListSetting) -> bool) {
        let declared = |route: &&Route| is_declared(ListSetting::of_route(route));
        let (declared, gone): (RouteSet, RouteSet) = self.routes.iter().partition(declared);
        if gone.is_empty() {
            return;
        }
        for id in self.nodes.clone() {
            let managed = self.managed_routes(&id);
            let settings = ManagedSettings {
                routes: managed.intersection(&gone).copied().collect(),
                ..ManagedSettings::default()
            };
            self.add_due(&id, settings);
        }
        self.name_routes(declared);
    }

    /// From now on the policy also manages these routes on a device.
    pub fn manage_routes(&mut self, id: &NodeId, routes: &RouteSet) {
        let managed = self.managed_routes(id).union(routes).copied().collect();
        self.set_managed(id, &managed);
    }

    /// Removes a device, and returns the routes that the policy manages there.
    pub(in crate::plan) fn release_routes(&mut self, id: &NodeId) -> RouteSet {
        self.nodes.remove(id);
        // No entry means all of them.
        let partly = self.partly.0.remove(id);
        partly.unwrap_or_else(|| self.routes.clone())
    }

    /// Forgets the devices, except released ones that are not cleared yet.
    pub fn forget_devices(&mut self) {
        self.nodes.clear();
        self.routes.clear();
        self.partly.0.clear();
    }

    fn set_managed(&mut self, id: &NodeId, managed: &RouteSet) {
        let managed: RouteSet = managed.intersection(&self.routes).copied().collect();
        // Only exceptions are recorded, so that ten thousand devices fit into a status.
        if managed == self.routes {
            self.partly.0.remove(id);
        } else {
            self.partly.0.insert(id.clone(), managed);
        }
    }

    /// Whether this records for each device at least the routes that are managed by `needed`.
    pub(in crate::plan) fn cover_routes(&self, needed: &Self) -> bool {
        let mut partly = self.partly.iter();
        partly.all(|(id, recorded)| {
            !needed.nodes.contains(id) || needed.managed_routes(id).is_subset(recorded)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::OwnedKeys;

    fn node(number: usize) -> NodeId {
        format!("n{number}CNTRL").parse().unwrap()
    }

    fn routes(texts: &[&str]) -> RouteSet {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn released(mut managed: ManagedDevices, number: usize) -> RouteSet {
        let split = BTreeSet::from([node(number)]);
        managed.release(split, &OwnedKeys::default());
        managed.due(&node(number)).routes
    }

    #[test]
    fn unmanaged_route_is_not_withdrawn() {
        let (a, b) = (
            routes(&["10.0.0.0/16"]),
            routes(&["10.0.0.0/16", "10.1.0.0/16"]),
        );
        let mut managed = ManagedDevices::default();
        managed.name_routes(a.clone());
        managed.hold(vec![node(1), node(2)]);
        managed.manage_routes(&node(1), &a);
        assert_eq!(released(managed.clone(), 1), a);
        assert_eq!(released(managed.clone(), 2), RouteSet::new());

        // An edit adds a route, and its change is held.
        managed.name_routes(b.clone());
        assert_eq!(released(managed.clone(), 1), a);
        managed.manage_routes(&node(1), &b);
        assert_eq!(released(managed.clone(), 1), b);
        // An edit removes the route: the policy itself withdraws it.
        managed.name_routes(a.clone());
        assert_eq!(released(managed.clone(), 1), a);
        assert_eq!(released(managed, 2), RouteSet::new());
    }

    #[test]
    fn device_that_returns_before_it_is_cleared_is_managed_as_before() {
        let all = routes(&["10.0.0.0/16"]);
        let mut managed = ManagedDevices::default();
        managed.name_routes(all.clone());
        managed.hold(vec![node(1)]);
        managed.manage_routes(&node(1), &all);
        managed.release(BTreeSet::from([node(1)]), &OwnedKeys::default());
        managed.hold(vec![node(1)]);
        assert!(!managed.is_partly_managed(&node(1)));
    }

    #[test]
    fn record_covers_only_recorded_routes() {
        let all = routes(&["10.0.0.0/16"]);
        let mut recorded = ManagedDevices::default();
        recorded.name_routes(all.clone());
        recorded.hold(vec![node(1)]);
        let mut needed = recorded.clone();
        assert!(recorded.cover(&needed));
        needed.manage_routes(&node(1), &all);
        assert!(!recorded.cover(&needed) && needed.cover(&recorded));
    }
}
