//! Namespaces whose policies may change some devices only. A setting that a policy may not make, or cannot
//! have, takes nothing from other namespaces.

mod seen;

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Broken, World,
    builders::{SOON, attributes, blank, hostname, key, tags, world},
    contested::number,
    model::node_id,
};
use crate::{
    model::{Reason, SettingValue, Tag},
    plan::{
        DesiredSettings, DeviceTarget, Disruption, Glob, Hold, Identity, ListOwnership, Mode,
        Policy, PolicyKey, Selector, Suspender, Target,
    },
    tailnet::{DeviceReport, SelectorReport, State},
};

const HOSTILE: &str = "hostile";
const VICTIM: &str = "network";

fn policy_key(namespace: &str) -> PolicyKey {
    PolicyKey::new(namespace, "policy")
}

/// A policy of the hostile namespace: it ranks before all policies of the others.
fn hostile(target: Target, desired: DesiredSettings) -> Policy {
    Policy {
        target,
        desired,
        priority: 1000,
        ..blank(policy_key(HOSTILE))
    }
}

fn victim(target: Target, desired: DesiredSettings) -> Policy {
    Policy {
        target,
        desired,
        ..blank(policy_key(VICTIM))
    }
}

/// All devices whose hostname matches a pattern.
fn called(pattern: &str) -> Target {
    Target::Selector(Selector {
        hostnames: vec![Glob::of_folded(pattern)],
        ..Selector::default()
    })
}

fn address(last: u8) -> DesiredSettings {
    DesiredSettings {
        settings: [SettingValue::Ipv4(
            format!("100.80.0.{last}").parse().unwrap(),
        )]
        .into(),
        ..DesiredSettings::default()
    }
}

/// Three devices. The first one belongs to the hostile namespace.
fn tailnet() -> World {
    let mut world = world(3);
    for number in 0..3 {
        let tag = if number == 0 { "tag:a" } else { "tag:b" };
        tag_with(&mut world, number, &[tag]);
    }
    world.guard(&rules(&json!([])));
    world
}

pub fn rules(protected: &Value) -> Value {
    json!({
        "allowedPolicies": [
            {"namespaces": {"names": [HOSTILE]}, "devices": [{"tags": ["tag:a"]}]},
            {"namespaces": {"names": [VICTIM]}},
        ],
        "protectedDevices": protected,
    })
}

fn tag_with(world: &mut World, number: usize, tags: &[&str]) {
    let device = world.model.devices.get_mut(&node_id(number)).unwrap();
    device.tags = tags.iter().map(|tag| tag.parse::<Tag>().unwrap()).collect();
}

fn device(world: &World, namespace: &str) -> DeviceReport {
    match &world.last_reports[&policy_key(namespace)].state {
        State::Bound(report) => (**report).clone(),
        other => panic!("{other:?}"),
    }
}

fn fleet(world: &World, namespace: &str) -> SelectorReport {
    match &world.last_reports[&policy_key(namespace)].state {
        State::Selector(report) => (**report).clone(),
        other => panic!("{other:?}"),
    }
}

/// The only difference of a device, and the reason why it is held.
fn hold(report: &DeviceReport) -> Option<Hold> {
    assert_eq!(report.differences.len(), 1, "{report:#?}");
    report.differences[0].hold.clone()
}

/// Nothing is sent, as the change would end the rule or the selector that leads to it.
fn assert_held_as_feedback(mut world: World) {
    world.start();
    world.run_for(Duration::from_mins(10));
    assert!(world.writes().is_empty(), "{:#?}", world.writes());
    let held = hold(&device(&world, HOSTILE));
    assert!(matches!(held, Some(Hold::WouldUnselect(_))), "{held:?}");
}

fn assert_undisturbed(world: &World, why: &str) {
    let report = device(world, VICTIM);
    assert!(report.conflicts.is_empty(), "{why}: {report:#?}");
    assert!(report.differences.is_empty(), "{why}: {report:#?}");
}

#[test]
fn an_attribute_that_is_denied_everywhere_fixes_no_type() {
    let nowhere = [
        ("no such device", hostile(called("none-*"), number("tier"))),
        (
            "not its device",
            hostile(hostname("host-2"), number("tier")),
        ),
        ("not its devices", hostile(called("host-2"), number("tier"))),
    ];
    for (why, policy) in nowhere {
        for mode in [Mode::Enforce, Mode::Suspended(Suspender::Policy)] {
            let mut world = tailnet();
            world.apply(Policy {
                mode,
                ..policy.clone()
            });
            world.apply(victim(hostname("host-1"), attributes(&[("tier", "gold")])));
            world.start();
            world.run_until(SOON);
            assert_undisturbed(&world, why);
            assert_eq!(world.writes().len(), 1, "{why}");
            world.assert_converged();
        }
    }
}

