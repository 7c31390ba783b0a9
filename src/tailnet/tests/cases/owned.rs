//! A key is deleted only on devices where the record of a policy says that the policy managed it, and there
//! it is deleted.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{
    World,
    builders::{attributes, fleet, hostname, key, policy, policy_key, servers, tag, with_tag},
    model::{device, node_id},
};
use crate::{
    convert::fixtures::{self, guardrails},
    model::{ChangeLimit, NodeId, ReportedAttribute},
    plan::{Deletion, Guardrails, Mode, Policy, Selector, Suspender, Target},
    tailnet::Input,
};

pub const MONTH: &str = "2026-01-01T00:00:00Z";

/// Runs each case with a record that lists devices and with one that has a digest.
fn both(test: impl Fn(World)) {
    for digests in [false, true] {
        let mut world = servers(3);
        for device in world.model.devices.values_mut() {
            device.created = Some(MONTH.parse().unwrap());
        }
        if digests {
            world.record_digests();
        }
        test(world);
    }
}

pub fn human(world: &mut World, number: usize, name: &str) {
    let value = ReportedAttribute {
        value: "human".into(),
        expiry: None,
    };
    let attributes = world.model.attributes.get_mut(&node_id(number)).unwrap();
    attributes.insert(key(name), value);
}

/// The devices with an attribute.
fn having(world: &World, name: &str) -> Vec<NodeId> {
    let all = world.model.attributes.iter();
    let having = all.filter(|(_, values)| values.contains_key(&key(name)));
    having.map(|(id, _)| id.clone()).collect()
}

fn run(world: &mut World) {
    world.run_for(Duration::from_mins(5));
}

/// An edit while no process runs.
fn apply_while_down(world: &mut World, policies: Vec<Policy>) {
    world.life += 1;
    for policy in policies {
        world.apply(policy);
    }
    world.kill();
    run(world);
}

fn edit(world: &mut World, down: bool, policy: Policy) {
    if down {
        apply_while_down(world, vec![policy]);
    } else {
        world.apply(policy);
        run(world);
    }
}

#[test]
fn a_policy_that_sends_nothing_owns_nothing() {
    let modes = [
        Mode::Observe,
        Mode::Approve,
        Mode::Suspended(Suspender::Policy),
        Mode::Suspended(Suspender::Tailnet),
    ];
    for mode in modes {
        both(|mut world| {
            for number in 0..3 {
                human(&mut world, number, "y");
            }
            let named = attributes(&[("y", "gold")]);
            world.apply(Policy {
                mode,
                ..fleet(named)
            });
            world.start();
            run(&mut world);
            assert!(world.owned(&policy_key(0)).is_empty(), "{mode:?}");
            world.apply(fleet(attributes(&[])));
            run(&mut world);
            assert_eq!(having(&world, "y").len(), 3, "{mode:?}");
            world.assert_converged();
        });
    }
}

#[test]
fn keys_that_the_limit_holds_are_not_owned() {
    both(|mut world| {
        world.limit(ChangeLimit::Devices(2));
        for number in 0..3 {
            human(&mut world, number, "y");
        }
        world.apply(fleet(attributes(&[("y", "gold")])));
        world.start();
        run(&mut world);
        assert!(world.writes().is_empty());
        assert!(world.owned(&policy_key(0)).is_empty());
        world.apply(fleet(attributes(&[])));
        run(&mut world);
        world.limit(ChangeLimit::NONE);
        run(&mut world);
        assert_eq!(having(&world, "y").len(), 3);
    });
}

#[test]
fn an_edit_of_the_selector_that_drops_a_key_deletes_it_only_where_it_was_managed() {
    for down in [false, true] {
        both(|mut world| {
            for number in 3..5 {
                let mut device = device(number);
                device.tags = [tag("tag:t")].into();
                device.created = Some(MONTH.parse().unwrap());
                world.model.add(device);
                human(&mut world, number, "y");
            }
            let both = world.model.devices.get_mut(&node_id(0)).unwrap();
            both.tags.insert(tag("tag:t"));
            world.apply(fleet(attributes(&[("x", "gold"), ("y", "gold")])));
            world.start();
            run(&mut world);
            let after = Policy {
                target: with_tag("tag:t"),
                ..fleet(attributes(&[("x", "gold")]))
            };
            edit(&mut world, down, after);
            // Released: 1 and 2. Managed before and now: 0. Never managed: 3 and 4.
            let left = [1, 2, 3, 4].map(node_id);
            assert_eq!(having(&world, "y"), left, "down: {down}");
            assert_eq!(having(&world, "x").len(), 5);
            world.assert_converged();
            // Released devices are not recorded.
            edit(&mut world, down, fleet(attributes(&[("x", "gold")])));
            assert_eq!(having(&world, "y"), left, "down: {down}");
        });
    }
}

