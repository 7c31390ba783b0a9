//! Which device a policy targets, and which values are equal.

use jiff::Timestamp;

use crate::plan::{
    AllowedRules, Approvals, Binding, Bound, DeviceIndex, DeviceTarget, Identity, Owner,
    PolicyRecord, Target, bind, successor,
};
use crate::{
    convert::fixtures,
    model::{
        AttributeValue, DesiredAttribute, Device, NodeId, ReportedAttribute, RouteSet, TagSet,
    },
};

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

/// A device with the name `fra`, this id, this user, and these tags.
fn device(node: &str, user: &str, tags: &[&str]) -> Device {
    Device {
        legacy_id: format!("1{node}"),
        name: "fra.tail1.ts.net".to_owned(),
        hostname: "Fra".to_owned(),
        user: user.to_owned(),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        os: "linux".to_owned(),
        client_version: "1.96.2".to_owned(),
        ..Device::plain(id(node))
    }
}

fn hostname(name: &str) -> DeviceTarget {
    DeviceTarget {
        identity: Identity::Hostname(name.to_owned()),
        tags: TagSet::new(),
        users: Vec::new(),
    }
}

fn bound(node: &str, owner: &str, named: &str) -> PolicyRecord {
    let bound = Bound {
        node: id(node),
        owner: owner.parse().unwrap(),
        named: named.to_owned(),
    };
    PolicyRecord {
        bound: Some(bound),
        ..PolicyRecord::default()
    }
}

const AMELIE: &str = "amelie@example.com";
const BERT: &str = "bert@example.com";
const FRA: &str = "hostname fra";

fn found(target: &DeviceTarget, record: &PolicyRecord, devices: &[Device]) -> Binding {
    bind(
        &Target::Device(target.clone()),
        record,
        &Approvals::default(),
        &DeviceIndex::new(devices.to_vec()),
    )
}

#[test]
fn bound_device_stays_bound_when_another_takes_its_name() {
    let mut renamed = device("n1", AMELIE, &[]);
    "other".clone_into(&mut renamed.hostname);
    let devices = [renamed, device("n2", AMELIE, &[])];
    let record = bound("n1", AMELIE, FRA);
    assert_eq!(
        found(&hostname("fra"), &record, &devices),
        Binding::Device(id("n1"))
    );
    // A manifest that names another device releases it.
    let record = bound("n1", AMELIE, "hostname former");
    assert_eq!(
        found(&hostname("fra"), &record, &devices),
        Binding::Device(id("n2"))
    );
}

#[test]
fn another_device_of_the_name_is_followed_only_if_the_owner_is_the_same() {
    let follows = [
        (AMELIE, device("n2", AMELIE, &[]), true),
        (AMELIE, device("n2", BERT, &[]), false),
        (AMELIE, device("n2", AMELIE, &["tag:a"]), false),
        ("tagged", device("n2", BERT, &["tag:b"]), true),
        ("tagged", device("n2", AMELIE, &[]), false),
    ];
    for (owner, device, followed) in follows {
        let found_owner = Owner::of(&device);
        let binding = found(&hostname("fra"), &bound("n1", owner, FRA), &[device]);
        let expected = if followed {
            Binding::Device(id("n2"))
        } else {
            Binding::IdentityChanged {
                bound: id("n1"),
                owner: owner.parse().unwrap(),
                found: id("n2"),
                found_owner,
            }
        };
        assert_eq!(binding, expected, "bound to one of {owner}");
    }
}

/// The binding of a policy whose annotation approves these devices.
fn found_with(approved: &[&str], record: &PolicyRecord, devices: &[Device]) -> Binding {
    let approved: Vec<String> = approved.iter().map(|id| format!("node:{id}")).collect();
    bind(
        &Target::Device(hostname("fra")),
        record,
        &Approvals::parse(Some(&approved.join(", "))),
        &DeviceIndex::new(devices.to_vec()),
    )
}

