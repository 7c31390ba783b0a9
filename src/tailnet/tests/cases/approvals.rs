//! Plans that are pending approval: an approval sends exactly the frozen plan, and only once.

use std::{collections::BTreeSet, time::Duration};

use super::{
    World,
    builders::{
        SOON, attributes, fleet, policy, policy_key, servers, tag, tags, with_approval, world,
    },
    fleets::reported,
    model::{device, node_id},
};
use crate::{
    model::Route,
    plan::{Call, DesiredSettings, Hold, ListOwnership, Ownership, PlanHash, Policy, PolicyKey},
    tailnet::{HeldPlan, Notification, State},
};

impl World {
    /// The held plan in the last report of a policy.
    pub fn held(&self, key: &PolicyKey) -> HeldPlan {
        let report = &self.last_reports[key];
        report.held.clone().unwrap_or_else(|| panic!("{report:#?}"))
    }

    pub fn hash(&self, key: &PolicyKey) -> PlanHash {
        self.held(key).hash
    }
}

fn written(world: &World) -> BTreeSet<String> {
    let nodes = world.writes().into_iter().flat_map(Call::nodes);
    nodes.map(ToString::to_string).collect()
}

fn give(world: &mut World, number: usize, new: &str) {
    let device = world.model.devices.get_mut(&node_id(number)).unwrap();
    device.tags.insert(tag(new));
}

/// `count` servers that one policy would give `tag:a` after an approval.
pub fn held_servers(count: usize) -> World {
    let mut world = servers(count);
    world.apply(with_approval(fleet(tags(&["tag:s", "tag:a"]))));
    world.start();
    world.run_until(SOON);
    assert!(world.writes().is_empty());
    world
}

#[test]
fn an_approved_plan_is_sent_and_later_differences_are_held_under_another_hash() {
    let mut world = held_servers(30);
    let key = policy_key(0);
    let plan = world.held(&key);
    assert_eq!((plan.changes, plan.devices), (30, 30));
    assert_eq!(
        (reported(&world).held, reported(&world).out_of_sync),
        (30, 30)
    );
    let named = &reported(&world).differences[0].hold;
    assert_eq!(*named, Some(Hold::Approval(Some(plan.hash.clone()))));

    // A device that joins later, one that someone fixes, and one with another difference now.
    let mut joins = device(40);
    joins.tags = [tag("tag:s")].into();
    world.model.add(joins);
    give(&mut world, 3, "tag:a");
    give(&mut world, 4, "tag:b");
    world.run_for(Duration::from_mins(2));
    let waiting = world.held(&key);
    assert_eq!((&waiting.hash, waiting.devices), (&plan.hash, 30));
    assert_eq!(waiting.open, 28);

    world.approve(&key, &format!("plan:{}", plan.hash));
    world.run_for(SOON);
    let sent = written(&world);
    assert_eq!(sent.len(), 28);
    assert!(!sent.contains("n3CNTRL") && !sent.contains("n4CNTRL") && !sent.contains("n40CNTRL"));
    let next = world.held(&key);
    assert_ne!(next.hash, plan.hash);
    assert_eq!(next.devices, 2);
    let messages = || world.seen.notifications.iter().map(|(_, message)| message);
    let held = messages().filter(|message| matches!(message, Notification::Held(_)));
    let approved = messages().filter(|message| matches!(message, Notification::Approved(_)));
    assert_eq!((held.count(), approved.count()), (2, 1));
    world.assert_converged();
}

#[test]
fn a_used_approval_does_not_work_again() {
    let mut world = held_servers(2);
    let key = policy_key(0);
    let hash = world.hash(&key);
    world.approve(&key, &format!("plan:{hash}"));
    world.run_for(SOON);
    world.assert_converged();
    assert_eq!(reported(&world).in_sync, 2);
    assert!(world.last_reports[&key].approval_errors.is_empty());
    world.clear_seen();

    // The same difference arises again.
    for device in world.model.devices.values_mut() {
        device.tags = [tag("tag:s")].into();
    }
    world.run_for(Duration::from_mins(2));
    assert!(world.writes().is_empty());
    let next = world.hash(&key);
    assert_ne!(next, hash);
    let faults = &world.last_reports[&key].approval_errors;
    let expected =
        format!("plan:{hash} was used before and approves nothing again; plan:{next} is held now");
    assert_eq!(*faults, [expected]);
}

