//! Reports to a tenant contain nothing that the tenant may not see.

use std::{str::FromStr as _, time::Duration};

use serde_json::json;

use super::{HOSTILE, called, hostile, tag_with};
use crate::{
    model::{ReportedAttribute, Route, SettingValue, Tag, TagSet},
    plan::{
        DesiredSettings, DeviceTarget, Identity, ListOwnership, Mode, Policy, PolicyKey, Selector,
        Target,
    },
    tailnet::State,
    tailnet::tests::simulation::{
        World,
        builders::{attributes, hostname, key, tags, world},
        model::{device, node_id},
    },
};

/// Everything that is reported to the tenant: reports in order, from which the status is derived, and
/// notifications.
fn reported_to(world: &World, namespace: &str) -> Vec<String> {
    let reports = world.seen.reports.iter();
    let reports = reports.filter(|(key, _)| key.namespace == namespace);
    let reports = reports.map(|(key, report)| format!("{key}: {report:#?}"));
    let message = world.seen.notifications.iter();
    let message = message.filter(|(key, _)| key.namespace == namespace);
    reports
        .chain(message.map(|(key, message)| format!("{key}: {message:#?}")))
        .collect()
}

/// Randomizes everything that the tenant may not see: other devices, and fields and entries of its own
/// devices that no rule allows.
fn hide(world: &mut World, secrets: &mut fastrand::Rng) {
    let mut pick = |all: &[&str]| -> Vec<String> {
        let chosen = all.iter().filter(|_| secrets.bool());
        chosen.map(|it| (*it).to_owned()).collect()
    };
    for number in 0..2 {
        let own = world.model.devices.get_mut(&node_id(number)).unwrap();
        let hidden = pick(&["tag:secret-1", "tag:secret-2"]);
        own.tags
            .extend(hidden.iter().map(|it| it.parse::<Tag>().unwrap()));
        let hidden = pick(&["192.168.0.0/24", "192.168.7.0/24"]);
        let routes = own.enabled_routes.get_or_insert_default();
        routes.extend(hidden.iter().map(|it| it.parse::<Route>().unwrap()));
        let kept = world.model.attributes.get_mut(&node_id(number)).unwrap();
        for name in pick(&["tier", "secret"]) {
            let reported = ReportedAttribute {
                value: json!(if number == 0 { "gold" } else { "lead" }),
                expiry: None,
            };
            kept.insert(key(&name), reported);
        }
    }
    for number in 2..5 {
        if pick(&["is there"]).is_empty() {
            continue;
        }
        let mut other = device(number);
        other.tags = pick(&["tag:b", "tag:secret-1", "tag:a2"])
            .iter()
            .map(|it| it.parse().unwrap())
            .collect();
        other.user = format!("owner-{}@example.com", pick(&["1", "2", "3"]).concat());
        if !pick(&["namesake"]).is_empty() {
            "host-0".clone_into(&mut other.hostname);
        }
        world.model.add(other);
    }
}

