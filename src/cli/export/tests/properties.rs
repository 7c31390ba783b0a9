//! Properties of every export, for random tailnets.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum as _;
use jiff::{SignedDuration, Timestamp};
use proptest::{collection, option, prelude::*, sample::subsequence};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::{
    args::{ExportArgs, GroupBy},
    describe::{Exported, USUAL},
    group::ManifestFile,
    text,
};
use crate::{
    api::TailscaleDevicePolicy,
    cli::{connection::ConnectionArgs, select::SelectArgs},
    convert,
    model::{AttributeKey, Attributes, Device, DeviceField, NodeId, ReportedAttribute, Route, Tag},
    plan::{Admission, DeviceIndex, PolicyInput, PolicyKey, Selector, TailnetPlan, plan_tailnet},
};

type Tailnet = Vec<(Device, Attributes)>;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn args(group_by: GroupBy, fields: &[Exported], all: bool) -> ExportArgs {
    ExportArgs {
        out: None,
        force: false,
        group_by,
        fields: fields.to_vec(),
        all,
        from_terraform: None,
        without_attributes: false,
        include_ephemeral: false,
        namespace: Some("network".to_owned()),
        tailnet_ref: None,
        select: SelectArgs::default(),
        connection: ConnectionArgs::default(),
    }
}

fn files(args: &ExportArgs, tailnet: &Tailnet, selector: &Selector) -> Vec<ManifestFile> {
    let (fleet, attributes) = observed(tailnet);
    let export = args.export(&fleet, &attributes, selector, now());
    export.unwrap().files
}

/// The policies of an export, parsed as from a cluster or a folder.
fn exported(args: &ExportArgs, tailnet: &Tailnet, selector: &Selector) -> Vec<PolicyInput> {
    let stream = args.stream(&files(args, tailnet, selector)).unwrap();
    let mut policies = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&stream) {
        // An empty stream is one empty document.
        let policy = Option::<TailscaleDevicePolicy>::deserialize(document).unwrap();
        let Some(policy) = policy else { continue };
        let key = PolicyKey::new(
            policy.metadata.namespace.unwrap(),
            policy.metadata.name.unwrap(),
        );
        let created = Timestamp::UNIX_EPOCH;
        let uid = policies.len().to_string();
        policies.push(convert::policy(key, uid, 1, created, &policy.spec, None));
    }
    policies
}

fn observed(tailnet: &Tailnet) -> (DeviceIndex, BTreeMap<NodeId, Attributes>) {
    let fleet = DeviceIndex::new(tailnet.iter().map(|(device, _)| device.clone()));
    let attributes = tailnet.iter();
    let attributes =
        attributes.map(|(device, attributes)| (device.node_id.clone(), attributes.clone()));
    (fleet, attributes.collect())
}

fn plan_for(policies: &[PolicyInput], tailnet: &Tailnet, now: Timestamp) -> TailnetPlan {
    let (fleet, attributes) = observed(tailnet);
    plan_tailnet(policies, &Admission::default(), &fleet, &attributes, now)
}

/// Every change that the policies ask for, as text.
fn planned_changes(policies: &[PolicyInput], tailnet: &Tailnet) -> BTreeSet<String> {
    let plan = plan_for(policies, tailnet, now());
    let differences = plan.devices.values().flat_map(|plan| &plan.differences);
    differences
        .map(|difference| format!("{} {}", difference.node, difference.change))
        .collect()
}

fn reported() -> impl Strategy<Value = ReportedAttribute> {
    let value = prop_oneof![
        prop::sample::select(vec![
            json!("gold"),
            json!("on"),
            json!("0777"),
            json!(""),
            json!("12.5"),
            json!("no such-value"),
            json!("x".repeat(51)),
            json!(3.0),
            json!(2.5),
            json!(1e300),
            json!(9_007_199_254_740_992_u64),
            json!(u64::MAX),
            json!(null),
            json!([1]),
        ]),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
    ];
    let expiry = option::of(
        (-3_000..3_000_i64).prop_map(|millis| now() + SignedDuration::from_millis(millis)),
    );
    (value, expiry).prop_map(|(value, expiry)| ReportedAttribute { value, expiry })
}

