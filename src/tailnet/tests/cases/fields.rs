//! A field that is removed from a spec: its value stays and is reported, or is cleared.

use std::time::Duration;

use super::{
    World,
    builders::{SOON, hostname, key, policy_key, tag, with_tag},
    clears::{fleet, servers, settled, single},
    model::node_id,
};
use crate::{
    model::{ChangeLimit, NodeId, PolicyField, Route, RouteSet, Setting, SettingValue},
    plan::{Deletion, DesiredSettings, ListOwnership, Mode, Ownership, Policy, Suspender},
    tailnet::{Input, PolicyReport},
};

const DECLARED: &str = "10.0.0.0/16";
const ALWAYS: &str = "10.1.0.0/16";

/// The fields that the world's policies declare, and `Clear` clears.
const CLEARED: [PolicyField; 3] = [
    PolicyField::EnabledRoutes,
    PolicyField::ExitNode,
    PolicyField::PostureAttributes,
];

fn run(world: &mut World) {
    world.run_for(Duration::from_mins(5));
    world.assert_converged();
}

fn without(policy: Policy, fields: &[PolicyField]) -> Policy {
    let mut desired = policy.desired;
    for field in fields {
        match field {
            PolicyField::EnabledRoutes => desired.enabled_routes = None,
            PolicyField::ExitNode => desired.exit_node = None,
            PolicyField::PostureAttributes => desired.attributes = None,
            PolicyField::Tags => desired.tags = None,
            PolicyField::KeyExpiry => desired.settings.unset(Setting::KeyExpiry),
            _ => unreachable!("no policy here declares {field}"),
        }
    }
    Policy { desired, ..policy }
}

fn retaining(policy: Policy) -> Policy {
    Policy {
        deletion: Deletion::Retain,
        ..policy
    }
}

fn routes_of(world: &World, id: &NodeId) -> RouteSet {
    world.model.devices[id].enabled_routes.clone().unwrap()
}

fn has_route(world: &World, id: &NodeId, route: &str) -> bool {
    routes_of(world, id).contains(&Route::reported(route).unwrap())
}

fn is_exit_node(world: &World, id: &NodeId) -> bool {
    routes_of(world, id).iter().any(Route::is_exit_node)
}

fn has_key(world: &World, id: &NodeId) -> bool {
    world.model.attributes[id].contains_key(&key("a"))
}

fn report(world: &World) -> &PolicyReport {
    &world.last_reports[&policy_key(0)]
}

/// The released fields that the last report says stay.
fn stays(world: &World) -> Vec<PolicyField> {
    let released = report(world).record.fields.released.iter();
    released.flat_map(|it| it.fields.iter().copied()).collect()
}

/// An edit, by a running process or while none runs.
fn edit(world: &mut World, down: bool, policies: impl IntoIterator<Item = Policy>) {
    edit_held(world, down, policies);
    world.assert_converged();
}

/// An edit that does not converge, as something is held.
fn edit_held(world: &mut World, down: bool, policies: impl IntoIterator<Item = Policy>) {
    if down {
        world.life += 1;
    }
    for policy in policies {
        world.apply(policy);
    }
    if down {
        world.kill();
    }
    world.run_for(Duration::from_mins(5));
}

fn each(test: impl Fn(bool)) {
    for down in [false, true] {
        test(down);
    }
}

#[test]
fn under_retain_a_removed_field_stays_and_is_reported() {
    each(|down| {
        let mut world = settled(2, retaining(fleet()));
        let all = [CLEARED.as_slice(), &[PolicyField::KeyExpiry]].concat();
        edit(&mut world, down, [without(retaining(fleet()), &all)]);
        for id in [node_id(0), node_id(1)] {
            assert!(has_route(&world, &id, DECLARED) && is_exit_node(&world, &id));
            assert!(has_key(&world, &id));
        }
        assert!(world.writes().is_empty(), "{:?}", world.writes());
        let released = report(&world).record.fields.released.clone().unwrap();
        assert_eq!(released.fields, all.iter().copied().collect());
        assert_eq!((released.generation, released.devices), (2, 2));
        assert!(world.owned(&policy_key(0)).is_empty());

        // It is reported until the next edit, and once.
        world.kill();
        run(&mut world);
        assert_eq!(stays(&world).len(), 4);
        edit(
            &mut world,
            down,
            [Policy {
                priority: 1,
                ..without(retaining(fleet()), &all)
            }],
        );
        assert!(stays(&world).is_empty());
        assert!(world.writes().is_empty());
    });
}