fn tenants_policies() -> Vec<Policy> {
    let declared = |name: &str, target: Target, desired: DesiredSettings| {
        let mut policy = hostile(target, desired);
        policy.key = PolicyKey::new(&*policy.key.namespace, name);
        policy.ownership.tags = ListOwnership::AtLeast;
        policy
    };
    let everything = || DesiredSettings {
        enabled_routes: Some(["10.1.0.0/16".parse().unwrap()].into()),
        settings: [
            SettingValue::KeyExpiryDisabled(true),
            SettingValue::Authorized(true),
        ]
        .into(),
        attributes: attributes(&[("tier", "gold"), ("other", "x")]).attributes,
        ..tags(&["tag:a", "tag:a1"])
    };
    let owned_by = |user: &str| {
        Target::Device(DeviceTarget {
            identity: Identity::Hostname("host-0".to_owned()),
            tags: TagSet::new(),
            users: vec![user.to_owned()],
        })
    };
    let selecting = |expression: &str| {
        Target::Selector(Selector {
            expression: Some(expression.parse().unwrap()),
            ..Selector::default()
        })
    };
    // Close to a tag of devices of others: the report suggests similar tags.
    let typo = Target::Selector(Selector {
        tags: [Tag::from_str("tag:a22").unwrap()].into(),
        ..Selector::default()
    });
    let mut approve = declared("approve", hostname("host-0"), everything());
    approve.mode = Mode::Approve;
    approve.ownership.tags = ListOwnership::Exact;
    let mut observe = declared("observe", called("*"), everything());
    observe.mode = Mode::Observe;
    let mut exact = declared("exact", called("host-*"), tags(&["tag:a"]));
    exact.ownership.tags = ListOwnership::Exact;
    vec![
        declared("fleet", called("*"), everything()),
        declared(
            "oracle",
            selecting("device.user.startsWith('owner-1')"),
            tags(&["tag:a"]),
        ),
        declared(
            "unsure",
            selecting("device.lastSeen < '2026'"),
            tags(&["tag:a"]),
        ),
        declared("typo", typo, tags(&["tag:a"])),
        declared("single", hostname("host-1"), everything()),
        declared("absent", hostname("host-3"), everything()),
        declared("owner", owned_by("owner-1@example.com"), everything()),
        approve,
        observe,
        exact,
    ]
}

/// The status of a policy and all its notifications are a function of the state that its author may see.
#[test]
fn reports_depend_only_on_what_the_tenant_may_see() {
    let live = |seed: u64, secrets: u64, policy: &Policy| {
        let mut world = world(2);
        world.rng = crate::tailnet::tests::simulation::choices::Choices::of_seed(seed);
        world.faults.delay = Duration::ZERO;
        for number in 0..2 {
            tag_with(&mut world, number, &["tag:a", "tag:a0"]);
        }
        let mut secrets = fastrand::Rng::with_seed(secrets);
        hide(&mut world, &mut secrets);
        let hidden = if secrets.bool() {
            "tag:secret-1"
        } else {
            "tag:secret-9"
        };
        world.guard(&json!({
            "allowedPolicies": [
                {
                    "namespaces": {"names": [HOSTILE]},
                    "devices": [{"tags": ["tag:a"]}],
                    "fields": ["tags", "enabledRoutes", "keyExpiry"],
                    "tags": ["tag:a", "tag:a?"],
                    "routes": ["10.0.0.0/8"],
                },
                // Elsewhere the tenant has the permissions that it lacks here.
                {
                    "namespaces": {"names": [HOSTILE]},
                    "devices": [{"tags": ["tag:elsewhere"]}],
                    "fields": ["authorized", "postureAttributes"],
                },
            ],
            "protectedDevices": [{"tags": ["tag:b", hidden]}],
        }));
        world.apply(policy.clone());
        world.start();
        world.run_for(Duration::from_mins(5));
        // Someone keeps changing fields that the tenant may see.
        for _ in 0..4 {
            let own = world.model.devices.get_mut(&node_id(0)).unwrap();
            own.tags.remove(&"tag:a1".parse::<Tag>().unwrap());
            own.key_expiry_disabled = false;
            world.run_for(Duration::from_mins(5));
        }
        world
    };
    for policy in tenants_policies() {
        for seed in 0..6 {
            let first = live(seed, 2 * seed, &policy);
            let second = live(seed, 2 * seed + 1, &policy);
            let (one, other) = (reported_to(&first, HOSTILE), reported_to(&second, HOSTILE));
            let last = &first.last_reports[&policy.key].state;
            assert!(!matches!(last, State::NotAllowed(_)), "{last:?}");
            assert!(!one.is_empty());
            for (one, other) in one.iter().zip(&other) {
                assert_eq!(one, other, "{} in seed {seed}", policy.key);
            }
            assert_eq!(one.len(), other.len(), "{} in seed {seed}", policy.key);
            let secret = ["secret", "192.168.", "owner-", "lead", "tag:b"];
            for reported in &one {
                let own = policy.key.name == "owner" && reported.contains("owner-1");
                let reported_secret = secret.iter().find(|it| reported.contains(**it) && !own);
                assert_eq!(reported_secret, None, "{reported}");
            }
        }
    }
}