/// A key has one type in the whole tailnet. Values that no policy can hold may occur under any key.
fn is_of_its_type(key: &AttributeKey, reported: &mut ReportedAttribute) -> bool {
    let value = &reported.value;
    match key.as_str() {
        "custom:a" => !value.is_number() && !value.is_boolean(),
        "custom:b" => !value.is_string() && !value.is_boolean(),
        "custom:c" | "custom:b:" => !value.is_string() && !value.is_number(),
        _ => true,
    }
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let keys = [
        "custom:a",
        "custom:b",
        "custom:c",
        "custom:b:",
        "custom:no such",
        "custom:",
    ];
    let key = prop::sample::select(keys.to_vec());
    let key = key.prop_map(|key| AttributeKey::reported(key).unwrap());
    let few = collection::btree_map(key, reported(), 0..4).prop_map(|mut attributes| {
        attributes.retain(is_of_its_type);
        attributes
    });
    let many = (0..70_usize).prop_map(|count| {
        let keys = (0..count).map(|number| format!("custom:k{number}"));
        let value = ReportedAttribute {
            value: json!(true),
            expiry: None,
        };
        keys.map(|key| (AttributeKey::reported(&key).unwrap(), value.clone()))
            .collect()
    });
    prop_oneof![9 => few, 1 => many]
}

fn routes() -> impl Strategy<Value = Option<BTreeSet<Route>>> {
    let all = ["10.0.0.0/16", "fd00::/8", "0.0.0.0/0", "::/0"];
    let routes = subsequence(all.to_vec(), 0..=4)
        .prop_map(|routes| routes.iter().map(|r| Route::reported(r).unwrap()).collect());
    option::weighted(0.9, routes)
}

prop_compose! {
    fn device()(
        (label, hostname) in (
            prop::sample::select(vec!["fra", "ams", "on", "Odd_Name", "007", ""]),
            prop::sample::select(vec!["fra", "x\nspec: {suspend: true}\n#", "\u{2028}a\u{85}b", ""]),
        ),
        tags in subsequence(vec!["tag:a", "tag:b", "tag:c", "tag:0?"], 0..=4),
        (authorized, external, key_expiry_disabled) in (any::<bool>(), prop::bool::weighted(0.1), any::<bool>()),
        (user, os, ephemeral) in (
            prop::sample::select(vec!["amelie@example.com", "ben@example.com", ""]),
            prop::sample::select(vec!["linux", "macOS"]),
            prop::bool::weighted(0.1),
        ),
        unreadable in prop_oneof![
            9 => Just(Vec::new()),
            1 => subsequence(vec![
                DeviceField::Name, DeviceField::Tags, DeviceField::User, DeviceField::Os, DeviceField::IsExternal,
                DeviceField::KeyExpiryDisabled, DeviceField::IsEphemeral,
            ], 0..=3),
        ],
        (enabled_routes, advertised_routes) in (routes(), routes()),
        ipv4 in option::of(prop::sample::select(vec!["100.80.0.1", "100.80.0.2", "100.100.100.100", "10.0.0.1"])),
        expires in option::of(-1..2_i64),
        attributes in attributes(),
    ) -> (Device, Attributes) {
        let device = Device {
            node_id: "n0CNTRL".parse().unwrap(),
            legacy_id: String::new(),
            name: format!("{label}.tail1.ts.net"),
            hostname: hostname.to_owned(),
            user: user.to_owned(),
            tags: tags.into_iter().map(|tag| Tag::reported(tag.to_owned())).collect(),
            ipv4: ipv4.map(|addr| addr.parse().unwrap()),
            os: os.to_owned(),
            client_version: String::new(),
            update_available: false,
            ephemeral,
            created: None,
            authorized,
            external,
            lock_error: String::new(),
            unreadable: unreadable.into_iter().collect(),
            key_expiry_disabled,
            expires: expires.map(|hours| now() + SignedDuration::from_hours(hours)),
            connected: None,
            last_seen: None,
            enabled_routes,
            advertised_routes,
        };
        (device, attributes)
    }
}

/// Devices, some of which equal the previous one in all but their id, as in a fleet.
fn tailnet() -> impl Strategy<Value = Tailnet> {
    tailnet_of(0..12)
}