#[test]
fn under_clear_a_removed_field_is_cleared_on_the_devices() {
    for field in CLEARED {
        each(|down| {
            let mut world = settled(2, fleet());
            edit(&mut world, down, [without(fleet(), &[field])]);
            for id in [node_id(0), node_id(1)] {
                let is = |of: PolicyField| field == of;
                assert_eq!(
                    has_route(&world, &id, DECLARED),
                    !is(PolicyField::EnabledRoutes)
                );
                assert_eq!(is_exit_node(&world, &id), !is(PolicyField::ExitNode));
                assert_eq!(has_key(&world, &id), !is(PolicyField::PostureAttributes));
                assert!(has_route(&world, &id, ALWAYS));
                assert!(world.model.attributes[&id].contains_key(&key("b")));
            }
            assert!(stays(&world).is_empty() && report(&world).clearing.is_none());
            let record = &world.policies[&policy_key(0)].record;
            assert!(record.managed.released.is_empty(), "{record:?}");
            assert_eq!(record.managed.nodes.len(), 2);
            // Nothing is cleared twice: somebody sets it again.
            for id in [node_id(0), node_id(1)] {
                let device = world.model.devices.get_mut(&id).unwrap();
                device.enabled_routes = Some([DECLARED.parse().unwrap()].into());
            }
            edit(&mut world, down, [without(fleet(), &CLEARED)]);
            let human = [PolicyField::EnabledRoutes].contains(&field);
            assert_eq!(has_route(&world, &node_id(0), DECLARED), human);
        });
    }
}

#[test]
fn under_clear_a_setting_that_is_never_cleared_stays_and_is_reported() {
    each(|down| {
        let mut world = settled(1, single(0, 0));
        let removed = [PolicyField::KeyExpiry, PolicyField::EnabledRoutes];
        edit(&mut world, down, [without(single(0, 0), &removed)]);
        assert!(world.model.devices[&node_id(0)].key_expiry_disabled);
        assert!(!has_route(&world, &node_id(0), DECLARED));
        assert_eq!(stays(&world), [PolicyField::KeyExpiry]);
    });
}

#[test]
fn a_route_that_another_policy_declares_or_that_a_person_approved_stays() {
    each(|down| {
        let mut world = servers(1);
        // A person approved the route before the policy could.
        let device = world.model.devices.get_mut(&node_id(0)).unwrap();
        device.enabled_routes = Some([DECLARED.parse().unwrap()].into());
        world.apply(Policy {
            mode: Mode::Approve,
            ..fleet()
        });
        world.start();
        world.run_for(SOON);
        edit(&mut world, down, [without(fleet(), &CLEARED)]);
        assert!(has_route(&world, &node_id(0), DECLARED));

        let mut world = settled(1, fleet());
        let mut other = retaining(fleet());
        other.key = policy_key(1);
        edit(
            &mut world,
            down,
            [other.clone(), without(fleet(), &CLEARED)],
        );
        assert!(has_route(&world, &node_id(0), DECLARED) && has_key(&world, &node_id(0)));
        assert!(is_exit_node(&world, &node_id(0)) && world.writes().is_empty());
        // The values are the other policy's now.
        world.delete(&other.key);
        run(&mut world);
        assert!(has_route(&world, &node_id(0), DECLARED) && has_key(&world, &node_id(0)));
    });
}