#[test]
fn a_key_is_deleted_where_it_was_managed_though_device_becomes_selector_or_the_reverse() {
    let one = || Policy {
        target: hostname("host-1"),
        ..fleet(attributes(&[("y", "gold")]))
    };
    for down in [false, true] {
        both(|mut world| {
            human(&mut world, 0, "y");
            world.apply(one());
            world.start();
            run(&mut world);
            edit(&mut world, down, fleet(attributes(&[])));
            assert_eq!(having(&world, "y"), [node_id(0)]);
            world.assert_converged();
        });
        both(|mut world| {
            world.apply(fleet(attributes(&[("y", "gold")])));
            world.start();
            run(&mut world);
            let after = Policy {
                desired: attributes(&[]),
                ..one()
            };
            edit(&mut world, down, after);
            assert_eq!(having(&world, "y"), [node_id(0), node_id(2)]);
            world.assert_converged();
        });
    }
}

fn protecting(tags: &[&str]) -> Guardrails {
    let protected: Vec<_> = tags.iter().map(|tag| json!({"tags": [tag]})).collect();
    guardrails(&json!({"protectedDevices": protected, "allowedPolicies": [{}]}))
}

#[test]
fn a_device_that_cannot_be_cleared_keeps_a_key_owned_on_itself_alone() {
    both(|mut world| {
        world.apply(fleet(attributes(&[("y", "gold")])));
        world.start();
        run(&mut world);
        let protected = world.model.devices.get_mut(&node_id(2)).unwrap();
        protected.tags.insert(tag("tag:p"));
        world.settings.guardrails = protecting(&["tag:p"]);
        world.step(Input::Settings(world.settings.clone()));
        run(&mut world);
        world.apply(fleet(attributes(&[])));
        run(&mut world);
        assert_eq!(having(&world, "y"), [node_id(2)]);
        let mut joins = device(7);
        joins.tags = [tag("tag:s")].into();
        world.model.add(joins);
        human(&mut world, 7, "y");
        run(&mut world);
        world.kill();
        run(&mut world);
        assert_eq!(having(&world, "y"), [node_id(2), node_id(7)]);
        // No longer protected: there the key is still owned by the policy.
        world.settings.guardrails = protecting(&[]);
        world.step(Input::Settings(world.settings.clone()));
        run(&mut world);
        assert_eq!(having(&world, "y"), [node_id(7)]);
        assert!(world.owned(&policy_key(0)).is_empty());
    });
}

#[test]
fn a_device_that_is_protected_is_never_owned() {
    both(|mut world| {
        world.settings.guardrails = protecting(&["tag:s"]);
        for number in 0..3 {
            human(&mut world, number, "y");
        }
        world.apply(fleet(attributes(&[("y", "gold")])));
        world.start();
        run(&mut world);
        assert!(world.owned(&policy_key(0)).is_empty());
        world.apply(fleet(attributes(&[])));
        run(&mut world);
        world.settings.guardrails = protecting(&[]);
        world.step(Input::Settings(world.settings.clone()));
        run(&mut world);
        assert_eq!(having(&world, "y").len(), 3);
    });
}

#[test]
fn a_device_that_joins_while_nobody_runs_keeps_its_own_value_of_a_key_that_is_dropped() {
    both(|mut world| {
        world.apply(fleet(attributes(&[("x", "gold"), ("y", "gold")])));
        world.start();
        run(&mut world);
        world.life += 1;
        let mut joins = device(7);
        joins.tags = [tag("tag:s")].into();
        joins.created = Some(world.wall());
        world.model.add(joins);
        human(&mut world, 7, "y");
        apply_while_down(&mut world, vec![fleet(attributes(&[("x", "gold")]))]);
        assert_eq!(having(&world, "y"), [node_id(7)]);
        assert_eq!(having(&world, "x").len(), 4);
        world.assert_converged();
    });
}