fn tailnet_of(size: std::ops::Range<usize>) -> impl Strategy<Value = Tailnet> {
    collection::vec((device(), any::<bool>()), size).prop_map(|devices| {
        let mut tailnet: Tailnet = Vec::new();
        for (number, ((device, attributes), twin)) in devices.into_iter().enumerate() {
            let last = tailnet.last().filter(|_| twin).cloned();
            let (device, attributes) = last.unwrap_or((device, attributes));
            let node_id: NodeId = format!("n{number}CNTRL").parse().unwrap();
            // No two devices have one name or address. The dash keeps a twin, 1-0-fra, apart from 10-fra.
            let name = format!("{number}-{}", device.name);
            let ipv4 = device.ipv4.map(|addr| {
                let [a, b, c, _] = addr.octets();
                [a, b, c, u8::try_from(number).unwrap()].into()
            });
            tailnet.push((
                Device {
                    name,
                    ipv4,
                    legacy_id: number.to_string(),
                    node_id,
                    ..device
                },
                attributes,
            ));
        }
        tailnet
    })
}

fn exports() -> impl Strategy<Value = ExportArgs> {
    let all = Exported::value_variants().to_vec();
    let fields = prop_oneof![
        Just(USUAL.to_vec()),
        Just(all.clone()),
        subsequence(all, 0..=8),
    ];
    let group_by = prop::sample::select(vec![GroupBy::None, GroupBy::Tag]);
    (group_by, fields, any::<bool>())
        .prop_map(|(group_by, fields, all)| args(group_by, &fields, all))
}

/// The next day: some devices have left, others have joined or have become like others, under their own ids.
fn next_day() -> impl Strategy<Value = (Tailnet, Tailnet)> {
    let (before, others) = (tailnet_of(0..12), tailnet_of(12..13));
    let fates = collection::vec(0..3_u8, 12);
    (before, others, fates).prop_map(|(before, others, fates)| {
        let mut after = Tailnet::new();
        for (number, ((other, attributes), fate)) in others.into_iter().zip(fates).enumerate() {
            let existing = before.get(number).cloned();
            match (existing, fate) {
                // It left.
                (_, 0) => {}
                (Some(device), 1) => after.push(device),
                // It changed in everything but its id, or it joined.
                (Some(_), _) => after.push((other, attributes)),
                (None, _) => {
                    let node_id = format!("n{}CNTRL", number + 100).parse().unwrap();
                    after.push((Device { node_id, ..other }, attributes));
                }
            }
        }
        (before, after)
    })
}

fn nodes(tailnet: &Tailnet) -> BTreeSet<NodeId> {
    let devices = tailnet.iter();
    devices.map(|(device, _)| device.node_id.clone()).collect()
}

