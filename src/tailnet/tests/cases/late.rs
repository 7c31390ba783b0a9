//! A write whose reasons change while it waits for a connection.

use std::time::Duration;

use serde_json::json;

use super::{
    Event, World,
    builders::{SOON, attributes, policy, policy_key, tags, world},
    model::{failure, node_id},
};
use crate::{
    model::{Route, RouteSet, SettingValue, TagSet},
    plan::{Call, DesiredSettings, ListOwnership, Mode, Ownership, Policy, Suspender},
    tailnet::{Input, Request},
};

impl World {
    /// Runs until a write is decided. The write then waits for its connection for half a minute.
    fn decide(&mut self) -> Call {
        self.faults.connect = Duration::from_hours(1);
        for _ in 0..10_000 {
            let departs = |event: &Event| matches!(event, Event::Depart(..));
            let mut waiting = self.events.extract_if(.., |_, (_, event)| departs(event));
            if let Some((_, (_, event))) = waiting.next() {
                drop(waiting);
                let Event::Depart(_, Request::Write(call), _) = &event else {
                    panic!("{event:?}");
                };
                let call = call.clone();
                self.after(Duration::from_secs(30), event);
                self.faults.connect = Duration::ZERO;
                return call;
            }
            drop(waiting);
            self.run_for(Duration::from_millis(10));
        }
        panic!("no write is decided");
    }

    fn sent(&self, call: &Call) -> bool {
        self.writes().contains(&call)
    }
}

/// The change during the wait of a write.
type Change = fn(&mut World);

fn key_expiry() -> DesiredSettings {
    DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(true)].into(),
        ..DesiredSettings::default()
    }
}

fn deciding(desired: DesiredSettings) -> World {
    let mut world = world(1);
    world.apply(policy(0, desired));
    world.start();
    world
}

fn at_least(desired: DesiredSettings) -> Policy {
    Policy {
        ownership: Ownership {
            tags: ListOwnership::AtLeast,
            enabled_routes: ListOwnership::AtLeast,
            ..Ownership::default()
        },
        ..policy(0, desired)
    }
}

#[test]
fn a_change_that_is_no_longer_desired_is_not_sent() {
    let changes: [(&str, Change); 7] = [
        ("edited", |world| world.apply(policy(0, tags(&["tag:b"])))),
        ("suspended", |world| {
            world.apply(Policy {
                mode: Mode::Suspended(Suspender::Policy),
                ..policy(0, key_expiry())
            });
        }),
        ("deleted", |world| world.delete(&policy_key(0))),
        ("without the lead", |world| {
            world.end_term();
        }),
        ("connected anew", |world| {
            // The new connection is not open yet.
            let failure = failure(
                crate::model::Reason::Progressing,
                crate::tailnet::Retry::Later,
            );
            world.step(Input::connection(Err(failure)));
        }),
        (
            "protected by the hostname that a list shows meanwhile",
            |world| {
                let protected = json!({"hostnames": ["guarded"], "trustClaims": true});
                world.guard(&json!({"allowedPolicies": [{}], "protectedDevices": [protected]}));
                let device = world.model.devices.get_mut(&node_id(0)).unwrap();
                device.hostname = "guarded".to_owned();
                world.step(Input::Poll);
            },
        ),
        ("in an outage", |world| {
            world.faults.list_down = true;
            world.step(Input::Poll);
        }),
    ];
    for (what, change) in changes {
        let mut world = deciding(key_expiry());
        let call = world.decide();
        change(&mut world);
        // Long enough for the write to be sent, had its reasons held.
        world.run_for(Duration::from_mins(3));
        assert!(!world.sent(&call), "{what}: {call:?} was sent");
    }
}

#[test]
fn an_edit_reverted_at_once_changes_nothing() {
    let routes = |routes: &[&str]| DesiredSettings {
        enabled_routes: Some(routes.iter().map(|r| r.parse().unwrap()).collect()),
        ..DesiredSettings::default()
    };
    let mut world = deciding(routes(&["10.0.0.0/16"]));
    world.run_until(SOON);
    world.clear_seen();
    world.apply(policy(0, routes(&[])));
    world.decide();
    world.apply(policy(0, routes(&["10.0.0.0/16"])));
    world.run_for(Duration::from_mins(4));
    assert!(world.writes().is_empty(), "{:?}", world.writes());
    world.assert_converged();
}

/// A list that carries unmanaged entries is as old as the read behind it.
#[test]
fn entries_that_a_person_adds_while_a_shared_list_waits_are_kept() {
    let person = "10.9.0.0/16".parse::<Route>().unwrap();
    let desired = [
        tags(&["tag:a"]),
        DesiredSettings {
            enabled_routes: Some(["10.0.0.0/16".parse().unwrap()].into()),
            ..DesiredSettings::default()
        },
    ];
    for desired in desired {
        let mut world = world(1);
        world.apply(at_least(desired));
        world.start();
        let call = world.decide();
        world.run_for(Duration::from_secs(1));
        let device = world.model.devices.get_mut(&node_id(0)).unwrap();
        device.tags.insert("tag:b".parse().unwrap());
        device.enabled_routes = Some([person].into());
        world.run_for(Duration::from_mins(4));
        assert!(!world.sent(&call), "{call:?}");
        world.assert_converged();
        let device = &world.model.devices[&node_id(0)];
        let kept: (&TagSet, &RouteSet) = (&device.tags, device.enabled_routes.as_ref().unwrap());
        assert!(kept.0.contains(&"tag:b".parse().unwrap()), "{kept:?}");
        assert!(kept.1.contains(&person), "{kept:?}");
    }
}

#[test]
fn a_change_that_is_still_desired_is_sent_once_there_is_a_connection() {
    let mut world = deciding(attributes(&[("a", "gold")]));
    let call = world.decide();
    world.run_for(Duration::from_mins(3));
    assert_eq!(world.writes(), [&call]);
    world.assert_converged();
}

/// A small budget: a write is decided only when its turn comes.
#[test]
fn a_write_is_decided_only_when_the_budget_lets_it_through() {
    let mut world = deciding(key_expiry());
    // A name is bound after a second list.
    world.run_for(Duration::from_secs(15));
    world.clear_seen();
    world.faults.queue = Duration::from_mins(1);
    let mut edited = policy(0, key_expiry());
    edited
        .desired
        .settings
        .set(SettingValue::Name("first".parse().unwrap()));
    world.apply(edited.clone());
    world.run_for(Duration::from_secs(1));
    edited
        .desired
        .settings
        .set(SettingValue::Name("second".parse().unwrap()));
    world.apply(edited);
    world.run_for(Duration::from_mins(20));
    world.assert_converged();
    let [Call::Set(_, SettingValue::Name(name))] = world.writes()[..] else {
        panic!("{:?}", world.writes());
    };
    assert_eq!(name.to_string(), "second");
}
