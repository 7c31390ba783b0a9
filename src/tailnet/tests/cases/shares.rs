//! The limit of changed devices when several namespaces share it.

use std::time::Duration;

use serde_json::json;

use super::{
    World,
    builders::{SOON, blank, hostname, servers, tag, tags},
    limits::{approve_on_tailnet, changed},
    tenants::rules,
};
use crate::{
    model::ChangeLimit,
    plan::{Policy, PolicyKey, Selector, Target},
};

const HOUR: Duration = Duration::from_hours(1);

fn key(namespace: &str, number: usize) -> PolicyKey {
    PolicyKey::new(namespace, format!("policy-{number}"))
}

/// A policy of a namespace that changes one device.
fn one(namespace: &str, number: usize) -> Policy {
    Policy {
        target: hostname(&format!("host-{number}")),
        desired: tags(&["tag:s", "tag:a"]),
        ..blank(key(namespace, number))
    }
}

/// A policy of a namespace that targets all servers and changes none: they are as it declares.
fn idle(namespace: &str) -> Policy {
    Policy {
        target: Target::Selector(Selector {
            tags: [tag("tag:s")].into(),
            ..Selector::default()
        }),
        ..blank(key(namespace, 999))
    }
}

fn tailnet(devices: usize, limit: ChangeLimit) -> World {
    let mut world = servers(devices);
    world.settings.limit = limit;
    world.start();
    world.run_until(SOON);
    world
}

#[test]
fn a_namespace_leaves_a_quarter_of_the_limit_to_others() {
    for limit in [ChangeLimit::Devices(8), ChangeLimit::Percent(20)] {
        let mut world = tailnet(40, limit);
        world.apply(idle("victim"));
        for number in 0..12 {
            world.apply(one("busy", number));
        }
        world.run_for(SOON);
        assert_eq!(changed(&world).len(), 6, "{limit}");
        assert_eq!(world.tailnet_report.limited_total, 6, "{limit}");
        world.apply(one("victim", 20));
        world.apply(one("victim", 21));
        world.apply(one("victim", 22));
        world.run_for(SOON);
        assert_eq!(changed(&world).len(), 8, "{limit}");
        world.run_for(HOUR * 3);
        assert_eq!(changed(&world).len(), 15, "{limit}");
    }
}

#[test]
fn a_namespace_that_is_alone_uses_the_whole_limit_whatever_is_denied_to_others() {
    let mut world = tailnet(40, ChangeLimit::Devices(8));
    world.guard(&rules(&json!([])));
    let refused = Policy {
        target: hostname("host-20"),
        ..blank(key("elsewhere", 0))
    };
    world.apply(refused);
    for number in 0..12 {
        world.apply(one("network", number));
    }
    world.run_for(SOON);
    assert_eq!(changed(&world).len(), 8);
}

#[test]
fn the_used_share_of_a_namespace_counts_after_a_restart() {
    for pause in [300, 900, 2_000, 40_000] {
        let mut world = tailnet(40, ChangeLimit::Devices(8));
        world.apply(idle("victim"));
        for number in 0..12 {
            world.apply(one("busy", number));
        }
        for _ in 0..3 {
            world.run_for(Duration::from_millis(pause));
            world.kill();
        }
        world.run_for(Duration::from_mins(2));
        let busy = changed(&world).len();
        assert!((1..=6).contains(&busy), "{busy} after kills each {pause}");
        world.apply(one("victim", 20));
        world.apply(one("victim", 21));
        world.run_for(SOON);
        assert_eq!(changed(&world).len(), busy + 2, "after kills each {pause}");
    }
}

#[test]
fn an_approved_plan_may_exceed_the_share_as_it_may_the_limit() {
    let mut world = tailnet(40, ChangeLimit::Devices(8));
    world.apply(idle("victim"));
    for number in 0..7 {
        world.apply(one("busy", number));
    }
    world.run_for(SOON);
    let plan = world.held(&key("busy", 6));
    assert_eq!((plan.limit, plan.share), (Some(8), Some(6)));
    approve_on_tailnet(&mut world, &format!("plan:{}", plan.hash));
    world.run_for(SOON);
    assert_eq!(changed(&world).len(), 7);
    world.assert_converged();
}

#[test]
fn a_correction_of_a_device_that_counts_already_is_free_beyond_the_share_too() {
    let mut world = tailnet(40, ChangeLimit::Devices(8));
    world.apply(idle("victim"));
    for number in 0..6 {
        world.apply(one("busy", number));
    }
    world.run_for(SOON);
    world.clear_seen();
    let drifts = world.model.devices.values_mut().next().unwrap();
    drifts.tags = [tag("tag:s")].into();
    world.run_for(Duration::from_mins(2));
    assert_eq!(changed(&world).len(), 1);
    world.assert_converged();
}
