//! `deletionPolicy: Clear`: what a policy takes from a device that it lets go.
//!
//! | setting             | taken away                                                            |
//! |---------------------|-----------------------------------------------------------------------|
//! | `postureAttributes` | the keys that it owns: named, or named before and not yet deleted     |
//! | `enabledRoutes`     | the routes that it names and manages, under `Exact` as under `AtLeast` |
//! | `exitNode: true`    | the two routes of an exit node                                        |
//! | all others          | nothing: tags, key expiry, name, IPv4 and authorization stay          |
//!
//! Whatever any policy of the device still wishes stays. Nothing is taken away that the policy did not
//! name, so that a route approved by a person, or by an older edit of the policy, is never withdrawn.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AllowedRules, Deletion, Mode, OwnedKeys, PartlyManaged, Policy, PolicyKey, PolicyRecord,
};
use crate::model::{AttributeKey, NodeId, Route, RouteSet};

/// The most devices that a policy under `Clear` can hold: their ids stand in its status, and a
/// Kubernetes object has no room for more.
pub const MAX_MANAGED: usize = 10_000;

/// What a policy has put on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagedSettings {
    /// The attribute keys that it owns.
    pub keys: BTreeSet<AttributeKey>,
    /// The routes that it names, those of an exit node among them.
    pub routes: RouteSet,
}

impl ManagedSettings {
    /// Whether there is nothing to take away.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.routes.is_empty()
    }

    /// Whether all that another one has is part of this.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.keys.is_subset(&self.keys) && other.routes.is_subset(&self.routes)
    }

    /// Takes in what another one has.
    pub fn merge(&mut self, other: &Self) {
        self.keys.extend(other.keys.iter().cloned());
        self.routes.extend(&other.routes);
    }
}

/// What a policy that has let a device go takes from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The policy.
    pub policy: PolicyKey,
    /// What it put there.
    pub settings: ManagedSettings,
    /// What the tailnet allows it.
    pub allowance: AllowedRules,
    /// Whether that waits for an approval.
    pub mode: Mode,
}

/// The devices of a policy under `Clear`; kept in its status before the first call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManagedDevices {
    /// The devices that it holds.
    pub nodes: BTreeSet<NodeId>,
    /// The routes that it names on them. The attribute keys are [`PolicyRecord::owned`].
    pub routes: RouteSet,
    /// The devices on which it manages only some of them.
    pub partly: PartlyManaged,
    /// The devices that it has let go and that are not cleared yet, by what is to be taken from them:
    /// what the policy names by now may be something else.
    pub released: BTreeMap<ManagedSettings, BTreeSet<NodeId>>,
}

impl ManagedDevices {
    /// Whether nothing would have to be cleared if the policy were deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.released.is_empty()
    }

    /// How many ids they have.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nodes.len() + self.released_count()
    }

    /// How many of them are of devices that are let go.
    #[must_use]
    pub fn released_count(&self) -> usize {
        self.released.values().map(BTreeSet::len).sum()
    }

    /// Whether what `needed` says is kept here too.
    #[must_use]
    pub fn cover(&self, needed: &Self) -> bool {
        let kept = |(settings, nodes): (&ManagedSettings, &BTreeSet<NodeId>)| {
            let same = self.released.get(settings);
            let more = |id: &NodeId| self.due(id).covers(settings);
            same.is_some_and(|same| nodes.is_subset(same)) || nodes.iter().all(more)
        };
        needed.routes.is_subset(&self.routes)
            && needed.nodes.is_subset(&self.nodes)
            && self.cover_routes(needed)
            && needed.released.iter().all(kept)
    }

    /// Lets devices go, with the keys that the policy owns on each of them.
    pub fn released_on(&mut self, split: BTreeSet<NodeId>, owned: &OwnedKeys) {
        for id in split {
            let settings = ManagedSettings {
                keys: owned.known_at(&id).cloned().unwrap_or_default(),
                routes: self.release_routes(&id),
            };
            if !settings.is_empty() {
                self.released.entry(settings).or_default().insert(id);
            }
        }
    }

    /// The devices that are let go.
    #[must_use]
    pub fn release(&self) -> BTreeSet<&NodeId> {
        self.released.values().flatten().collect()
    }

    /// What is to be taken from a device.
    #[must_use]
    pub fn due(&self, id: &NodeId) -> ManagedSettings {
        let mut due = ManagedSettings::default();
        let groups = self.released.iter().filter(|(_, nodes)| nodes.contains(id));
        groups.for_each(|(settings, _)| due.merge(settings));
        due
    }

    /// A part of what is to be taken from a device is gone.
    pub fn forget(&mut self, id: &NodeId, gone: &ManagedSettings) {
        let mut rest = self.due(id);
        rest.keys.retain(|key| !gone.keys.contains(key));
        rest.routes.retain(|route| !gone.routes.contains(route));
        self.cleared(id);
        if !rest.is_empty() {
            self.released.entry(rest).or_default().insert(id.clone());
        }
    }

    /// A device that was let go is cleared.
    pub fn cleared(&mut self, id: &NodeId) {
        for nodes in self.released.values_mut() {
            nodes.remove(id);
        }
        self.released.retain(|_, nodes| !nodes.is_empty());
    }
}