#[test]
fn a_field_that_comes_back_before_it_is_cleared_is_managed_as_before() {
    each(|down| {
        let mut world = settled(2, fleet());
        world.limit(ChangeLimit::Devices(1));
        edit_held(&mut world, down, [without(fleet(), &CLEARED)]);
        assert!(world.writes().is_empty(), "the limit holds the clearing");
        assert!(report(&world).held.is_some());
        edit(&mut world, down, [fleet()]);
        assert!(world.writes().is_empty());
        world.limit(ChangeLimit::NONE);
        run(&mut world);
        assert!(world.writes().is_empty(), "{:?}", world.writes());
        let id = node_id(0);
        assert!(has_route(&world, &id, DECLARED) && has_key(&world, &id));
        let record = &world.policies[&policy_key(0)].record.managed;
        assert!(record.released.is_empty() && !record.is_partly_managed(&id));
        edit(&mut world, down, [without(fleet(), &CLEARED)]);
        assert!(!has_route(&world, &id, DECLARED) && !has_key(&world, &id));
    });
}

#[test]
fn two_edits_at_once_release_what_both_removed() {
    each(|down| {
        let (first, second) = (CLEARED[0], CLEARED[2]);
        let edits = [
            without(fleet(), &[first]),
            without(fleet(), &[first, second]),
        ];
        let mut world = settled(1, fleet());
        edit(&mut world, down, edits.clone());
        assert!(!has_route(&world, &node_id(0), DECLARED) && !has_key(&world, &node_id(0)));
        assert!(is_exit_node(&world, &node_id(0)));

        let mut world = settled(1, retaining(fleet()));
        edit(&mut world, down, edits.map(retaining));
        assert_eq!(stays(&world), [first, second]);
        assert!(world.writes().is_empty());
    });
}

#[test]
fn a_device_that_leaves_in_the_same_edit_loses_all_settings() {
    each(|down| {
        let mut world = settled(2, fleet());
        let device = world.model.devices.get_mut(&node_id(1)).unwrap();
        device.tags.insert(tag("tag:b"));
        world.run_for(SOON);
        let mut narrowed = without(fleet(), &[PolicyField::EnabledRoutes]);
        narrowed.desired.tags = None;
        narrowed.target = with_tag("tag:b");
        world.clear_seen();
        // Without tags in the spec, the policy does not remove the new one.
        let mut kept = fleet();
        kept.desired.tags = None;
        edit(&mut world, false, [kept]);
        world
            .model
            .devices
            .get_mut(&node_id(1))
            .unwrap()
            .tags
            .insert(tag("tag:b"));
        run(&mut world);
        edit(&mut world, down, [narrowed]);
        assert!(!has_route(&world, &node_id(0), DECLARED) && !is_exit_node(&world, &node_id(0)));
        assert!(!has_key(&world, &node_id(0)));
        assert!(!has_route(&world, &node_id(1), DECLARED) && is_exit_node(&world, &node_id(1)));
        assert!(has_key(&world, &node_id(1)));
    });
}

#[test]
fn a_policy_that_sends_nothing_releases_once_it_sends() {
    each(|down| {
        for mode in [Mode::Suspended(Suspender::Policy), Mode::Observe] {
            // Without an edit of another field beside it, only the record says that it managed the routes.
            let routes = [PolicyField::EnabledRoutes];
            let mut world = settled(1, fleet());
            let removed = Policy {
                mode,
                ..without(fleet(), &routes)
            };
            edit(&mut world, down, [removed]);
            assert!(has_route(&world, &node_id(0), DECLARED), "{mode:?}");
            edit(&mut world, down, [without(fleet(), &routes)]);
            assert!(!has_route(&world, &node_id(0), DECLARED), "{mode:?}");

            let mut world = settled(1, fleet());
            let removed = Policy {
                mode,
                ..without(fleet(), &CLEARED)
            };
            edit(&mut world, down, [removed]);
            assert!(
                world.writes().is_empty() && has_key(&world, &node_id(0)),
                "{mode:?}"
            );
            edit(&mut world, down, [without(fleet(), &CLEARED)]);
            assert!(!has_route(&world, &node_id(0), DECLARED), "{mode:?}");
            assert!(!has_key(&world, &node_id(0)) && !is_exit_node(&world, &node_id(0)));
        }
    });
}

