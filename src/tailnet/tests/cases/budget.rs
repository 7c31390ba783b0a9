//! How much of the request budget one namespace can take from others.
use std::time::Duration;

use super::{
    World,
    builders::{attributes, fleet, policy, servers, tags, world},
    model::node_id,
};
use crate::{
    plan::{DesiredSettings, Guardrails, ListOwnership, Mode, Policy, PolicyKey},
    tailnet::Request,
};

const SECOND: Duration = Duration::from_secs(1);

fn of_hostile(policy: Policy) -> Policy {
    let key = PolicyKey::new("hostile", &*policy.key.name);
    Policy { key, ..policy }
}

fn settled(mut world: World, policies: impl IntoIterator<Item = Policy>) -> World {
    // A budget of five requests a second.
    world.faults.queue = SECOND * 2 / 5;
    world.start();
    for policy in policies {
        world.apply(policy);
    }
    world.run_until(SECOND * 1500);
    world.clear_seen();
    world
}

/// Changes the annotation of a policy ten times a second. Returns the number of lists read meanwhile.
fn lists_while_it_asks(world: &mut World, key: &PolicyKey, seconds: u32) -> usize {
    world.clear_seen();
    for number in 0..10 * seconds {
        world.policies.get_mut(key).unwrap().request = [Some(number.to_string()), None];
        world.show_policy(key);
        world.run_for(SECOND / 10);
    }
    world.count(|request| *request == Request::Devices)
}

#[test]
fn constant_reconcile_requests_cost_few_lists_and_the_last_one_is_completed() {
    let policies = [of_hostile(policy(0, tags(&["tag:a"])))];
    let mut world = settled(world(1), policies);
    let key = world.policies.keys().next().unwrap().clone();
    let lists = lists_while_it_asks(&mut world, &key, 120);
    assert!(lists <= 12, "{lists} lists");
    world.run_for(SECOND * 70);
    let handled = &world.last_reports[&key].record.handled;
    assert_eq!(handled.as_deref(), Some("1199"));
}

/// A device that cannot be read is read ever more rarely, whatever other policies request or edit
/// meanwhile.
#[test]
fn requests_and_edits_of_a_policy_end_no_backoff_of_reads_of_other_devices() {
    // The write carries tags of others, so the device is read before each write.
    let mut sharing = policy(0, tags(&["tag:a"]));
    sharing.ownership.tags = ListOwnership::AtLeast;
    let hostile = |number: u32| {
        let given = ["tag:b", "tag:c"][number as usize % 2];
        of_hostile(policy(1, tags(&[given])))
    };
    let key = hostile(0).key;
    let mut world = settled(world(2), [sharing, hostile(0)]);
    world.model.broken = Some(node_id(0));
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = ["tag:z".parse().unwrap()].into();
    for number in 1..=60 {
        world.policies.get_mut(&key).unwrap().request = [Some(number.to_string()), None];
        world.apply(hostile(number));
        world.run_for(SECOND * 10);
    }
    let lists = world.count(|request| *request == Request::Devices);
    let reads = world.count(|request| *request == Request::Device(node_id(0)));
    assert!(lists >= 20, "{lists} lists");
    // 1 s, 2 s, 4 s ... up to 5 min, within ten minutes.
    assert!((5..=13).contains(&reads), "{reads} reads");
    // An edit of the policy itself may fix the failure, so it ends the backoff.
    world.model.broken = None;
    let mut edited = policy(0, tags(&["tag:a", "tag:d"]));
    edited.ownership.tags = ListOwnership::AtLeast;
    world.apply(edited);
    world.run_for(SECOND * 20);
    world.assert_converged();
}

#[test]
fn a_denied_policy_causes_no_list_by_requesting_a_reconcile() {
    let mut world = world(1);
    world.settings.guardrails = Guardrails::of_namespace("tsdp-system");
    let mut world = settled(world, [of_hostile(policy(0, tags(&["tag:a"])))]);
    let key = world.policies.keys().next().unwrap().clone();
    let lists = lists_while_it_asks(&mut world, &key, 120);
    assert!(lists <= 3, "{lists} lists");
}

/// The time until the drift of the first policy's device is corrected.
fn time_to_correct(world: &mut World, disturb: impl Fn(&mut World)) -> Duration {
    let from = world.clock;
    let is_put_back = |world: &World| {
        let calls = world.writes();
        calls.iter().any(|call| call.nodes().contains(&&node_id(0)))
    };
    while !is_put_back(world) {
        disturb(world);
        world.run_for(SECOND / 10);
        assert!(world.clock < from + SECOND * 1200, "never put back");
    }
    world.clock.checked_sub(from).unwrap()
}

fn lose_tags(world: &mut World) {
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.tags = ["tag:other".parse().unwrap()].into();
}

#[test]
fn drift_is_corrected_in_twice_the_time_at_most_while_another_namespace_edits_all_the_time() {
    let policies = || {
        let hostile = (1..20).map(|number| of_hostile(policy(number, tags(&["tag:h"]))));
        [policy(0, tags(&["tag:a"]))].into_iter().chain(hostile)
    };
    let mut world_in_peace = settled(world(20), policies());
    lose_tags(&mut world_in_peace);
    let in_peace = time_to_correct(&mut world_in_peace, |_| {});

    let mut world = settled(world(20), policies());
    lose_tags(&mut world);
    let disturbed = time_to_correct(&mut world, |world| {
        let keys: Vec<PolicyKey> = world.policies.keys().cloned().collect();
        for key in keys.iter().filter(|key| key.namespace == "hostile") {
            let tag = format!("tag:h{}", world.rng.u32(..100));
            let edited = Policy {
                desired: tags(&[&tag]),
                ..world.policies[key].policy.clone()
            };
            world.apply(edited);
        }
    });
    assert!(world.writes().len() > 20, "{}", world.writes().len());
    assert!(disturbed <= in_peace * 2, "{disturbed:?} {in_peace:?}");
}

#[test]
fn attributes_are_read_as_often_as_before_while_another_namespace_has_a_thousand_devices_read() {
    let observer = || Policy {
        mode: Mode::Observe,
        ..of_hostile(fleet(attributes(&[("seen", "yes")])))
    };
    let lose_attribute = |world: &mut World| {
        let values = world.model.attributes.get_mut(&node_id(0));
        values.unwrap().clear();
    };
    let desired: DesiredSettings = attributes(&[("tier", "gold")]);
    let mut world = servers(1000);
    world.settings.attributes_interval = SECOND * 60;
    let mut world = settled(world, [policy(0, desired), observer()]);
    let stretched = world.tailnet_report.attributes_interval;
    assert!(stretched > SECOND * 600, "{stretched:?}");
    // More often would count as contested, which has a backoff of its own.
    for _ in 0..2 {
        lose_attribute(&mut world);
        let taken = time_to_correct(&mut world, |_| {});
        assert!(taken <= SECOND * 70, "{taken:?}");
        world.run_for(SECOND * 3);
        world.clear_seen();
    }
}