impl Policy {
    /// Whether what it releases is cleared now, or as soon as somebody approves. While it is
    /// suspended, or only observes, nothing is sent for it.
    #[must_use]
    pub fn clears(&self) -> bool {
        self.deletion == Deletion::Clear && matches!(self.mode, Mode::Enforce | Mode::Approve)
    }

    /// The routes that it would withdraw.
    #[must_use]
    pub fn named_routes(&self) -> RouteSet {
        let mut routes = self.desired.enabled_routes.clone().unwrap_or_default();
        if self.desired.exit_node == Some(true) {
            routes.extend(Route::exit_node());
        }
        routes
    }

    /// Whether it puts anything on a device that would have to be cleared.
    #[must_use]
    pub fn has_managed_settings(&self, record: &PolicyRecord) -> bool {
        let mut named = self.desired.attributes.iter().flat_map(BTreeMap::keys);
        named.next().is_some() || !record.owned.is_empty() || !self.named_routes().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;
    use crate::plan::{
        Change, Why,
        scenes::{Scene, key, now, scene},
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
            policy: PolicyKey {
                namespace: "network".to_owned(),
                name: "let-go".to_owned(),
            },
            settings: ManagedSettings { keys, routes },
            allowance: AllowedRules::default(),
            mode: Mode::Enforce,
        })
    }

    fn deleting() -> impl Strategy<Value = Scene> {
        (scene(), released()).prop_map(|(scene, released)| Scene {
            released: vec![released],
            ..scene
        })
    }

    /// What any policy that decides something wishes for.
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
        #![proptest_config(crate::plan::cases::cases(1024))]

        #[test]
        fn all_that_was_put_there_goes_unless_somebody_wishes_it(mut scene in deleting()) {
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
        fn nothing_else_is_touched(scene in deleting()) {
            let due = scene.released[0].settings.clone();
            let desired = desired(&scene);
            let (mut cleared, mut kept) = (scene.clone(), without_clearing(&scene));
            cleared.run();
            kept.run();
            // A device that is let in waits for the clearing; all else is as without it.
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
        fn what_is_cleared_is_said_to_be_let_go(scene in deleting()) {
            let alone = Scene { policies: Vec::new(), ..scene };
            for difference in &alone.plan().differences {
                prop_assert_eq!(difference.why, Why::Released);
                prop_assert_eq!(&difference.owner.name, "let-go");
                prop_assert!(difference.hold.is_none());
                let known = matches!(
                    difference.change,
                    Change::Attribute { after: None, .. }
                        | Change::EnabledRoutes { .. }
                        | Change::ExitNode { after: false, .. }
                );
                prop_assert!(known, "{:?}", difference.change);
            }
        }
    }
}
