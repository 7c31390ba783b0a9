mod mask;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{option, prelude::*, sample::select, strategy::ValueTree as _};
use serde_json::{Value, json};

use super::*;
use crate::{
    convert::fixtures::guardrails,
    model::{Device, PolicyField, Route, Setting, SettingValue, TagSet},
    plan::{
        Call, DesiredSettings, DevicePlan, ListOwnership, Mode, Policy, PolicyKey, PolicyRecord,
        tests::scenes::{Scene, plain_device, policy, scene},
    },
};

fn desiring(namespace: &str, desired: DesiredSettings) -> Policy {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (any, _) = policy().new_tree(&mut runner).unwrap().current();
    Policy {
        key: PolicyKey::new(namespace, "any"),
        mode: Mode::Enforce,
        desired,
        ..any
    }
}

fn tags(tags: &[&str]) -> TagSet {
    tags.iter().map(|tag| tag.parse().unwrap()).collect()
}

fn labels(team: &str) -> Labels {
    BTreeMap::from([("team".to_owned(), team.to_owned())])
}

#[test]
fn by_default_only_the_own_namespace_is_allowed() {
    let guardrails = guardrails(&json!({}));
    let policy = |namespace: &str| {
        let desired = DesiredSettings {
            tags: Some(tags(&["tag:a"])),
            ..DesiredSettings::default()
        };
        guardrails.admit(desiring(namespace, desired), None)
    };
    assert!(policy("tsdp-system").is_ok());
    assert_eq!(
        policy("network").unwrap_err().to_string(),
        "metadata.namespace: policies of network are not allowed: without allowedPolicies only those of \
         tsdp-system are. To allow it, give the TailscaleTailnet a rule such as allowedPolicies: \
         [{namespaces: {names: [network]}, fields: [tags]}]"
    );
}

#[test]
fn empty_rule_allows_everything_and_no_rule_allows_nothing() {
    let desired = DesiredSettings {
        exit_node: Some(true),
        ..DesiredSettings::default()
    };
    let open = guardrails(&json!({"allowedPolicies": [{}]}));
    assert!(open.admit(desiring("any", desired.clone()), None).is_ok());
    let shut = guardrails(&json!({"allowedPolicies": []}));
    assert!(shut.admit(desiring("tsdp-system", desired), None).is_err());
}

#[test]
fn every_part_of_one_rule_must_match_and_parts_of_rules_do_not_combine() {
    let rules = guardrails(&json!({"allowedPolicies": [
        {"namespaces": {"names": ["network"]}, "fields": ["tags", "exitNode"], "tags": ["tag:net-*"],
         "routes": ["10.0.0.0/8", "0.0.0.0/0"]},
        {"namespaces": {"matchLabels": {"team": "db"}}, "fields": ["tags"], "tags": ["tag:db"]},
        {"namespaces": {"names": ["both"], "matchLabels": {"team": "db"}}, "fields": ["keyExpiry"]},
    ]}));
    let judged = |namespace: &str, team: &str, desired: DesiredSettings| {
        let labels = labels(team);
        rules.admit(desiring(namespace, desired), Some(&labels))
    };
    let tagged = |list: &[&str]| DesiredSettings {
        tags: Some(tags(list)),
        ..DesiredSettings::default()
    };
    let key = DesiredSettings {
        settings: [SettingValue::KeyExpiryDisabled(true)].into(),
        ..DesiredSettings::default()
    };
    assert!(judged("network", "", tagged(&["tag:net-a", "tag:net-"])).is_ok());
    assert!(judged("other", "db", tagged(&["tag:db"])).is_ok());
    assert!(judged("network", "db", tagged(&["tag:net-a", "tag:db"])).is_ok());
    assert!(judged("both", "db", key.clone()).is_ok());
    for (namespace, team, desired, error) in [
        (
            "network",
            "",
            tagged(&["tag:net-a", "tag:db"]),
            "spec.tags: no rule of allowedPolicies allows tag:db. To allow it, give the TailscaleTailnet a \
             rule such as allowedPolicies: [{namespaces: {names: [network]}, fields: [tags], tags: \
             [\"tag:db\", \"tag:net-a\"]}]",
        ),
        (
            "both",
            "",
            key.clone(),
            "metadata.namespace: no rule of allowedPolicies allows the namespace both. To allow it, give \
             the TailscaleTailnet a rule such as allowedPolicies: [{namespaces: {names: [both]}, fields: \
             [keyExpiry]}]",
        ),
        (
            "network",
            "db",
            key,
            "spec.keyExpiry: no rule of allowedPolicies allows this field. To allow it, give the \
             TailscaleTailnet a rule such as allowedPolicies: [{namespaces: {names: [network]}, fields: \
             [keyExpiry]}]",
        ),
        (
            "network",
            "",
            DesiredSettings {
                exit_node: Some(false),
                ..DesiredSettings::default()
            },
            "spec.exitNode: no rule of allowedPolicies allows 0.0.0.0/0 and ::/0. To allow it, give the \
             TailscaleTailnet a rule such as allowedPolicies: [{namespaces: {names: [network]}, fields: \
             [exitNode], routes: [\"0.0.0.0/0\", \"::/0\"]}]",
        ),
    ] {
        let refused = judged(namespace, team, desired).unwrap_err();
        assert_eq!(refused.to_string(), error);
    }
}