#[test]
fn a_policy_loses_its_claim_on_a_type_with_its_last_device_and_gains_it_with_the_first() {
    let mut world = tailnet();
    let suspended = Policy {
        mode: Mode::Suspended(Suspender::Policy),
        ..hostile(called("host-*"), number("tier"))
    };
    world.apply(suspended);
    world.apply(victim(hostname("host-1"), attributes(&[("tier", "gold")])));
    world.start();
    world.run_until(SOON);
    // The policy may set the key on one device, and no device has it yet: the policy decides its type.
    assert_eq!(device(&world, VICTIM).conflicts.len(), 1);
    assert_eq!(world.writes().len(), 0);
    tag_with(&mut world, 0, &["tag:b"]);
    world.run_for(Duration::from_mins(3));
    assert_undisturbed(&world, "its last device is another one's");
    assert_eq!(world.writes().len(), 1);
    // Now the tailnet has the key with the victim's type. A later policy changes nothing.
    tag_with(&mut world, 0, &["tag:a"]);
    world.run_for(Duration::from_mins(3));
    assert_undisturbed(&world, "the tailnet has the key as a string");
    let report = fleet(&world, HOSTILE);
    assert!(
        matches!(
            report.differences[0].hold,
            Some(Hold::AttributeConflict { .. })
        ),
        "{report:#?}"
    );
    world.assert_converged();
}

#[test]
fn no_other_policy_takes_an_address_or_name_that_a_device_keeps() {
    let name = |label: &str| DesiredSettings {
        settings: [SettingValue::Name(label.parse().unwrap())].into(),
        ..DesiredSettings::default()
    };
    for desired in [address(1), name("name-1")] {
        let mut world = tailnet();
        // The victim's device already has it.
        world.apply(hostile(hostname("host-0"), desired.clone()));
        world.apply(victim(hostname("host-1"), desired));
        world.start();
        world.run_until(SOON);
        assert_undisturbed(&world, "it is there");
        let held = hold(&device(&world, HOSTILE));
        assert!(
            matches!(held, Some(Hold::AddressInUse(_) | Hold::NameTaken(_))),
            "{held:?}"
        );
        assert!(world.writes().is_empty());
        world.assert_converged();
    }
}

#[test]
fn an_address_that_the_api_refuses_is_free_for_the_next_policy() {
    let mut world = tailnet();
    world.model.refuses_address_of = Some(node_id(0));
    world.apply(hostile(hostname("host-0"), address(77)));
    world.apply(victim(hostname("host-1"), address(77)));
    world.start();
    world.run_until(SOON);
    assert_undisturbed(&world, "refused");
    assert_eq!(
        world.model.devices[&node_id(1)].ipv4,
        Some([100, 80, 0, 77].into())
    );
    // A spec that cannot be read answers no refusal.
    world.break_spec(&policy_key(HOSTILE), Broken::Invalid);
    world.run_for(SOON);
    assert_undisturbed(&world, "refused, and invalid since");
}

/// As if a device that is never read has the key with another type.
#[test]
fn an_attribute_that_the_api_refuses_fixes_no_type() {
    let mut world = tailnet();
    world.model.refuses_attributes_of = Some(node_id(0));
    world.apply(hostile(hostname("host-0"), number("tier")));
    world.apply(victim(hostname("host-1"), attributes(&[("tier", "gold")])));
    world.start();
    world.run_until(SOON);
    assert_undisturbed(&world, "refused");
    assert!(world.model.attributes[&node_id(1)].contains_key(&key("tier")));
}

#[test]
fn a_spec_that_becomes_invalid_does_not_give_a_refused_type_precedence_again() {
    let mut world = tailnet();
    world.model.refuses_attributes_of = Some(node_id(0));
    world.apply(hostile(hostname("host-0"), number("tier")));
    // It sends nothing, so that the tailnet does not have its type either.
    let suspended = Policy {
        mode: Mode::Suspended(Suspender::Policy),
        ..victim(hostname("host-1"), attributes(&[("tier", "gold")]))
    };
    world.apply(suspended);
    world.start();
    world.run_until(SOON);
    let is_free = |world: &World| {
        let report = device(world, VICTIM);
        assert!(report.conflicts.is_empty(), "{report:#?}");
        assert_eq!(hold(&report), Some(Hold::Suspended(Suspender::Policy)));
    };
    is_free(&world);
    world.break_spec(&policy_key(HOSTILE), Broken::Invalid);
    world.run_for(SOON);
    is_free(&world);
}