proptest! {
    #[test]
    fn an_exported_tailnet_is_in_sync(
        tailnet in tailnet(),
        args in exports(),
        later in 0..3_i64,
    ) {
        let policies = exported(&args, &tailnet, &Selector::default());
        for policy in &policies {
            prop_assert!(policy.policy.is_ok(), "{policy:?}");
        }
        let then = now() + SignedDuration::from_secs(later);
        let plan = plan_for(&policies, &tailnet, then);
        for (policy, binding) in &plan.bindings {
            prop_assert!(binding.nodes().next().is_some(), "{policy} targets no device: {binding:?}");
        }
        for plan in plan.devices.values() {
            prop_assert!(plan.in_sync(), "{plan:#?}");
            prop_assert!(plan.owners.conflicts.is_empty(), "{plan:#?}");
        }
    }

    #[test]
    fn an_export_of_selected_devices_is_in_sync_and_targets_no_other_device(
        tailnet in tailnet(),
        args in exports(),
        chosen in subsequence((0..8).collect::<Vec<_>>(), 1..=8),
    ) {
        // By nodeId: devices that share all tags still differ in it.
        let one = |number: &i32| format!("device.nodeId == 'n{number}CNTRL'");
        let expression = chosen.iter().map(one).collect::<Vec<_>>().join(" || ");
        let expression = Some(expression.parse().unwrap());
        let selector = Selector { expression, ..Selector::default() };
        let policies = exported(&args, &tailnet, &selector);
        let plan = plan_for(&policies, &tailnet, now());
        let (fleet, _) = observed(&tailnet);
        for (node, plan) in &plan.devices {
            prop_assert!(plan.in_sync(), "{plan:#?}");
            prop_assert!(selector.matches(fleet.get(node).unwrap()), "{node} is not selected");
        }
    }

    /// No device joins, or takes on the tags, the user or the name of another one, and is changed by a policy that
    /// was exported before.
    #[test]
    fn an_export_changes_only_devices_that_it_describes(
        (before, after) in next_day(),
        args in exports(),
    ) {
        let policies = exported(&args, &before, &Selector::default());
        let described: BTreeSet<NodeId> = plan_for(&policies, &before, now()).devices.into_keys().collect();
        let plan = plan_for(&policies, &after, now());
        for (node, plan) in &plan.devices {
            prop_assert!(described.contains(node), "{node} is not described: {plan:#?}");
        }
        let joined: Vec<_> = nodes(&after).difference(&nodes(&before)).cloned().collect();
        prop_assert!(joined.iter().all(|node| !plan.devices.contains_key(node)));
    }

    /// However a device changes, sharing a policy makes no difference.
    #[test]
    fn shared_policies_ask_for_the_same_changes_as_one_policy_for_each_device(
        (before, after) in next_day(),
        fields in subsequence(Exported::value_variants().to_vec(), 0..=8),
        defaults in any::<bool>(),
    ) {
        let all = Selector::default();
        let each = exported(&args(GroupBy::None, &fields, defaults), &before, &all);
        let shared = exported(&args(GroupBy::Tag, &fields, defaults), &before, &all);
        prop_assert_eq!(planned_changes(&each, &after), planned_changes(&shared, &after));
    }

    /// A review of the next export shows only the device that drifted.
    #[test]
    fn drift_of_a_device_changes_one_file(
        tailnet in tailnet_of(1..12),
        drifted in any::<prop::sample::Index>(),
        (other, attributes) in device(),
    ) {
        let args = args(GroupBy::Tag, &USUAL, false);
        let texts = |tailnet: &Tailnet| -> BTreeMap<String, String> {
            let files = files(&args, tailnet, &Selector::default());
            let text = |file: ManifestFile| (file.name.clone(), args.stream(&[file]).unwrap());
            files.into_iter().map(text).collect()
        };
        let before = texts(&tailnet);
        let mut after = tailnet.clone();
        let (device, read) = &mut after[drifted.index(tailnet.len())];
        device.key_expiry_disabled = other.key_expiry_disabled;
        device.enabled_routes = other.enabled_routes;
        *read = attributes;
        let after = texts(&after);
        let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed: Vec<_> = all.into_iter().filter(|name| before.get(*name) != after.get(*name)).collect();
        prop_assert!(changed.len() <= 1, "{changed:?}");
    }
}

fn written(object: &Value) -> String {
    text::yaml(serde_yaml::to_value(object).unwrap().as_mapping().unwrap())
}

#[test]
fn yaml_quotes_strings_that_some_parser_takes_for_another_type() {
    for text in [
        "a\u{fffe}\u{ffff}\u{7f}\u{85}",
        "y",
        "Yes",
        "on",
        "OFF",
        "null",
        "~",
        "0777",
        "1e3",
        "12:30",
        "1_000",
        ".5",
        "-",
        "",
        " a",
        "a b",
        "a: b",
        "a #b",
        "a:",
        "tag:a",
        "2027-01-01",
        "0x1f",
        "é",
    ] {
        let object = json!({ "value": text });
        let quoted = crate::cli::output::escaped(&json!(text).to_string());
        assert_eq!(written(&object), format!("value: {quoted}\n"));
        let read: Value = serde_yaml::from_str(&written(&object)).unwrap();
        assert_eq!(read, object);
    }
    let plain = json!({"spec": {
        "custom:tier": {"string": "gold"}, "list": ["fra-1", "tag:a", 1, true], "none": [],
    }});
    let expected =
        "spec:\n  custom:tier: {string: gold}\n  list: [fra-1, \"tag:a\", 1, true]\n  none: []\n";
    assert_eq!(written(&plain), expected);
    assert_eq!(serde_yaml::from_str::<Value>(expected).unwrap(), plain);
}