#[test]
fn a_policy_that_never_sent_anything_releases_nothing() {
    for mode in [
        Mode::Observe,
        Mode::Approve,
        Mode::Suspended(Suspender::Policy),
    ] {
        for deletion in [Deletion::Clear, Deletion::Retain] {
            let policy = |policy: Policy| Policy {
                mode,
                deletion,
                ..policy
            };
            let mut world = settled(1, retaining(fleet()));
            world.delete(&policy_key(0));
            run(&mut world);
            world.apply(policy(fleet()));
            run(&mut world);
            let enforced = Policy {
                mode: Mode::Enforce,
                ..policy(without(fleet(), &CLEARED))
            };
            edit(&mut world, false, [enforced]);
            assert!(world.writes().is_empty(), "{mode:?}");
            assert!(stays(&world).is_empty(), "{mode:?} {deletion:?}");
        }
    }
}

/// One request sets the value for both.
#[test]
fn a_suspended_policy_does_not_manage_what_another_one_sets() {
    let mut world = servers(1);
    // Nobody approves its routes.
    for mode in [Mode::Approve, Mode::Suspended(Suspender::Policy)] {
        world.apply(Policy { mode, ..fleet() });
        if mode == Mode::Approve {
            world.start();
        }
        world.run_for(SOON);
    }
    world.apply(Policy {
        key: policy_key(1),
        ..fleet()
    });
    run(&mut world);
    assert!(has_route(&world, &node_id(0), DECLARED));
    let record = &report(&world).record;
    assert!(record.fields.fields.is_empty(), "{:?}", record.fields);
    assert!(record.managed.managed_routes(&node_id(0)).is_empty());
}

#[test]
fn clearing_a_field_waits_for_an_approval() {
    let approving = |policy: Policy| Policy {
        mode: Mode::Approve,
        ..policy
    };
    let mut world = settled(1, fleet());
    edit_held(&mut world, false, [approving(without(fleet(), &CLEARED))]);
    assert!(world.writes().is_empty());
    let hash = report(&world).held.as_ref().unwrap().hash.clone();
    world.approve(&policy_key(0), &format!("plan:{hash}"));
    run(&mut world);
    assert!(!has_route(&world, &node_id(0), DECLARED) && !has_key(&world, &node_id(0)));
}

#[test]
fn a_new_leader_clears_what_the_one_before_it_could_not() {
    let mut world = settled(1, fleet());
    world.faults.lost = 1.0;
    world.apply(without(fleet(), &CLEARED));
    world.run_for(SOON);
    world.step(Input::Term(None));
    world.faults.lost = 0.0;
    world.term = world.term.next();
    world.start_term();
    run(&mut world);
    assert!(!has_route(&world, &node_id(0), DECLARED) && !has_key(&world, &node_id(0)));
}

#[test]
fn a_released_field_is_not_cleared_on_a_device_whose_owner_is_in_doubt() {
    let mut world = settled(1, single(0, 0));
    let device = world.model.devices.get_mut(&node_id(0)).unwrap();
    device.hostname = "other".to_owned();
    world.apply(Policy {
        target: hostname("host-1"),
        ..without(single(0, 0), &CLEARED)
    });
    run(&mut world);
    // A name that no device has releases nothing, neither the device nor a field of it.
    assert!(world.writes().is_empty(), "{:?}", world.writes());
    world.apply(Policy {
        target: hostname("other"),
        ..without(single(0, 0), &CLEARED)
    });
    run(&mut world);
    assert!(!has_route(&world, &node_id(0), DECLARED) && !has_key(&world, &node_id(0)));
}

#[test]
fn an_idle_policy_writes_no_status_for_its_fields() {
    let policy = Policy {
        ownership: Ownership {
            enabled_routes: ListOwnership::Exact,
            ..Ownership::default()
        },
        desired: DesiredSettings {
            settings: [SettingValue::KeyExpiryDisabled(true)].into(),
            ..DesiredSettings::default()
        },
        ..retaining(fleet())
    };
    let mut world = settled(3, policy);
    world.run_for(Duration::from_mins(30));
    assert!(world.seen.reports.is_empty(), "{:?}", world.seen.reports);
}