#[test]
fn unknown_labels_match_no_rule_and_are_reported() {
    let rules = guardrails(&json!({"allowedPolicies": [
        {"namespaces": {"matchLabels": {"team": "network"}}},
    ]}));
    let policy = || desiring("network", DesiredSettings::default());
    assert!(rules.admit(policy(), None).unwrap_err().labels_unknown);
    let others = rules.admit(policy(), Some(&labels("db"))).unwrap_err();
    assert!(!others.labels_unknown);
    assert!(rules.admit(policy(), Some(&labels("network"))).is_ok());
}

#[test]
fn namespace_that_yaml_would_not_read_as_a_string_is_quoted() {
    for (namespace, expected) in [("on", "\"on\""), ("007", "\"007\""), ("net-7", "net-7")] {
        let refused =
            guardrails(&json!({})).admit(desiring(namespace, DesiredSettings::default()), None);
        let suggested_rule = refused.unwrap_err().suggested_rule;
        assert_eq!(
            suggested_rule,
            format!("allowedPolicies: [{{namespaces: {{names: [{expected}]}}}}]")
        );
    }
}

#[test]
fn denied_action_is_reported_with_its_reason() {
    let rules = guardrails(&json!({
        "allowedPolicies": [{"devices": [{"tags": ["tag:net-*"]}], "fields": ["expireKeyAt"]}],
        "protectedDevices": [{"tags": ["tag:never"], "hostnames": ["h*"]}],
    }));
    let policy = rules
        .admit(desiring("any", DesiredSettings::default()), None)
        .unwrap();
    let device = |list: &[&str]| Device {
        tags: tags(list),
        ..plain_device()
    };
    let denial = |field, device: &Device| {
        let hold = rules.denies(&policy, field, device);
        hold.map(|hold| hold.to_string()).unwrap_or_default()
    };
    let net = device(&["tag:net-a"]);
    assert_eq!(denial(PolicyField::ExpireKeyAt, &net), "");
    let delete_inactive = denial(PolicyField::DeleteInactive, &net);
    assert!(
        delete_inactive.contains("devices: [{tags: [\"tag:net-*\"]}]"),
        "{delete_inactive}"
    );
    // Nothing is disclosed about a device that no rule is for.
    let mine = denial(PolicyField::ExpireKeyAt, &device(&[]));
    let nothing = "no rule of the TailscaleTailnet allows it on this device";
    assert_eq!(mine, nothing);
    assert_eq!(
        denial(
            PolicyField::ExpireKeyAt,
            &device(&["tag:net-a", "tag:never"])
        ),
        "no policy may change this device: it is one of protectedDevices of the TailscaleTailnet"
    );
}

#[test]
fn device_on_which_an_expression_fails_is_protected_and_not_allowed() {
    let selector = json!([{"trustClaims": true, "expression": "device.lastSeen < '2026'"}]);
    let protecting = guardrails(&json!({"allowedPolicies": [{}], "protectedDevices": selector}));
    assert!(protecting.protects(&plain_device()));
    let allowing = guardrails(&json!({"allowedPolicies": [{"devices": selector}]}));
    let policy = allowing
        .admit(desiring("any", DesiredSettings::default()), None)
        .unwrap();
    assert!(
        allowing
            .denies(&policy, PolicyField::Tags, &plain_device())
            .is_some()
    );
}

fn fields() -> impl Strategy<Value = Option<Vec<&'static str>>> {
    let all: Vec<&str> = PolicyField::ALL.iter().map(|it| it.as_str()).collect();
    option::weighted(0.3, proptest::sample::subsequence(all, 6..10))
}

