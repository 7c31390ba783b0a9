//! The readable part of an invalid spec.

use jiff::Timestamp;

use crate::{
    api::{TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus},
    convert::readable_policy,
    model::{Device, PolicyField, TagSet},
    plan::{DeviceTarget, Identity, Mode, Policy, PolicyKey, StatusState, Target, tests::scenes},
};

fn readable(yaml: &str, node: Option<&str>, unread: &[&str]) -> Option<Policy> {
    let spec: TailscaleDevicePolicySpec = serde_yaml::from_str(yaml).unwrap();
    let status = node.map(|node| TailscaleDevicePolicyStatus {
        node_id: Some(node.to_owned()),
        node_owner: Some("tagged".to_owned()),
        bound_as: Some("hostname fra".to_owned()),
        ..TailscaleDevicePolicyStatus::default()
    });
    let key = PolicyKey::new("network", "a");
    let unread: Vec<String> = unread.iter().map(ToString::to_string).collect();
    let (uid, created) = (String::new(), Timestamp::UNIX_EPOCH);
    let declared = readable_policy(key, uid, 1, created, &spec, status.as_ref(), &unread);
    assert!(declared.policy.is_err());
    let StatusState { readable, .. } = declared.status_state;
    readable.map(|policy| Policy::clone(&policy))
}

#[test]
fn unreadable_field_stays_as_it_is_and_others_keep_their_precedence() {
    let yaml = "{device: {hostname: fra}, tags: [nonsense], exitNode: true}";
    let policy = readable(yaml, None, &[]).unwrap();
    assert!(policy.is_invalid());
    assert_eq!(policy.desired.unreadable, [PolicyField::Tags].into());
    let device = Device {
        tags: ["tag:a".parse().unwrap()].into(),
        ..scenes::plain_device()
    };
    let policy = policy.with_observed(&device, None);
    assert_eq!(policy.desired.tags, Some(device.tags));
    assert_eq!(policy.desired.exit_node, Some(true));
}

#[test]
fn unreadable_device_is_the_recorded_one_or_none() {
    let yaml = "{device: {hostname: fra, nodeId: n1CNTRL}, exitNode: true}";
    assert_eq!(readable(yaml, None, &[]), None);
    let policy = readable(yaml, Some("n7CNTRL"), &[]).unwrap();
    let expected = Target::Device(DeviceTarget {
        identity: Identity::NodeId("n7CNTRL".parse().unwrap()),
        tags: TagSet::new(),
        users: Vec::new(),
    });
    assert_eq!(policy.target, expected);
}

#[test]
fn selector_with_an_unreadable_part_counts_with_its_other_parts() {
    let yaml = "{deviceSelector: {tags: ['tag:a'], expression: 'device.'}, exitNode: true}";
    let policy = readable(yaml, None, &[]).unwrap();
    let Target::Selector(selector) = policy.target else {
        panic!("{policy:?}");
    };
    assert_eq!(selector.tags, ["tag:a".parse().unwrap()].into());
    let yaml = "{deviceSelector: {trustClaims: true, expression: 'device.'}, exitNode: true}";
    assert_eq!(readable(yaml, None, &[]), None);
}

#[test]
fn unknown_enforcement_sends_nothing_and_keeps_its_precedence() {
    let yaml = "{device: {hostname: fra}, exitNode: true}";
    let policy = readable(yaml, None, &["enforcement"]).unwrap();
    assert!(policy.is_invalid() && policy.desired.unreadable.is_empty());
    let yaml = "{device: {hostname: fra}, exitNode: true, enforcement: Observe}";
    let policy = readable(yaml, None, &["priority"]).unwrap();
    assert_eq!(policy.mode, Mode::Observe);
}

#[test]
fn unreadable_setting_that_a_device_lacks_is_not_declared_there() {
    let yaml = "{deviceSelector: {tags: ['tag:a']}, ipv4: 100.80.0.1}";
    let policy = readable(yaml, None, &[]).unwrap();
    let policy = policy.with_observed(&scenes::plain_device(), None);
    assert_eq!(policy.desired.ipv4(), None);
}