#[test]
fn an_approval_that_matches_nothing_is_reported_and_blocks_nothing() {
    let mut world = held_servers(2);
    let key = policy_key(0);
    let hash = world.hash(&key);
    world.approve(&key, "plan:0000000000000000, plan:oops,yes");
    world.run_for(SOON);
    let faults = world.last_reports[&key].approval_errors.join("\n");
    for part in [
        format!("plan:0000000000000000 matches no held plan; plan:{hash} is held now"),
        "'oops' is not a valid plan hash: write the 16 digits of status.heldPlan.hash".to_owned(),
        "'yes' approves nothing: write plan:HASH or node:ID".to_owned(),
    ] {
        assert!(faults.contains(&part), "{faults}");
    }
    assert!(world.writes().is_empty());
    world.approve(&key, &format!("yes, plan:{hash}"));
    world.run_for(SOON);
    assert_eq!(reported(&world).in_sync, 2);
}

#[test]
fn an_edit_freezes_a_new_plan_and_voids_the_approval_of_the_earlier_one() {
    let mut world = held_servers(2);
    let key = policy_key(0);
    let before = world.hash(&key);
    world.apply(with_approval(fleet(tags(&["tag:s", "tag:a"]))));
    world.run_for(SOON);
    assert_ne!(world.hash(&key), before);
    world.approve(&key, &format!("plan:{before}"));
    world.run_for(SOON);
    assert!(world.writes().is_empty());
}

#[test]
fn a_held_plan_survives_a_restart_and_is_reported_once() {
    let mut world = held_servers(25);
    let key = policy_key(0);
    let before = world.hash(&key);
    world.clear_seen();
    world.kill();
    world.run_for(SOON);
    assert_eq!(world.hash(&key), before);
    assert!(world.seen.notifications.is_empty());
}

/// Kills at any moment: an approved change is made at most once, and the part that was cut off is held
/// again.
#[test]
fn an_approval_is_used_once_through_crashes() {
    let mut cut_off = 0;
    for seed in 0..150 {
        let mut world = held_servers(12);
        world.rng = crate::tailnet::tests::simulation::choices::Choices::of_seed(seed);
        world.new_faults();
        let key = policy_key(0);
        let approved = world.hash(&key);
        world.approve(&key, &format!("plan:{approved}"));
        for _ in 0..world.rng.usize(1..3) {
            let pause = Duration::from_millis(world.rng.u64(..4000));
            world.run_for(pause);
            world.kill();
        }
        world.calm_down();
        world.run_for(Duration::from_mins(10));
        let used = world.policies[&key].record.approvals_used;
        assert_eq!(used, 1, "seed {seed}");
        world.assert_converged();
        cut_off += usize::from((1..12).contains(&reported(&world).in_sync));
        // Someone undoes the change: the same approval does not make it again.
        for device in world.model.devices.values_mut() {
            device.tags = [tag("tag:s")].into();
        }
        world.clear_seen();
        world.run_for(Duration::from_mins(2));
        assert!(world.writes().is_empty(), "seed {seed}");
        assert_ne!(world.hash(&key), approved, "seed {seed}");
        let rest = world.hash(&key);
        world.approve(&key, &format!("plan:{approved},plan:{rest}"));
        world.run_for(Duration::from_mins(5));
        // The plan from before the last drift is approved. The rest may need one more approval.
        if reported(&world).in_sync < 12 {
            let last = world.hash(&key);
            world.approve(&key, &format!("plan:{last}"));
            world.run_for(Duration::from_mins(5));
        }
        assert_eq!(reported(&world).in_sync, 12, "seed {seed}");
        world.assert_converged();
    }
    assert!(
        cut_off > 10,
        "{cut_off} of the seeds cut a plan off in the middle"
    );
}