#[test]
fn a_device_that_did_not_match_before_keeps_its_own_value_too() {
    both(|mut world| {
        let mut other = device(7);
        other.created = Some(MONTH.parse().unwrap());
        world.model.add(other);
        human(&mut world, 7, "y");
        world.apply(fleet(attributes(&[("y", "gold")])));
        world.start();
        run(&mut world);
        world.life += 1;
        let given = world.model.devices.get_mut(&node_id(7)).unwrap();
        given.tags = [tag("tag:s")].into();
        apply_while_down(&mut world, vec![fleet(attributes(&[]))]);
        assert_eq!(having(&world, "y"), [node_id(7)]);
    });
}

#[test]
fn a_released_device_is_forgotten_even_if_it_comes_back() {
    both(|mut world| {
        world.apply(fleet(attributes(&[("y", "gold")])));
        world.start();
        run(&mut world);
        let leaves = world.model.devices.get_mut(&node_id(1)).unwrap();
        leaves.tags = [tag("tag:other")].into();
        run(&mut world);
        let back = world.model.devices.get_mut(&node_id(1)).unwrap();
        back.tags = [tag("tag:s")].into();
        apply_while_down(&mut world, vec![fleet(attributes(&[]))]);
        assert_eq!(having(&world, "y"), [node_id(1)]);
    });
}

#[test]
fn one_list_that_lacks_a_device_releases_nothing() {
    for down in [false, true] {
        both(|mut world| {
            world.apply(fleet(attributes(&[("x", "gold"), ("y", "gold")])));
            world.start();
            run(&mut world);
            world.model.broken = Some(node_id(1));
            edit(&mut world, down, fleet(attributes(&[("x", "gold")])));
            assert_eq!(having(&world, "y"), [node_id(1)]);
            world.model.left_out = Some(node_id(1));
            if down {
                world.kill();
            } else {
                world.step(Input::Poll);
            }
            world.run_for(Duration::from_secs(1));
            world.model.left_out = None;
            world.model.broken = None;
            world.run_for(Duration::from_mins(30));
            assert_eq!(having(&world, "y"), [], "down: {down}");
        });
    }
}

#[test]
fn a_key_that_is_dropped_and_declared_again_is_owned_as_before() {
    both(|mut world| {
        world.apply(fleet(attributes(&[("y", "gold")])));
        world.start();
        run(&mut world);
        world.model.broken = Some(node_id(1));
        world.apply(fleet(attributes(&[])));
        run(&mut world);
        world.apply(fleet(attributes(&[("y", "gold")])));
        world.model.broken = None;
        run(&mut world);
        assert_eq!(having(&world, "y").len(), 3);
        world.apply(fleet(attributes(&[])));
        run(&mut world);
        assert_eq!(having(&world, "y"), []);
        assert!(world.owned(&policy_key(0)).is_empty());
    });
}

#[test]
fn a_policy_that_is_overridden_owns_nothing_of_the_key() {
    both(|mut world| {
        let first = Policy {
            priority: 1,
            ..Policy {
                key: policy_key(1),
                ..fleet(attributes(&[("y", "gold")]))
            }
        };
        world.apply(first);
        world.apply(fleet(attributes(&[("y", "silver")])));
        world.start();
        run(&mut world);
        assert!(world.owned(&policy_key(0)).is_empty());
        // The policy that set the value goes, and its value stays.
        world.delete(&policy_key(1));
        world.apply(fleet(attributes(&[])));
        run(&mut world);
        assert_eq!(having(&world, "y").len(), 3);
    });
}

#[test]
fn a_key_that_a_policy_was_about_to_set_and_no_longer_declares_is_not_deleted() {
    both(|mut world| {
        world.apply(Policy {
            key: policy_key(1),
            priority: 1,
            ..fleet(attributes(&[("y", "gold")]))
        });
        world.apply(fleet(attributes(&[("y", "silver")])));
        world.start();
        run(&mut world);
        // The first policy goes. Before the second one can set its value, it no longer declares it.
        world.faults.delay = Duration::ZERO;
        world.faults.loses_reports = true;
        world.delete(&policy_key(1));
        world.run_for(Duration::from_millis(1));
        world.apply(fleet(attributes(&[])));
        world.run_for(Duration::from_millis(1));
        world.faults.loses_reports = false;
        run(&mut world);
        assert_eq!(having(&world, "y").len(), 3);
    });
}

