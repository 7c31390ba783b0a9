//! `deletionPolicy: Clear`: what a policy clears on a device that it releases.
//!
//! | setting             | cleared                                                                        |
//! |---------------------|--------------------------------------------------------------------------------|
//! | `postureAttributes` | the keys that it owns: declared, or declared before and not yet deleted        |
//! | `enabledRoutes`     | the routes that it declares and manages, both under `Exact` and `AtLeast`      |
//! | `exitNode: true`    | the two routes of an exit node                                                 |
//! | all others          | nothing: tags, key expiry, name, IPv4, and authorization stay                  |
//!
//! A setting that any policy of the device still declares stays. Nothing is cleared that the policy did not
//! declare, so a route that a person approved is never withdrawn.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{AttributeKey, NodeId, RouteSet};
use crate::plan::{AllowedRules, Mode, OwnedKeys, PartlyManaged, PolicyKey};

/// The most devices that a policy under `Clear` can manage: its status lists their ids, and the size of a
/// Kubernetes object is limited.
pub const MAX_MANAGED: usize = 10_000;

/// The settings that a policy manages on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagedSettings {
    /// The attribute keys that it owns.
    pub keys: BTreeSet<AttributeKey>,
    /// The routes that it declares, including those of an exit node.
    pub routes: RouteSet,
}

impl ManagedSettings {
    /// Whether there is nothing to clear.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.routes.is_empty()
    }

    /// Whether this contains everything that the other contains.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.keys.is_subset(&self.keys) && other.routes.is_subset(&self.routes)
    }

    /// Adds the other settings.
    pub fn merge(&mut self, other: &Self) {
        self.keys.extend(other.keys.iter().cloned());
        self.routes.extend(&other.routes);
    }
}

/// What a policy clears on a device that it has released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The policy.
    pub policy: PolicyKey,
    /// The settings that it set there.
    pub settings: ManagedSettings,
    /// The rules of the tailnet for it.
    pub allowance: AllowedRules,
    /// Whether clearing needs an approval.
    pub mode: Mode,
}

/// The devices of a policy under `Clear`. Its status records them before the first request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ManagedDevices {
    /// The devices that it manages.
    pub nodes: BTreeSet<NodeId>,
    /// The routes that it declares for them. The attribute keys are in [`crate::plan::PolicyRecord::owned`].
    pub routes: RouteSet,
    /// The devices on which it manages only some of these routes.
    pub partly: PartlyManaged,
    /// The released devices that are not cleared yet, by what must be cleared there: the policy may declare
    /// something else by now.
    pub released: BTreeMap<ManagedSettings, BTreeSet<NodeId>>,
}