#[test]
fn approved_device_is_followed_if_it_has_the_name_and_the_bound_one_is_gone() {
    let (mine, yours) = (device("n1", AMELIE, &[]), device("n2", BERT, &[]));
    let mut renamed = device("n3", BERT, &[]);
    "other".clone_into(&mut renamed.hostname);
    let record = bound("n1", AMELIE, FRA);
    let is = |node: &str| Binding::Device(id(node));
    // A device of another owner has the name, and is approved.
    let gone = [yours.clone(), renamed.clone()];
    assert_eq!(found_with(&["n2"], &record, &gone), is("n2"));
    for others in [&[][..], &["n3"], &["n9"]] {
        let binding = found_with(others, &record, &gone);
        assert!(
            matches!(binding, Binding::IdentityChanged { .. }),
            "{others:?}"
        );
    }
    // Of two devices of the name, the approved one is followed; of two approved ones, neither.
    let both = [mine.clone(), yours.clone()];
    assert_eq!(
        found_with(&["n2"], &PolicyRecord::default(), &both),
        is("n2")
    );
    let neither = found_with(&["n1", "n2"], &PolicyRecord::default(), &both);
    assert_eq!(neither, Binding::Ambiguous(vec![id("n1"), id("n2")]));
    // The bound device is listed: an approval does not unbind it.
    assert_eq!(found_with(&["n2"], &record, &both), is("n1"));
    assert_eq!(found_with(&["n2"], &record, &[renamed]), Binding::NotFound);
}

/// Someone signs in again on a machine: it keeps its nodeId.
#[test]
fn a_bound_device_with_another_owner_waits_for_approval_and_may_lack_the_tags_then() {
    let target = DeviceTarget {
        tags: ["tag:a".parse().unwrap()].into(),
        ..hostname("fra")
    };
    let taken_over = [device("n1", BERT, &[])];
    for owner in ["tagged", AMELIE] {
        let record = bound("n1", owner, FRA);
        let expected = Binding::IdentityChanged {
            bound: id("n1"),
            owner: owner.parse().unwrap(),
            found: id("n1"),
            found_owner: BERT.parse().unwrap(),
        };
        assert_eq!(found(&target, &record, &taken_over), expected, "{owner}");
        // The policy can give the tags back.
        let approved = bind(
            &Target::Device(target.clone()),
            &record,
            &Approvals::parse(Some("node:n1")),
            &DeviceIndex::new(taken_over.to_vec()),
        );
        assert_eq!(approved, Binding::Device(id("n1")));
    }
    // An admin or the policy has tagged the device.
    let tagged = [device("n1", AMELIE, &["tag:a"])];
    let binding = found(&target, &bound("n1", AMELIE, FRA), &tagged);
    assert_eq!(binding, Binding::Device(id("n1")));
    let by_id = DeviceTarget {
        identity: Identity::NodeId(id("n1")),
        ..hostname("fra")
    };
    let binding = found(&by_id, &bound("n1", AMELIE, "nodeId n1"), &taken_over);
    assert_eq!(binding, Binding::Device(id("n1")));
}

#[test]
fn the_successor_of_an_offline_device_is_connected_and_meets_the_target() {
    let online = |node, user, tags: &[&str], connected| Device {
        connected: Some(connected),
        ..device(node, user, tags)
    };
    let target = DeviceTarget {
        users: vec![AMELIE.to_owned()],
        ..hostname("fra")
    };
    let next = |old: &Device, other: Device| {
        let index = DeviceIndex::new([old.clone(), other]);
        let next = successor(&target, old, &AllowedRules::default(), &index);
        next.map(|device| device.node_id.to_string())
    };
    let old = online("n1", AMELIE, &[], false);
    let new = || online("n2", AMELIE, &[], true);
    assert_eq!(next(&old, new()).as_deref(), Some("n2"));
    assert_eq!(next(&online("n1", AMELIE, &[], true), new()), None);
    assert_eq!(next(&device("n1", AMELIE, &[]), new()), None);
    assert_eq!(next(&old, online("n2", AMELIE, &[], false)), None);
    assert_eq!(next(&old, online("n2", BERT, &[], true)), None);
    let mut other_name = new();
    "ber".clone_into(&mut other_name.hostname);
    assert_eq!(next(&old, other_name), None);
    let external = Device {
        external: true,
        ..new()
    };
    assert_eq!(next(&old, external), None);
}