#[test]
fn a_change_that_an_enforcing_policy_declares_too_needs_no_approval() {
    let mut world = world(1);
    world.apply(with_approval(policy(0, tags(&["tag:a"]))));
    let actions = Policy {
        key: policy_key(1),
        ..policy(0, tags(&["tag:a"]))
    };
    world.apply(actions);
    world.start();
    world.run_until(SOON);
    world.assert_converged();
    assert_eq!(world.writes().len(), 1);
}

#[test]
fn entries_of_enforcing_policies_are_sent_first_and_the_rest_is_pending_approval() {
    let at_least = |policy: Policy| Policy {
        ownership: Ownership {
            enabled_routes: ListOwnership::AtLeast,
            ..Ownership::default()
        },
        ..policy
    };
    let routes = |route: &str| DesiredSettings {
        enabled_routes: Some([route.parse().unwrap()].into()),
        ..DesiredSettings::default()
    };
    let mut world = world(1);
    world.apply(with_approval(at_least(policy(0, routes("10.1.0.0/16")))));
    world.apply(at_least(Policy {
        key: policy_key(1),
        ..policy(0, routes("10.2.0.0/16"))
    }));
    world.start();
    world.run_until(SOON);
    let now = |world: &World| -> Vec<String> {
        let routes: Vec<Route> = world.model.devices[&node_id(0)]
            .enabled_routes
            .iter()
            .flatten()
            .copied()
            .collect();
        routes.iter().map(ToString::to_string).collect()
    };
    assert_eq!(now(&world), ["10.2.0.0/16"]);
    let hash = world.hash(&policy_key(0));
    world.approve(&policy_key(0), &format!("plan:{hash}"));
    world.run_for(SOON);
    assert_eq!(now(&world), ["10.1.0.0/16", "10.2.0.0/16"]);
    world.assert_converged();
}

#[test]
fn attributes_are_owned_before_they_are_set_and_each_deletion_is_approved_too() {
    let mut world = world(1);
    world.apply(with_approval(policy(0, attributes(&[("a", "gold")]))));
    world.start();
    world.run_until(SOON);
    let key = policy_key(0);
    let approve = |world: &mut World| {
        let hash = world.hash(&key);
        world.approve(&key, &format!("plan:{hash}"));
        world.run_for(SOON);
        world.writes().len()
    };
    assert_eq!(approve(&mut world), 1);
    world.apply(with_approval(policy(0, attributes(&[]))));
    world.run_for(SOON);
    assert_eq!(world.writes().len(), 1);
    assert_eq!(approve(&mut world), 2);
    world.assert_converged();
    assert!(world.model.attributes[&node_id(0)].is_empty());
}

#[test]
fn a_policy_for_one_device_reports_how_to_approve_its_held_plan() {
    let mut world = world(1);
    world.apply(with_approval(policy(0, tags(&["tag:a"]))));
    world.start();
    world.run_until(SOON);
    let key = policy_key(0);
    let hash = world.hash(&key);
    let State::Bound(report) = &world.last_reports[&key].state else {
        panic!("{:?}", world.last_reports[&key]);
    };
    assert_eq!(report.differences[0].hold, Some(Hold::Approval(Some(hash))));
}

#[test]
fn ten_thousand_held_devices_cost_nothing_while_pending() {
    let mut world = held_servers(10_000);
    let begin = std::time::Instant::now();
    world.clear_seen();
    world.run_for(Duration::from_mins(10));
    println!("ten polls of 10,000 held devices: {:?}", begin.elapsed());
    assert!(world.seen.reports.is_empty());
    assert!(world.writes().is_empty());
    assert_eq!(reported(&world).differences.len(), 20);
    assert_eq!(world.held(&policy_key(0)).changes, 10_000);
}