#[test]
fn settings_of_a_protected_device_take_precedence_over_nothing() {
    let mut world = tailnet();
    world.guard(&rules(&json!([{"tags": ["tag:a"]}])));
    let mut desired = address(77);
    desired.attributes = number("tier").attributes;
    world.apply(hostile(hostname("host-0"), desired));
    let mut desired = address(77);
    desired.attributes = attributes(&[("tier", "gold")]).attributes;
    world.apply(victim(hostname("host-1"), desired));
    world.start();
    world.run_until(SOON);
    assert_undisturbed(&world, "protected");
    let report = device(&world, HOSTILE);
    let protected = |it: &crate::plan::Difference| it.hold == Some(Hold::Protected);
    assert_eq!(report.differences.len(), 2, "{report:#?}");
    assert!(report.differences.iter().all(protected), "{report:#?}");
    world.assert_converged();
}

/// Otherwise a policy could block every change of a device's tags with a target that the change ends.
#[test]
fn a_target_that_a_tag_change_ends_does_not_block_the_change() {
    let with_tag = |identity: &str, tag: &str| {
        Target::Device(DeviceTarget {
            identity: Identity::Hostname(identity.to_owned()),
            tags: [tag.parse().unwrap()].into(),
            users: Vec::new(),
        })
    };
    let selecting = |tag: &str| {
        Target::Selector(Selector {
            tags: [tag.parse().unwrap()].into(),
            ..Selector::default()
        })
    };
    let keys = DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(true)].into(),
        ..DesiredSettings::default()
    };
    let mut at_least = hostile(selecting("tag:x"), tags(&["tag:b"]));
    at_least.ownership.tags = ListOwnership::AtLeast;
    let in_the_way = [
        hostile(with_tag("host-0", "tag:x"), keys.clone()),
        hostile(with_tag("host-0", "tag:x"), tags(&["tag:x"])),
        hostile(selecting("tag:x"), keys),
        at_least,
    ];
    for policy in in_the_way {
        let mut world = tailnet();
        tag_with(&mut world, 0, &["tag:a", "tag:x"]);
        // The policy that takes precedence sets other tags.
        let mut giving = victim(hostname("host-0"), tags(&["tag:a", "tag:b"]));
        giving.priority = 2000;
        giving.allowed = [Disruption::FirstTag].into();
        world.apply(policy.clone());
        world.apply(giving);
        world.start();
        world.run_for(Duration::from_mins(5));
        let given = &world.model.devices[&node_id(0)].tags;
        let expected = ["tag:a", "tag:b"].map(|tag| tag.parse::<Tag>().unwrap());
        assert!(given.iter().eq(expected.iter()), "{given:?}: {policy:#?}");
    }
}

/// The rules of two namespaces can form a cycle, as their selectors can.
#[test]
fn changes_that_pass_a_device_back_and_forth_between_namespaces_are_held() {
    let mut world = tailnet();
    world.guard(&json!({"allowedPolicies": [
        {"namespaces": {"names": [HOSTILE]}, "devices": [{"tags": ["tag:a"]}]},
        {"namespaces": {"names": [VICTIM]}, "devices": [{"tags": ["tag:b"]}]},
    ]}));
    world.apply(hostile(hostname("host-0"), tags(&["tag:b"])));
    world.apply(victim(hostname("host-0"), tags(&["tag:a"])));
    assert_held_as_feedback(world);
}

/// Another rule still lets the policy change the device, but not to these tags.
#[test]
fn a_change_that_ends_the_rule_that_allows_it_is_held() {
    let mut world = tailnet();
    tag_with(&mut world, 0, &[]);
    world.guard(&json!({"allowedPolicies": [
        {"tags": ["tag:b", "tag:c"]},
        {"devices": [{"trustClaims": true, "expression": "size(device.tags) != 1"}]},
    ]}));
    world.apply(hostile(hostname("host-0"), tags(&["tag:a"])));
    assert_held_as_feedback(world);
}

