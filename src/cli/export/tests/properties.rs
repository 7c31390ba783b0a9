//! Properties of every export, for random tailnets.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum as _;
use jiff::{SignedDuration, Timestamp};
use proptest::{collection, option, prelude::*, sample::subsequence};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::super::{ConnectionArgs, ExportArgs, Exported, GroupBy, SelectArgs, USUAL, text};
use crate::{
    api::TailscaleDevicePolicy,
    convert,
    model::{AttributeKey, Attributes, Device, NodeId, ReportedAttribute, Route, Tag},
    plan::{Admission, DeviceIndex, PolicyInput, PolicyKey, Selector, TailnetPlan, plan_tailnet},
};

type Tailnet = Vec<(Device, Attributes)>;

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn args(group_by: Option<GroupBy>, fields: &[Exported]) -> ExportArgs {
    ExportArgs {
        out: None,
        force: false,
        group_by,
        fields: fields.to_vec(),
        without_attributes: false,
        namespace: Some("network".to_owned()),
        tailnet_ref: None,
        select: SelectArgs::default(),
        connection: ConnectionArgs::default(),
    }
}

/// The policies of an export, parsed as from a cluster or a folder.
fn exported(args: &ExportArgs, tailnet: &Tailnet, selector: &Selector) -> Vec<PolicyInput> {
    let (fleet, attributes) = observed(tailnet);
    let manifests = args.manifests(&fleet, &attributes, selector, now());
    let mut policies = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&args.stream(&manifests).unwrap()) {
        // A stream of nothing but the header is one empty document.
        let policy = Option::<TailscaleDevicePolicy>::deserialize(document).unwrap();
        let Some(policy) = policy else { continue };
        let key = PolicyKey {
            namespace: policy.metadata.namespace.unwrap(),
            name: policy.metadata.name.unwrap(),
        };
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

/// The same tailnet after someone has changed each setting that can be changed.
fn changed(tailnet: &Tailnet) -> Tailnet {
    let changed = tailnet.iter().map(|(device, _)| {
        let mut device = device.clone();
        if !device.tags.is_empty() {
            // Shared policies select by tags, so that no tag may go.
            device.tags.insert(Tag::reported("tag:other".to_owned()));
        }
        device.key_expiry_disabled = !device.key_expiry_disabled;
        device.authorized = !device.authorized;
        device.enabled_routes = Some(["10.99.0.0/16".parse().unwrap()].into());
        device.name = format!("other-{}", device.node_id);
        device.ipv4 = None;
        (device, Attributes::new())
    });
    changed.collect()
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
            user: "amelie@example.com".to_owned(),
            tags: tags.into_iter().map(|tag| Tag::reported(tag.to_owned())).collect(),
            ipv4: ipv4.map(|addr| addr.parse().unwrap()),
            os: "linux".to_owned(),
            client_version: String::new(),
            update_available: false,
            ephemeral: false,
            created: None,
            authorized,
            external,
            lock_error: String::new(),
            unreadable: crate::model::UnreadableFields::default(),
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
    collection::vec((device(), any::<bool>()), 0..8).prop_map(|devices| {
        let mut tailnet: Tailnet = Vec::new();
        for (number, ((device, attributes), twin)) in devices.into_iter().enumerate() {
            let last = tailnet.last().filter(|_| twin).cloned();
            let (device, attributes) = last.unwrap_or((device, attributes));
            let node_id: NodeId = format!("n{number}CNTRL").parse().unwrap();
            // No two devices have one name or address.
            let name = format!("{number}{}", device.name);
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
    let group_by = prop_oneof![Just(None), Just(Some(GroupBy::Tag))];
    (group_by, fields).prop_map(|(group_by, fields)| args(group_by, &fields))
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

    #[test]
    fn shared_policies_ask_for_the_same_changes_as_one_policy_for_each_device(
        tailnet in tailnet(),
        fields in subsequence(Exported::value_variants().to_vec(), 0..=8),
    ) {
        let all = Selector::default();
        let each = exported(&args(None, &fields), &tailnet, &all);
        let shared = exported(&args(Some(GroupBy::Tag), &fields), &tailnet, &all);
        let changed = changed(&tailnet);
        prop_assert_eq!(planned_changes(&each, &changed), planned_changes(&shared, &changed));
    }
}

fn written(object: &Value) -> String {
    text::yaml(serde_yaml::to_value(object).unwrap().as_mapping().unwrap())
}

#[test]
fn yaml_quotes_strings_that_some_parser_takes_for_another_type() {
    for text in [
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
        assert_eq!(written(&object), format!("value: {}\n", json!(text)));
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