fn rule() -> impl Strategy<Value = Value> {
    let tags = option::weighted(
        0.6,
        select(vec![vec!["tag:a"], vec!["tag:?"], vec!["tag:b", "tag:c"]]),
    );
    let routes = option::weighted(
        0.6,
        select(vec![
            vec!["10.0.0.0/8"],
            vec!["10.0.0.0/16", "0.0.0.0/0", "::/0"],
            vec!["fc00::/7"],
        ]),
    );
    let devices = option::weighted(
        0.4,
        select(vec![
            json!([{"tags": ["tag:a"]}]),
            json!([{"users": ["*"]}, {"tags": ["tag:?"]}]),
            json!([{"trustClaims": true, "expression": "size(device.tags) != 1"}]),
        ]),
    );
    (fields(), tags, routes, devices).prop_map(|(fields, tags, routes, devices)| {
        let mut rule = json!({});
        let parts = [
            ("fields", json!(fields)),
            ("tags", json!(tags)),
            ("routes", json!(routes)),
            ("devices", json!(devices)),
        ];
        for (name, part) in parts {
            if !part.is_null() {
                rule[name] = part;
            }
        }
        rule
    })
}

/// Guardrails that a tailnet may declare.
pub(in crate::plan) fn random_guardrails() -> impl Strategy<Value = Value> {
    let protected = option::weighted(
        0.2,
        select(vec![
            json!([{"tags": ["tag:c"]}]),
            json!([{"trustClaims": true, "expression": "device.lastSeen < '2026'"}]),
        ]),
    );
    let rules = proptest::collection::vec(rule(), 1..4);
    (rules, protected, prop::bool::weighted(0.1)).prop_map(|(rules, protected, suspend)| {
        let mut spec = json!({"allowedPolicies": rules, "suspend": suspend});
        if let Some(protected) = protected {
            spec["protectedDevices"] = protected;
        }
        spec
    })
}

/// The scenario with only the admitted policies.
fn guarded(scene: &Scene, guardrails: &Guardrails) -> Scene {
    let mut scene = scene.clone();
    scene.policies = scene
        .policies
        .into_iter()
        .filter_map(|(policy, record)| Some((guardrails.admit(policy, None).ok()?, record)))
        .collect();
    scene.guardrails = guardrails.clone();
    scene
}

/// The contract for one entry, written out: there is a rule with this field, this device, and this entry.
fn a_rule_allows(spec: &Value, field: &str, device: &Device, entry: Option<&str>) -> bool {
    spec["allowedPolicies"]
        .as_array()
        .unwrap()
        .iter()
        .any(|rule| {
            let alone = guardrails(&json!({"allowedPolicies": [{"devices": rule["devices"]}]}));
            let desired = DesiredSettings::default();
            let about_all = rule.get("devices").is_none();
            let about = about_all || {
                let policy = alone.admit(desiring("any", desired), None).unwrap();
                alone.denies(&policy, PolicyField::Name, device).is_none()
            };
            let fields = rule.get("fields").and_then(Value::as_array);
            let of_field = fields.is_none_or(|fields| fields.contains(&json!(field)));
            let list = rule.get(if field == "tags" { "tags" } else { "routes" });
            let inside = match (entry, list.and_then(Value::as_array)) {
                (Some(entry), Some(list)) => list.iter().any(|bound| {
                    let bound = bound.as_str().unwrap();
                    if field == "tags" {
                        bound == "tag:?" || bound == entry
                    } else {
                        let bound = Route::network(bound).unwrap();
                        bound.covers(&Route::reported(entry).unwrap())
                    }
                }),
                _ => true,
            };
            about && of_field && inside
        })
}

fn field_of(call: &Call) -> Option<&'static str> {
    Some(match call {
        Call::Set(_, SettingValue::Authorized(_)) => "authorized",
        Call::SetTags(..) => "tags",
        Call::Set(_, SettingValue::KeyExpiryDisabled(_)) => "keyExpiry",
        Call::WriteAttributes(_) => "postureAttributes",
        Call::Set(_, SettingValue::Name(_)) => "name",
        Call::Set(_, SettingValue::Ipv4(_)) => "ipv4",
        Call::ExpireKey(_) => "expireKeyAt",
        Call::Delete(_) => "deleteInactive",
        Call::SetRoutes(..) => return None,
    })
}