impl ManagedDevices {
    /// Whether deleting the policy would clear nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.released.is_empty()
    }

    /// Whether it has room for more devices.
    #[must_use]
    pub fn has_room_for(&self, new: usize) -> bool {
        if self.nodes.len() + self.released_count() + new <= MAX_MANAGED {
            return true;
        }
        // A device can have settings to clear and still be targeted. Counting each once takes longer.
        let released = self.released_devices();
        let only_released = released.iter().filter(|id| !self.nodes.contains(**id));
        self.nodes.len() + only_released.count() + new <= MAX_MANAGED
    }

    /// The number of recorded ids of released devices.
    #[must_use]
    pub fn released_count(&self) -> usize {
        self.released.values().map(BTreeSet::len).sum()
    }

    /// Whether this records everything that `needed` records.
    #[must_use]
    pub fn cover(&self, needed: &Self) -> bool {
        // Without devices, the routes are those of none, and no status stores them.
        (needed.nodes.is_empty() || needed.routes.is_subset(&self.routes))
            && needed.nodes.is_subset(&self.nodes)
            && self.cover_routes(needed)
            && needed.released.iter().all(|(settings, nodes)| {
                let same = self.released.get(settings);
                // The same group first: to look for thousands of devices in each group would take long.
                same.is_some_and(|same| nodes.is_subset(same))
                    || nodes.iter().all(|id| self.due(id).covers(settings))
            })
    }

    /// Releases devices, with the keys that the policy owns on each of them.
    pub fn release(&mut self, nodes: BTreeSet<NodeId>, owned: &OwnedKeys) {
        for id in nodes {
            let settings = ManagedSettings {
                keys: owned.known_at(&id).cloned().unwrap_or_default(),
                routes: self.release_routes(&id),
            };
            self.add_due(&id, settings);
        }
    }

    /// Settings that must be cleared on a device, which the policy may still target.
    pub(in crate::plan) fn add_due(&mut self, id: &NodeId, settings: ManagedSettings) {
        if !settings.is_empty() {
            let nodes = self.released.entry(settings).or_default();
            nodes.insert(id.clone());
        }
    }

    /// The released devices that are not cleared yet.
    #[must_use]
    pub fn released_devices(&self) -> BTreeSet<&NodeId> {
        self.released.values().flatten().collect()
    }

    /// What must be cleared on a device.
    #[must_use]
    pub fn due(&self, id: &NodeId) -> ManagedSettings {
        let mut due = ManagedSettings::default();
        let groups = self.released.iter().filter(|(_, nodes)| nodes.contains(id));
        groups.for_each(|(settings, _)| due.merge(settings));
        due
    }

    /// Records that some of the settings to clear on a device are gone.
    pub fn forget(&mut self, id: &NodeId, gone: &ManagedSettings) {
        let mut rest = self.due(id);
        rest.keys.retain(|key| !gone.keys.contains(key));
        rest.routes.retain(|route| !gone.routes.contains(route));
        // From all groups, as the rest is a group of its own.
        self.cleared(id);
        if !rest.is_empty() {
            self.released.entry(rest).or_default().insert(id.clone());
        }
    }

    /// Records that a released device is cleared.
    pub fn cleared(&mut self, id: &NodeId) {
        for nodes in self.released.values_mut() {
            nodes.remove(id);
        }
        self.released.retain(|_, nodes| !nodes.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;
    use crate::model::Route;
    use crate::plan::{
        Change, ListChange, Why,
        tests::scenes::{Scene, key, now, scene},
    };

    fn routes() -> impl Strategy<Value = RouteSet> {
        let all = ["10.0.0.0/16", "10.1.0.0/16", "0.0.0.0/0", "::/0"];
        proptest::sample::subsequence(all.to_vec(), 0..=4).prop_map(|routes| {
            let reported = routes.iter().map(|route| Route::reported(route).unwrap());
            reported.collect()
        })
    }

    fn released() -> impl Strategy<Value = Released> {
        let keys = collection::btree_set((0..3_usize).prop_map(key), 0..3);
        (keys, routes()).prop_map(|(keys, routes)| Released {
            policy: PolicyKey::new("network", "released"),
            settings: ManagedSettings { keys, routes },
            allowance: AllowedRules::default(),
            mode: Mode::Enforce,
        })
    }

    fn releasing() -> impl Strategy<Value = Scene> {
        (scene(), released()).prop_map(|(scene, released)| Scene {
            released: vec![released],
            ..scene
        })
    }

    /// The settings that any policy that can own fields desires.
    fn desired(scene: &Scene) -> ManagedSettings {
        let mut desired = ManagedSettings::default();
        for (policy, _) in scene.ranked() {
            let named = policy.desired.attributes.iter().flatten();
            let named = named.filter(|(_, attribute)| !attribute.has_expired(now()));
            desired.keys.extend(named.map(|(key, _)| key.clone()));
            desired.routes.extend(policy.named_routes());
        }
        desired
    }

    fn without_clearing(scene: &Scene) -> Scene {
        Scene {
            released: Vec::new(),
            ..scene.clone()
        }
    }

    proptest! {
        #![proptest_config(crate::plan::tests::cases::cases(1024))]

        #[test]
        fn released_settings_are_cleared_unless_a_policy_declares_them(mut scene in releasing()) {
            let due = scene.released[0].settings.clone();
            let desired = desired(&scene);
            scene.run();
            let after = scene.device.enabled_routes.clone().unwrap();
            let decides_exit = scene.ranked().iter().any(|(p, _)| p.desired.exit_node.is_some());
            for route in due.routes.intersection(&after) {
                let stays = if route.is_exit_node() {
                    decides_exit
                } else {
                    desired.routes.contains(route)
                };
                prop_assert!(stays, "{route} is still there");
            }
            for gone in &due.keys {
                let there = scene.attributes.contains_key(gone);
                prop_assert!(!there || desired.keys.contains(gone), "{gone} is still there");
            }
        }

        #[test]
        fn other_settings_are_not_changed(scene in releasing()) {
            let due = scene.released[0].settings.clone();
            let desired = desired(&scene);
            let (mut cleared, mut kept) = (scene.clone(), without_clearing(&scene));
            cleared.run();
            kept.run();
            // Authorizing a device waits for the clearing. Everything else is as without it.
            for (attribute, value) in &kept.attributes {
                let due = due.keys.contains(attribute) && !desired.keys.contains(attribute);
                prop_assert_eq!(cleared.attributes.get(attribute), (!due).then_some(value));
            }
            let exit_is_due = due.routes.iter().any(Route::is_exit_node);
            let decides_exit = scene.ranked().iter().any(|(p, _)| p.desired.exit_node.is_some());
            for route in kept.device.enabled_routes.iter().flatten() {
                let due = if route.is_exit_node() {
                    exit_is_due && !decides_exit
                } else {
                    due.routes.contains(route) && !desired.routes.contains(route)
                };
                let there = cleared.device.enabled_routes.as_ref().unwrap().contains(route);
                prop_assert_eq!(there, !due, "{}", route);
            }
            let rest = |scene: &Scene| {
                let device = &scene.device;
                (
                    device.tags.clone(),
                    device.key_expiry_disabled,
                    device.name.clone(),
                    device.ipv4,
                )
            };
            prop_assert_eq!(rest(&cleared), rest(&kept));
        }

        #[test]
        fn cleared_settings_are_reported_as_released(scene in releasing()) {
            let alone = Scene { policies: Vec::new(), ..scene };
            for difference in &alone.plan().differences {
                prop_assert_eq!(difference.why, Why::Released);
                prop_assert_eq!(&difference.owner.name, "released");
                prop_assert!(difference.hold.is_none());
                let known = match &difference.change {
                    Change::Attribute { after, .. } => after.is_none(),
                    Change::List(ListChange::EnabledRoutes { .. }) => true,
                    Change::List(ListChange::ExitNode { after, .. }) => after.is_empty(),
                    _ => false,
                };
                prop_assert!(known, "{:?}", difference.change);
            }
        }
    }
}
