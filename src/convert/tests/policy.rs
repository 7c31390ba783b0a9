//! The errors of a manifest.

use crate::{
    convert::fixtures::policy,
    plan::{DesiredSettings, Identity, Target},
};

#[test]
fn all_errors_of_a_manifest_are_reported_with_their_paths() {
    let declared = policy(
        r#"
device: {hostname: fra, name: fra, tags: ["router"]}
authorized: false
tags: []
enabledRoutes: ["10.0.0.1/16", "0.0.0.0/0", "10.0.0.0/8"]
name: Fra_Router
ipv4: 100.100.100.100
postureAttributes:
  "tier": {string: gold}
  "custom:a": {string: a b}
  "custom:B": {boolean: true}
  "custom:b": {boolean: true}
  "custom:c": {string: x, integer: 1}
  "custom:d": {integer: 9007199254740992}
  "custom:e": {boolean: true, expiry: tomorrow}
"#,
    );
    insta::assert_snapshot!(declared.policy.unwrap_err().join("\n"), @r"
    spec.device: write exactly one of nodeId, id, name and hostname
    spec.device.tags[0]: 'router' is not a valid tag: write it with its prefix, such as tag:router
    spec.tags: the API cannot remove the last tag of a device: remove the field, or write ownership: {tags: AtLeast}
    spec.authorized: false cuts the device off: add allowDisruption: [Deauthorize]
    spec.enabledRoutes[0]: '10.0.0.1/16' has host bits: write 10.0.0.0/16
    spec.enabledRoutes[1]: '0.0.0.0/0' is an exit-node route: write exitNode: true instead
    spec.postureAttributes[custom:a].string: 'a b' is not a valid string value: write at most 50 letters, digits, _ or .
    spec.postureAttributes[custom:b]: differs from custom:B only in case: keep one of the two
    spec.postureAttributes[custom:c]: write exactly one of string, integer and boolean
    spec.postureAttributes[custom:d].integer: 9007199254740992 is not an integer that JSON keeps exactly: write one from -9007199254740991 to 9007199254740991
    spec.postureAttributes[custom:e].expiry: 'tomorrow' is not a valid time: write one such as 2027-01-01T00:00:00Z
    spec.postureAttributes[tier]: 'tier' is not in the namespace custom: — write it as custom:NAME
    spec.name: 'Fra_Router' would be rewritten by the server: write up to 63 lower-case letters and digits, with dashes between them, such as fra-router
    spec.ipv4: '100.100.100.100' is in 100.100.100.0/24, which Tailscale reserves: write another address
    ");
}

#[test]
fn manifest_with_one_setting_declares_nothing_else() {
    let policy = policy("{device: {nodeId: n1CNTRL}, exitNode: false}")
        .policy
        .unwrap();
    let Target::Device(target) = &policy.target else {
        panic!("{:?}", policy.target);
    };
    assert_eq!(
        target.identity,
        Identity::NodeId("n1CNTRL".parse().unwrap())
    );
    let only = DesiredSettings {
        exit_node: Some(false),
        ..DesiredSettings::default()
    };
    assert_eq!(policy.desired, only);
}

#[test]
fn unbounded_or_untrusted_selector_is_refused() {
    for (spec, error) in [
        ("{}", "write exactly one of device and deviceSelector"),
        (
            r#"{"deviceSelector": {}}"#,
            "write at least one of tags, users, hostnames, os and expression",
        ),
        (r#"{"deviceSelector": {"tags": []}}"#, "none empty"),
        (
            r#"{"deviceSelector": {"hostnames": ["fra-*"]}}"#,
            "or write trustClaims: true",
        ),
        (
            r#"{"deviceSelector": {"expression": "true"}}"#,
            "or write trustClaims: true",
        ),
        (
            r#"{"deviceSelector": {"tags": ["tag:a"], "expression": "device.os = 'x'"}}"#,
            "spec.deviceSelector.expression: line 1, column 11, at «= 'x'»:",
        ),
        (
            r#"{"deviceSelector": {"tags": ["tag:a"]}, "name": "fra"}"#,
            "spec.name: two devices cannot",
        ),
    ] {
        let errors = policy(spec).policy.unwrap_err().join("; ");
        assert!(errors.contains(error), "{spec}: {errors}");
    }
}

#[test]
fn invalid_reference_to_a_device_has_one_error_at_its_field() {
    for (device, error) in [
        ("{nodeId: n-1}", "spec.device.nodeId: 'n-1' is not a valid"),
        (
            "{hostname: fra, tags: []}",
            "spec.device.tags: write at least one",
        ),
        (
            "{hostname: fra, users: []}",
            "spec.device.users: write at least one",
        ),
    ] {
        let errors = policy(&format!("{{device: {device}, exitNode: false}}"))
            .policy
            .unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(error), "{errors:?}");
    }
}
