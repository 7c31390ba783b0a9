//! Guardrails that are edited while the engine runs, and namespaces whose labels change. `checks.rs` checks
//! each request against them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{World, chaos, seeds};
use crate::{
    convert::fixtures::guardrails,
    model::{Route, RouteSet, TagSet},
    plan::{Deletion, DesiredSettings, Hold, Labels, Mode, Suspender},
    tailnet::{Input, Notification, State},
};

const SEEDS: u64 = 200;

impl World {
    pub fn guard(&mut self, spec: &Value) {
        self.settings.guardrails = guardrails(spec);
        self.step(Input::Settings(self.settings.clone()));
    }

    fn label(&mut self, team: Option<&str>) {
        let labels: Labels = team
            .map(|team| ("team".to_owned(), team.to_owned()))
            .into_iter()
            .collect();
        self.namespaces.insert("network".to_owned(), labels.clone());
        self.step(Input::Namespace("network".to_owned(), Some(labels)));
    }

    fn change_the_guards(&mut self) {
        let all = [
            json!({}),
            json!({"allowedPolicies": [{}]}),
            json!({"allowedPolicies": [{}], "suspend": true}),
            json!({"allowedPolicies": [{}], "protectedDevices": [{"tags": ["tag:a"]}]}),
            json!({"allowedPolicies": [{"namespaces": {"matchLabels": {"team": "network"}}}]}),
            json!({"allowedPolicies": [{"tags": ["tag:a", "tag:b"], "routes": ["10.0.0.0/16"]}]}),
            json!({"allowedPolicies": [
                {"tags": ["tag:a", "tag:b"], "routes": ["10.0.0.0/9"]},
                {"tags": ["tag:*"], "devices": [{"tags": ["tag:c"]}]},
            ]}),
            json!({"allowedPolicies": [
                {"fields": ["tags", "enabledRoutes", "exitNode", "postureAttributes"]},
                {"devices": [{"tags": ["tag:b"]}]},
            ], "protectedDevices": [{"trustClaims": true, "hostnames": ["host-1"]}]}),
        ];
        match self.rng.u8(..4) {
            0 => self.label(Some("network")),
            1 => self.label(None),
            _ => {
                let spec = &all[self.rng.usize(..all.len())];
                self.guard(spec);
            }
        }
    }
}

fn run_history(seed: u64) -> u64 {
    let mut world = World::new(seed);
    world.populate();
    world.label(Some("network"));
    world.guard(&json!({"allowedPolicies": [{}]}));
    world.start();
    for _ in 0..world.rng.usize(5..60) {
        let pause = Duration::from_millis(world.rng.u64(..30_000));
        world.run_for(pause);
        if world.rng.u8(..3) == 0 {
            world.change_the_guards();
        } else {
            world.disturb();
        }
    }
    world.calm_down();
    world.run_for(Duration::from_hours(3));
    world.assert_converged();
    world.clear_seen();
    world.run_for(Duration::from_hours(1));
    assert!(world.seen.reports.is_empty(), "{:#?}", world.seen.reports);
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    world.steps
}

#[test]
fn no_request_exceeds_the_guardrails_and_every_allowed_change_is_made() {
    seeds::each(SEEDS, run_history);
}

/// A world with one policy that gives a device a tag.
fn tagging() -> World {
    let mut world = World::new(7);
    world.populate();
    world.label(Some("network"));
    let mut policy = chaos::blank(chaos::policy_key(0));
    policy.target = chaos::hostname("host-0");
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
    let state = &world.last_reports[&chaos::policy_key(0)].state;
    assert!(matches!(state, State::NotAllowed(_)), "{state:?}");
    let refused = |(_, it): &&(_, Notification)| matches!(it, Notification::Refused(_));
    assert_eq!(world.seen.notifications.iter().filter(refused).count(), 1);
    for device in world.model.devices.values_mut() {
        device.tags = TagSet::new();
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
    let report = &world.last_reports[&chaos::policy_key(0)];
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
    let mut policy = chaos::blank(chaos::policy_key(0));
    policy.target = chaos::hostname("host-0");
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
    world.delete(&chaos::policy_key(0));
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
    let State::Bound(report) = &world.last_reports[&chaos::policy_key(0)].state else {
        panic!("{:#?}", world.last_reports);
    };
    let holds: Vec<_> = report.differences.iter().map(|it| &it.hold).collect();
    assert!(matches!(holds[..], [Some(Hold::Protected)]), "{holds:?}");
}