#[test]
fn a_value_whose_expiry_has_passed_is_no_longer_owned() {
    both(|mut world| {
        let mut desired = attributes(&[("y", "gold")]);
        let soon = world.wall() + jiff::SignedDuration::from_secs(120);
        for desired in desired.attributes.iter_mut().flatten() {
            desired.1.expiry = Some(soon);
        }
        world.apply(fleet(desired));
        world.start();
        run(&mut world);
        for number in 0..3 {
            human(&mut world, number, "y");
        }
        world.run_for(Duration::from_mins(15));
        world.apply(fleet(attributes(&[])));
        run(&mut world);
        assert_eq!(having(&world, "y").len(), 3);
    });
}

#[test]
fn released_devices_are_cleared_of_what_was_owned_on_each() {
    for down in [false, true] {
        both(|mut world| {
            let cleared = |desired| Policy {
                deletion: Deletion::Clear,
                ..fleet(desired)
            };
            world.apply(cleared(attributes(&[("x", "gold"), ("y", "gold")])));
            world.start();
            run(&mut world);
            // Another policy declares x on one of them and keeps it.
            let after = Policy {
                target: with_tag("tag:t"),
                ..cleared(attributes(&[("x", "gold")]))
            };
            edit(&mut world, down, after);
            assert_eq!(having(&world, "x"), [], "down: {down}");
            assert_eq!(having(&world, "y"), [], "down: {down}");
            world.assert_converged();
        });
    }
}

#[test]
fn a_status_of_an_older_version_counts_on_the_bound_device() {
    let mut world = servers(2);
    world.apply(policy(0, attributes(&[("x", "gold"), ("y", "gold")])));
    world.start();
    run(&mut world);
    let owned = fixtures::keys_without_devices(&node_id(0), &[key("x"), key("y")]);
    let kept = world.policies.get_mut(&policy_key(0)).unwrap();
    kept.record.owned = Arc::new(owned);
    human(&mut world, 1, "y");
    apply_while_down(&mut world, vec![policy(0, attributes(&[("x", "gold")]))]);
    assert_eq!(having(&world, "y"), [node_id(1)]);
}

#[test]
fn records_of_a_large_fleet_are_made_together() {
    let mut world = servers(500);
    world.apply(fleet(attributes(&[("y", "gold")])));
    world.start();
    run(&mut world);
    world.assert_converged();
    let reports = world.seen.reports.len();
    assert!(reports < 30, "{reports} reports for 500 devices");
    assert_eq!(having(&world, "y").len(), 500);
    let record = &world.last_reports[&policy_key(0)].owned;
    assert_eq!(record.numbered[0].1, 500, "{record:?}");
    world.clear_seen();
    world.kill();
    run(&mut world);
    let reported = world.seen.reports.iter();
    let records: Vec<_> = reported.map(|(_, report)| &report.owned).collect();
    assert!(records.iter().all(|it| *it == records[0]), "{records:#?}");
    apply_while_down(&mut world, vec![fleet(attributes(&[]))]);
    assert_eq!(having(&world, "y"), []);
}

/// The device is due to be cleared, and the policy only observes.
#[test]
fn a_device_that_a_standby_has_bound_again_keeps_its_keys_owned() {
    both(|mut world| {
        let managing = |selected, mode| Policy {
            mode,
            deletion: Deletion::Clear,
            target: Target::Selector(Selector {
                tags: [tag(selected)].into(),
                ..Selector::default()
            }),
            ..fleet(attributes(&[("y", "gold")]))
        };
        world.apply(managing("tag:s", Mode::Enforce));
        world.start();
        run(&mut world);
        world.apply(managing("tag:u", Mode::Observe));
        run(&mut world);
        assert!(world.owned(&policy_key(0)).is_empty());
        world.end_term();
        let back = world.model.devices.get_mut(&node_id(1)).unwrap();
        back.tags = [tag("tag:u")].into();
        run(&mut world);
        world.start_term();
        run(&mut world);
        let owned = world.owned(&policy_key(0));
        assert_eq!(owned.nodes().collect::<Vec<_>>(), [&node_id(1)]);
    });
}