#[test]
fn an_approved_successor_is_bound_although_the_former_device_is_listed() {
    let old = Device {
        connected: Some(false),
        ..device("n1", AMELIE, &[])
    };
    let new = Device {
        connected: Some(true),
        ..device("n2", AMELIE, &[])
    };
    let record = bound("n1", AMELIE, FRA);
    let both = [old, new];
    let is = |node: &str| Binding::Device(id(node));
    assert_eq!(found_with(&[], &record, &both), is("n1"));
    assert_eq!(found_with(&["n9"], &record, &both), is("n1"));
    assert_eq!(found_with(&["n2"], &record, &both), is("n2"));
}

#[test]
fn approved_device_must_meet_the_conditions_of_the_target() {
    let target = DeviceTarget {
        users: vec![AMELIE.to_owned()],
        ..hostname("fra")
    };
    let binding = bind(
        &Target::Device(target),
        &bound("n1", AMELIE, FRA),
        &Approvals::parse(Some("node:n2")),
        &DeviceIndex::new([device("n2", BERT, &[])]),
    );
    assert!(matches!(binding, Binding::Unmet { .. }), "{binding:?}");
}

#[test]
fn two_devices_of_a_name_are_ambiguous_and_none_is_not_found() {
    let target = hostname("fra");
    let both = [device("n1", AMELIE, &[]), device("n2", AMELIE, &[])];
    let ambiguous = Binding::Ambiguous(vec![id("n1"), id("n2")]);
    assert_eq!(found(&target, &PolicyRecord::default(), &both), ambiguous);
    assert_eq!(found(&target, &bound("n9", AMELIE, FRA), &both), ambiguous);
    assert_eq!(
        found(&target, &PolicyRecord::default(), &[]),
        Binding::NotFound
    );
}

#[test]
fn bound_device_must_have_the_tags_and_users_of_the_target() {
    let cases = [
        (
            vec!["tag:a"],
            vec![],
            device("n1", AMELIE, &["tag:a", "tag:b"]),
            true,
        ),
        (
            vec!["tag:a"],
            vec![],
            device("n1", AMELIE, &["tag:b"]),
            false,
        ),
        (vec![], vec![BERT, AMELIE], device("n1", AMELIE, &[]), true),
        (vec![], vec![BERT], device("n1", AMELIE, &[]), false),
        // A tagged device has no user.
        (
            vec![],
            vec![AMELIE],
            device("n1", AMELIE, &["tag:a"]),
            false,
        ),
    ];
    for (tags, users, device, meets) in cases {
        let target = DeviceTarget {
            tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
            users: users.iter().map(ToString::to_string).collect(),
            ..hostname("fra")
        };
        let owner = Owner::of(&device).to_string();
        for record in [PolicyRecord::default(), bound("n1", &owner, FRA)] {
            let binding = found(&target, &record, std::slice::from_ref(&device));
            assert_eq!(
                binding.nodes().next().is_some(),
                meets,
                "{target:?} {binding:?}"
            );
        }
    }
}

#[test]
fn external_devices_never_match_and_do_not_stay_bound() {
    let mut external = device("n1", AMELIE, &[]);
    external.external = true;
    let devices = [external];
    for identity in [
        Identity::NodeId(id("n1")),
        Identity::LegacyId("1n1".to_owned()),
        Identity::Name("fra".to_owned()),
        Identity::Hostname("fra".to_owned()),
    ] {
        let named = identity.to_string();
        let target = DeviceTarget {
            identity,
            ..hostname("")
        };
        for record in [PolicyRecord::default(), bound("n1", AMELIE, &named)] {
            assert_eq!(
                found(&target, &record, &devices),
                Binding::NotFound,
                "{named}"
            );
        }
    }
}

#[test]
fn names_match_ignoring_case_and_with_a_domain_only_as_a_whole() {
    let devices = [device("n1", AMELIE, &[])];
    let cases = [
        ("fra", true),
        ("FRA", true),
        ("fra.tail1.ts.net", true),
        ("fra.tail1.ts.net.", true),
        ("fra.tail2.ts.net", false),
        ("fr", false),
    ];
    for (name, fits) in cases {
        let target = DeviceTarget {
            identity: Identity::Name(name.to_owned()),
            ..hostname("")
        };
        let binding = found(&target, &PolicyRecord::default(), &devices);
        assert_eq!(binding.nodes().next().is_some(), fits, "{name}");
    }
}

