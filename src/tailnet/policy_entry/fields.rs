//! The fields that a policy manages, and those that it releases because its spec no longer declares them: see
//! docs/decisions/0031.

use std::sync::Arc;

use super::PolicyEntry;
use crate::{
    model::{NodeId, PolicyField, Route, RouteSet},
    plan::{Binding, Edit, Field, Mode},
};

impl PolicyEntry {
    /// The declared fields that the policy starts to manage, because it acts on them.
    pub fn new_fields(&self, acts_on: impl Fn(&Field) -> bool) -> Vec<PolicyField> {
        let policy = self.policy.as_deref().ok().filter(|_| !self.is_invalid());
        // An observing policy owns no field, so nothing else would say that it does not act.
        let policy = policy.filter(|it| matches!(it.mode, Mode::Enforce | Mode::Approve));
        let new = policy
            .into_iter()
            .flat_map(|policy| policy.unmanaged_fields(self.needed_record()))
            .filter(|(_, field)| acts_on(field));
        new.map(|(field, _)| field).collect()
    }

    /// Records fields that it starts to manage.
    pub fn manage_fields(&mut self, new: &[PolicyField]) {
        self.records.needed_mut().fields.fields.extend(new);
    }

    /// The devices on which it may start to manage something.
    pub fn partly_managed(&self) -> Vec<NodeId> {
        let policy = self.policy.as_deref().ok();
        if policy.is_some_and(|policy| {
            let mut unmanaged = policy.unmanaged_fields(self.needed_record());
            unmanaged.next().is_some()
        }) {
            return self.nodes().cloned().collect();
        }
        let partly = self.needed_record().managed.partly.iter();
        partly.map(|(id, _)| id.clone()).collect()
    }

    /// Starts to manage the routes of a device that it `sends`, under `Clear`. Returns whether any is new.
    pub fn manage_routes(&mut self, id: &NodeId, sends: impl Fn(&Route) -> bool) -> bool {
        let managed = &self.needed_record().managed;
        if !managed.is_partly_managed(id) {
            return false;
        }
        let routes: RouteSet = managed
            .routes
            .iter()
            .filter(|route| sends(route))
            .copied()
            .collect();
        let is_new = !routes.is_subset(managed.managed_routes(id));
        if is_new {
            self.managed_devices().manage_routes(id, &routes);
        }
        is_new
    }

    /// Releases the fields that the spec no longer declares, on the devices that it targets as of the last
    /// reconcile. Returns whether that must be reported.
    pub fn release_fields_of_targets(&mut self) -> bool {
        let binding = self.targets.bind(None);
        let has_changed = self.release_fields(binding.as_ref());
        self.targets.bind(binding);
        has_changed
    }

    /// Releases the fields that the spec no longer declares. Returns whether that must be reported.
    pub fn release_fields(&mut self, binding: Option<&Binding>) -> bool {
        let (Ok(policy), Some(binding)) = (&self.policy, binding) else {
            return false;
        };
        // While an edited selector is evaluated, the policy in force is still the one before.
        if self.is_invalid() || policy.is_invalid() || self.is_deleting() {
            return false;
        }
        let edit = Edit {
            generation: self.generation,
            devices: binding.nodes().count(),
            is_certain: binding.is_certain(),
            is_reported: self.records.have_reported_fields(),
        };
        let owned = Arc::clone(&self.records.needed().owned);
        let has_changed = self.records.needed_mut().release_fields(policy, edit);
        if !Arc::ptr_eq(&owned, &self.records.needed().owned) {
            self.keys.forget_unsent();
        }
        has_changed
    }
}