proptest! {
    #![proptest_config(crate::plan::tests::cases::cases(768))]

    /// The rules are for every namespace here, so that one rule is enough for every policy.
    #[test]
    fn no_request_exceeds_the_guardrails(scene in scene(), spec in random_guardrails()) {
        let guardrails = guardrails(&spec);
        let mut scene = guarded(&scene, &guardrails);
        while let Some((call, _)) = crate::plan::next_call(&scene.plan(), &BTreeSet::new()) {
            let before = scene.device.clone();
            prop_assert!(!guardrails.suspended(), "{call:?} though suspended");
            prop_assert!(!guardrails.protects(&before), "{call:?} on a protected device");
            scene.make(&call);
            if let Some(field) = field_of(&call) {
                prop_assert!(a_rule_allows(&spec, field, &before, None), "{call:?}");
            }
            for tag in before.tags.symmetric_difference(&scene.device.tags) {
                prop_assert!(a_rule_allows(&spec, "tags", &before, Some(tag.as_str())), "{tag}: {call:?}");
            }
            let routes = |device: &Device| device.enabled_routes.clone().unwrap();
            for route in routes(&before).symmetric_difference(&routes(&scene.device)) {
                let field = if route.is_exit_node() { "exitNode" } else { "enabledRoutes" };
                prop_assert!(
                    a_rule_allows(&spec, field, &before, Some(&route.to_string())), "{route}: {call:?}",
                );
            }
        }
    }

    #[test]
    fn order_of_policies_changes_nothing(
        scene in scene(), spec in random_guardrails(), turn in 0..4_usize,
    ) {
        let guardrails = guardrails(&spec);
        let scene = guarded(&scene, &guardrails);
        let mut other = scene.clone();
        let turn = turn.min(other.policies.len());
        other.policies.rotate_left(turn);
        let reported = |plan: DevicePlan| (plan.differences, plan.shown);
        prop_assert_eq!(reported(scene.plan()), reported(other.plan()));
    }

    #[test]
    fn denied_difference_is_shown_with_its_reason(scene in scene(), spec in random_guardrails()) {
        let guardrails = guardrails(&spec);
        let scene = guarded(&scene, &guardrails);
        let plan = scene.plan();
        for (policy, _) in scene.policies.iter().filter(|(policy, _)| policy.mode == Mode::Enforce) {
            let denied = DevicePermissions::of(policy, &scene.device).denied(PolicyField::Authorized);
            let lost = |field| {
                let mut conflicts = plan.owners.conflicts.iter();
                conflicts.any(|lost| lost.overridden == policy.key && lost.field == field)
            };
            let Some(desired) = policy.desired.authorized().filter(|_| denied.is_some() || !lost(crate::plan::Field::Setting(Setting::Authorized))) else {
                continue;
            };
            if desired != scene.device.authorized {
                let mut reported = plan.of(&policy.key);
                let reported = reported.find(|it| it.change.field() == crate::plan::Field::Setting(Setting::Authorized));
                let reported = reported.expect("it differs");
                if guardrails.denies(policy, PolicyField::Authorized, &scene.device).is_some() {
                    prop_assert!(reported.hold.is_some(), "{reported:?}");
                }
            }
        }
    }

    #[test]
    fn policy_without_permissions_on_a_device_overrides_no_other(scene in scene(), spec in random_guardrails()) {
        let guardrails = guardrails(&spec);
        let with = guarded(&scene, &guardrails);
        let mut without = with.clone();
        let (device, index) = (&scene.device, scene.index());
        without.policies.retain(|(policy, _)| {
            let named = policy.desired.fields();
            let denied = |field: &PolicyField| DevicePermissions::of(policy, device).denied(*field).is_some();
            policy.mode == Mode::Observe || !named.iter().all(denied)
        });
        prop_assume!(index.own_count() > 0 && !guardrails.protects(device));
        let (with, without) = (with.plan(), without.plan());
        prop_assert_eq!(with.differences, without.differences);
        prop_assert_eq!(with.owners.conflicts, without.owners.conflicts);
    }

    /// Two teams that each may give only their own tags do not change each other's.
    #[test]
    fn exact_owns_only_allowed_entries(scene in scene(), ranks in any::<bool>()) {
        let rules = guardrails(&json!({"allowedPolicies": [
            {"namespaces": {"names": ["one"]}, "tags": ["tag:a"]},
            {"namespaces": {"names": ["two"]}, "tags": ["tag:b"]},
        ]}));
        let team = |namespace: &str, tag: &str, priority| {
            let desired = DesiredSettings { tags: Some(tags(&[tag])), ..DesiredSettings::default() };
            let mut policy = desiring(namespace, desired);
            policy.ownership.tags = ListOwnership::Exact;
            policy.priority = priority;
            policy.allowed = [crate::plan::Disruption::FirstTag].into();
            policy.target = crate::plan::Target::Device(crate::plan::DeviceTarget {
                identity: crate::plan::Identity::Hostname("host".to_owned()),
                tags: TagSet::new(),
                users: Vec::new(),
            });
            (policy, PolicyRecord::default())
        };
        let policies = vec![team("one", "tag:a", i32::from(ranks)), team("two", "tag:b", 0)];
        let mut scene = guarded(&Scene { policies, ..scene }, &rules);
        let mut expected = scene.device.tags.clone();
        expected.extend(tags(&["tag:a", "tag:b"]));
        let plan = scene.plan();
        prop_assert!(plan.owners.conflicts.is_empty(), "{:?}", plan.owners.conflicts);
        prop_assert!(plan.owners.share_tags(), "a fresh read is needed for the tags of others");
        scene.run();
        prop_assert_eq!(scene.device.tags, expected);
    }
}