#[test]
fn index_finds_a_device_by_its_current_names() {
    let mut index = DeviceIndex::new([device("n1", AMELIE, &[])]);
    let mut renamed = device("n1", AMELIE, &[]);
    "new.tail1.ts.net".clone_into(&mut renamed.name);
    "new".clone_into(&mut renamed.hostname);
    renamed.ipv4 = Some([100, 80, 0, 1].into());
    index.insert(renamed);
    let names = |identity: Identity| index.find(&identity).len();
    assert_eq!(names(Identity::Hostname("fra".to_owned())), 0);
    assert_eq!(names(Identity::Name("fra".to_owned())), 0);
    assert_eq!(names(Identity::Hostname("new".to_owned())), 1);
    assert_eq!(names(Identity::Name("new".to_owned())), 1);
    assert!(index.holder_of([100, 80, 0, 1].into()).is_some());
    assert_eq!(index.own_count(), 1);
}

#[test]
fn equal_values_with_different_spellings_are_equal() {
    let routes =
        |routes: [&str; 2]| -> RouteSet { routes.map(|route| route.parse().unwrap()).into() };
    assert_eq!(
        routes(["fd00:0::/8", "10.0.0.0/8"]),
        routes(["10.0.0.0/8", "fd00::/8"])
    );
    let at = |text: &str| -> Option<Timestamp> { Some(text.parse().unwrap()) };
    let three = DesiredAttribute {
        value: AttributeValue::Integer(3.try_into().unwrap()),
        expiry: at("2027-01-01T00:00:00Z"),
    };
    let cases = [
        (
            serde_json::json!(3),
            at("2027-01-01T01:00:00.9+01:00"),
            true,
        ),
        (serde_json::json!(3.0), at("2027-01-01T00:00:00Z"), true),
        (serde_json::json!(3), at("2027-01-01T00:00:01Z"), false),
        (serde_json::json!(3), None, false),
        (serde_json::json!(3.5), at("2027-01-01T00:00:00Z"), false),
        (serde_json::json!("3"), at("2027-01-01T00:00:00Z"), false),
        (serde_json::json!(true), at("2027-01-01T00:00:00Z"), false),
    ];
    for (value, expiry, same) in cases {
        let reported = ReportedAttribute { value, expiry };
        assert_eq!(three.is_met_by(&reported), same, "{reported:?}");
    }
}

#[test]
fn selector_matches_devices_that_match_every_part() {
    let mut phone = device("n1", AMELIE, &[]);
    "iOS".clone_into(&mut phone.os);
    let mut shared = device("n4", AMELIE, &["tag:a", "tag:b"]);
    shared.external = true;
    let devices = [
        phone,
        device("n2", BERT, &["tag:a"]),
        device("n3", BERT, &["tag:a", "tag:b"]),
        shared,
    ];
    let cases = [
        (r#"{"tags": ["tag:a"]}"#, "n2 n3"),
        (r#"{"tags": ["tag:a", "tag:b"]}"#, "n3"),
        // A tagged device has no user, though the API still names who registered it.
        (r#"{"users": ["*@example.com"]}"#, "n1"),
        (r#"{"users": ["bert@*"]}"#, ""),
        (
            r#"{"hostnames": ["nas", "FR?"], "trustClaims": true}"#,
            "n1 n2 n3",
        ),
        (r#"{"hostnames": ["f"], "trustClaims": true}"#, ""),
        (r#"{"os": ["ios", "windows"], "trustClaims": true}"#, "n1"),
        (r#"{"tags": ["tag:a"], "os": ["iOS"]}"#, ""),
    ];
    for (selector, expected) in cases {
        let policy = fixtures::policy(&format!("{{deviceSelector: {selector}}}"))
            .policy
            .unwrap();
        let index = DeviceIndex::new(devices.to_vec());
        let binding = bind(
            &policy.target,
            &PolicyRecord::default(),
            &Approvals::default(),
            &index,
        );
        let nodes: Vec<_> = binding.nodes().map(ToString::to_string).collect();
        assert_eq!(nodes.join(" "), expected, "{selector}");
    }
}
