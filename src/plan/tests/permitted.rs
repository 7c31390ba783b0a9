//! Properties of approvals and of the limit of changed devices, for devices that drift after the approval.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection, prelude::*};

use crate::{
    model::TagSet,
    plan::{
        ApprovalState, ApprovalStates, Changes, DesiredSettings, DevicePlan, DeviceTarget, Hold,
        Identity, Mode, PolicyKey, Target,
        tests::scenes::{Scene, policy, routes, scene},
    },
};

/// The changes that are pending approval, by policy.
fn frozen(scene: &Scene, plan: &DevicePlan) -> BTreeMap<PolicyKey, Changes> {
    let asking = scene.policies.iter().map(|(policy, _)| policy);
    let asking = asking.filter(|policy| policy.mode == Mode::Approve);
    let mut frozen: BTreeMap<_, _> = asking
        .map(|policy| (policy.key.clone(), Changes::default()))
        .collect();
    for difference in &plan.shown {
        if let (Some(Hold::Approval(_)), Some(changes)) =
            (&difference.hold, frozen.get_mut(&difference.owner))
        {
            changes.insert(difference.node.clone(), difference.change.clone());
        }
    }
    frozen
}

fn approved<'a>(scene: &Scene, frozen: &'a BTreeMap<PolicyKey, Changes>) -> ApprovalStates<'a> {
    let permits = frozen.iter().map(|(key, changes)| {
        let permit = ApprovalState {
            approved: changes.of(&scene.device.node_id),
            ..ApprovalState::default()
        };
        (key, permit)
    });
    permits.collect()
}

/// The same device after someone has changed some of its settings.
fn drifted(scene: &Scene, other: &Scene, drifts: [bool; 4]) -> Scene {
    let mut scene = scene.clone();
    let [tags, routes, flags, attributes] = drifts;
    if tags {
        scene.device.tags.clone_from(&other.device.tags);
    }
    if routes {
        let routes = &other.device.enabled_routes;
        scene.device.enabled_routes.clone_from(routes);
    }
    if flags {
        scene.device.authorized = other.device.authorized;
        scene.device.key_expiry_disabled = other.device.key_expiry_disabled;
    }
    if attributes {
        scene.attributes.clone_from(&other.attributes);
    }
    scene
}

/// Several policies that declare routes of one device and nothing else, most of them under `Approve`.
fn routes_of_several_policies() -> impl Strategy<Value = Scene> {
    let policies = collection::vec((policy(), routes()), 2..5);
    (scene(), policies).prop_map(|(scene, mut policies)| {
        for (number, ((policy, _), routes)) in policies.iter_mut().enumerate() {
            policy.key = PolicyKey::new("network", format!("policy-{number}"));
            if policy.mode != Mode::Enforce || number > 1 {
                policy.mode = Mode::Approve;
            }
            policy.target = Target::Device(DeviceTarget {
                identity: Identity::NodeId(scene.device.node_id.clone()),
                tags: TagSet::new(),
                users: Vec::new(),
            });
            policy.desired = DesiredSettings {
                enabled_routes: Some(std::mem::take(routes)),
                ..DesiredSettings::default()
            };
        }
        let policies = policies.into_iter().map(|(policy, _)| policy).collect();
        Scene { policies, ..scene }
    })
}

/// The plan once each policy has an approval of all that it waits for.
fn plan_after_approval(scene: &Scene) -> DevicePlan {
    let frozen = frozen(scene, &scene.plan());
    scene.plan_with(&approved(scene, &frozen))
}

fn is_pending(plan: &DevicePlan) -> bool {
    let mut holds = plan.shown.iter().map(|difference| &difference.hold);
    holds.any(|hold| matches!(hold, Some(Hold::Approval(_))))
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(512))]

    #[test]
    fn only_unaltered_approved_changes_are_sent(
        scene in scene(), other in scene(), drifts in any::<[bool; 4]>(),
    ) {
        let frozen = frozen(&scene, &scene.plan());
        let now = drifted(&scene, &other, drifts);
        let without = now.plan();
        let with = now.plan_with(&approved(&scene, &frozen));
        let node = &scene.device.node_id;
        for (policy, change) in &with.asked {
            let Some(frozen) = frozen.get(policy) else {
                continue;
            };
            let waits = with.shown.iter().any(|difference| {
                difference.owner == *policy
                    && difference.change == *change
                    && matches!(difference.hold, Some(Hold::Approval(_)))
            });
            prop_assert!(!(waits && frozen.contains(node, change)), "{change}");
        }
        // A change that is sent only because of an approval was approved for one of its policies.
        for difference in &with.differences {
            let is_new = difference.hold.is_none() && !without.differences.contains(difference);
            let field = difference.change.field();
            let is_approved = |policy: &PolicyKey| {
                let asked = with.asked.iter().find(|(p, c)| p == policy && c.field() == field);
                asked.is_some_and(|(_, change)| frozen.get(policy).is_some_and(|f| f.contains(node, change)))
            };
            let alike = without.differences.iter().any(|d| d.change == difference.change);
            prop_assert!(!is_new || alike || difference.owners().any(is_approved), "{difference:#?}");
        }
    }

    #[test]
    fn nothing_is_pending_once_all_pending_changes_are_approved(scene in scene()) {
    // Clearing a released device can bring about what another policy declares, so that this policy needs
    // no approval until that changes.
        let scene = Scene { released: Vec::new(), ..scene };
        let plan = plan_after_approval(&scene);
        prop_assert!(!is_pending(&plan), "{plan:#?}");
    }

    /// A policy asks for nothing that the approval of another one brings about as well.
    #[test]
    fn policies_that_share_routes_ask_once(scene in routes_of_several_policies()) {
        let plan = plan_after_approval(&scene);
        prop_assert!(!is_pending(&plan), "{plan:#?}");
    }

    /// Otherwise a held policy would want nothing, no longer be held, want the changes again, and so on.
    #[test]
    fn limit_does_not_change_which_policies_want_changes(
        scene in scene(), held in any::<[bool; 4]>(),
    ) {
        let keys: Vec<_> = scene.policies.iter().map(|(policy, _)| policy.key.clone()).collect();
        let held: BTreeSet<_> = keys.into_iter().zip(held).filter(|(_, held)| *held).map(|(key, _)| key).collect();
        let permits = held.iter().map(|key| (key, ApprovalState { limited: true, ..ApprovalState::default() }));
        let plan = scene.plan_with(&permits.collect());
        let free = scene.plan();
        let suspended: BTreeSet<_> = scene.policies.iter()
            .filter(|(policy, _)| policy.mode != Mode::Enforce)
            .map(|(policy, _)| policy.key.clone())
            .collect();
        prop_assert!(free.desired_by.is_disjoint(&suspended));
        for difference in plan.differences.iter().filter(|difference| difference.hold.is_none()) {
            prop_assert!(!held.contains(&difference.owner), "{difference:#?}");
            prop_assert!(plan.desired_by.contains(&difference.owner), "{difference:#?}");
        }
        let guarded = |plan: &DevicePlan| {
            let all = plan.differences.iter().chain(&plan.shown);
            all.clone().any(|d| matches!(d.hold, Some(Hold::Disruption(_) | Hold::WouldUnselect(_))))
        };
        // Guards depend on what a list becomes, and so on which policies act.
        if !guarded(&plan) && !guarded(&free) {
            prop_assert_eq!(plan.desired_by, free.desired_by);
        }
    }
}