#[test]
fn a_key_that_cannot_be_set_prevents_no_pruning_of_others() {
    let mut world = tailnet();
    tag_with(&mut world, 1, &["tag:a"]);
    world.apply(victim(
        hostname("host-1"),
        attributes(&[("tier", "gold"), ("kept", "yes")]),
    ));
    world.start();
    world.run_until(SOON);
    world.apply(hostile(hostname("host-1"), number("tier")));
    world.run_for(SOON);
    assert_undisturbed(&world, "the tailnet has the key as a string");
    // The key is no longer declared. While it exists, no policy can have it with another type.
    world.apply(victim(hostname("host-1"), attributes(&[("kept", "yes")])));
    world.run_for(SOON);
    let left = &world.model.attributes[&node_id(1)];
    let tier = left.get(&key("tier")).map(|it| it.value.clone());
    assert_eq!(tier, Some(json!(3)), "{left:?}");
    world.assert_converged();
}

/// Otherwise each edit would cause one more try.
#[test]
fn an_edit_of_one_policy_ends_no_contest_of_another_one_s_field() {
    let mut world = tailnet();
    world.apply(victim(hostname("host-0"), tags(&["tag:a", "tag:b"])));
    world.start();
    world.run_until(SOON);
    world.clear_seen();
    for round in 0..48 {
        world.run_for(Duration::from_mins(5));
        tag_with(&mut world, 0, &["tag:a"]);
        let desired = DesiredSettings {
            settings: [SettingValue::KeyExpiryDisabled(round % 2 == 0)].into(),
            ..DesiredSettings::default()
        };
        world.apply(Policy {
            allowed: [Disruption::ExpiredKey].into(),
            ..hostile(hostname("host-0"), desired)
        });
    }
    let gives = |call: &&&crate::plan::Call| matches!(call, crate::plan::Call::SetTags(..));
    let times = world.writes().iter().filter(gives).count();
    assert!((3..=7).contains(&times), "{times} times in four hours");
}

/// A writer who keeps removing the tag of one namespace blocks no other namespace.
#[test]
fn a_contest_of_one_policy_s_tags_holds_up_no_other_policy_of_the_device() {
    let mut world = tailnet();
    let giving = |policy: Policy| {
        let mut policy = policy;
        policy.ownership.tags = ListOwnership::AtLeast;
        policy
    };
    world.apply(giving(hostile(hostname("host-0"), tags(&["tag:x"]))));
    world.apply(giving(victim(hostname("host-0"), tags(&["tag:v"]))));
    world.start();
    world.run_until(SOON);
    for _ in 0..5 {
        world.run_for(Duration::from_mins(5));
        tag_with(&mut world, 0, &["tag:a", "tag:v"]);
    }
    world.run_for(Duration::from_mins(3));
    let contested = |namespace| {
        let failures = device(&world, namespace).failures;
        failures
            .iter()
            .any(|(_, failure)| failure.reason == Reason::Contested)
    };
    assert!(contested(HOSTILE) && !contested(VICTIM));
    tag_with(&mut world, 0, &["tag:a"]);
    world.run_for(Duration::from_mins(2));
    let given = &world.model.devices[&node_id(0)].tags;
    assert!(
        given.contains(&"tag:v".parse::<Tag>().unwrap()),
        "{given:?}"
    );
    assert_undisturbed(&world, "its tag was taken once");
}

/// A setting that cannot be reached keeps no device out. One that is pending does.
#[test]
fn a_setting_that_cannot_be_reached_does_not_block_authorization_by_another_policy() {
    let name = DesiredSettings {
        settings: [SettingValue::Name("name-1".parse().unwrap())].into(),
        ..DesiredSettings::default()
    };
    let entry = DesiredSettings {
        settings: [SettingValue::Authorized(true)].into(),
        ..DesiredSettings::default()
    };
    for desired in [number("tier"), address(1), name] {
        let mut world = tailnet();
        world.model.devices.get_mut(&node_id(0)).unwrap().authorized = false;
        world.apply(Policy {
            key: PolicyKey::new(VICTIM, "string"),
            ..victim(hostname("host-1"), attributes(&[("tier", "gold")]))
        });
        world.start();
        world.run_until(SOON);
        let is_in = |world: &World| world.model.devices[&node_id(0)].authorized;
        // The settings that the authorizing policy itself declares must be applied first.
        let mut own = desired.clone();
        own.settings.set(SettingValue::Authorized(true));
        world.apply(hostile(hostname("host-0"), own));
        world.run_for(SOON);
        assert!(!is_in(&world), "{desired:?}");
        world.apply(hostile(hostname("host-0"), desired.clone()));
        world.apply(victim(hostname("host-0"), entry.clone()));
        world.run_for(SOON);
        assert!(is_in(&world), "{desired:?}");
        world.assert_converged();
    }
}
