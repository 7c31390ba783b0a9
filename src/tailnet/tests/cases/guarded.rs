//! What guardrails deny is not sent, and is reported.

use std::time::Duration;

use serde_json::json;

use super::{World, builders};
use crate::{
    model::{Route, RouteSet},
    plan::{Deletion, DesiredSettings, Hold, Mode, Suspender},
    tailnet::State,
};

/// A world with one policy that gives a device a tag.
fn tagging() -> World {
    let mut world = World::new(7);
    world.populate();
    world.label(Some("network"));
    let mut policy = builders::blank(builders::policy_key(0));
    policy.target = builders::hostname("host-0");
    policy.desired.tags = Some(["tag:z".parse().unwrap()].into());
    world
        .guard(&json!({"allowedPolicies": [{"namespaces": {"matchLabels": {"team": "network"}}}]}));
    world.apply(policy);
    world
}

#[test]
fn a_namespace_that_loses_its_label_is_denied_from_then_on() {
    let mut world = tagging();
    world.start();
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.writes().len(), 1, "{:#?}", world.writes());
    world.clear_seen();
    world.label(None);
    let state = &world.last_reports[&builders::policy_key(0)].state;
    assert!(matches!(state, State::NotAllowed(_)), "{state:?}");
    for device in world.model.devices.values_mut() {
        device.tags = ["tag:other".parse().unwrap()].into();
    }
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.writes().len(), 0);
    world.label(Some("network"));
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.writes().len(), 1);
}

#[test]
fn while_the_tailnet_is_suspended_nothing_is_sent_and_the_list_is_read() {
    let mut world = tagging();
    world.guard(&json!({"allowedPolicies": [{}], "suspend": true}));
    world.start();
    world.run_for(Duration::from_mins(10));
    assert_eq!(world.writes().len(), 0);
    assert!(world.tailnet_report.suspended);
    let report = &world.last_reports[&builders::policy_key(0)];
    assert_eq!(report.mode, Mode::Suspended(Suspender::Tailnet));
    world.guard(&json!({"allowedPolicies": [{}]}));
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.writes().len(), 1);
    assert!(!world.tailnet_report.suspended);
}

/// A protected device keeps its settings, and the deletion of the policy does not wait.
#[test]
fn nothing_is_cleared_on_a_protected_device_and_the_deletion_ends_at_once() {
    let mut world = World::new(7);
    world.populate();
    let mut policy = builders::blank(builders::policy_key(0));
    policy.target = builders::hostname("host-0");
    policy.deletion = Deletion::Clear;
    let route: Route = "10.99.0.0/16".parse().unwrap();
    policy.desired = DesiredSettings {
        enabled_routes: Some(RouteSet::from([route])),
        ..DesiredSettings::default()
    };
    world.guard(&json!({"allowedPolicies": [{}]}));
    world.apply(policy);
    world.start();
    world.run_for(Duration::from_mins(2));
    world.clear_seen();
    let protected = json!([{"trustClaims": true, "hostnames": ["host-0"]}]);
    world.guard(&json!({"allowedPolicies": [{}], "protectedDevices": protected}));
    world.delete(&builders::policy_key(0));
    world.run_for(Duration::from_mins(2));
    assert_eq!(world.writes().len(), 0);
    let [(_, report)] = world.seen.ends.as_slice() else {
        panic!("{:#?}", world.seen.ends);
    };
    let State::Deleting(Some(abandoned)) = &report.state else {
        panic!("{report:#?}");
    };
    assert!(abandoned.why.contains("protectedDevices"), "{abandoned:?}");
}

#[test]
fn changes_of_a_protected_device_are_held_and_reported() {
    let mut world = tagging();
    let protected = json!([{"trustClaims": true, "hostnames": ["host-0"]}]);
    world.guard(&json!({"allowedPolicies": [{}], "protectedDevices": protected}));
    world.start();
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.writes().len(), 0);
    let State::Bound(report) = &world.last_reports[&builders::policy_key(0)].state else {
        panic!("{:#?}", world.last_reports);
    };
    let holds: Vec<_> = report.differences.iter().map(|it| &it.hold).collect();
    assert!(matches!(holds[..], [Some(Hold::Protected)]), "{holds:?}");
}
