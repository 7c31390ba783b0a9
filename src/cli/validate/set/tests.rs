use std::sync::Arc;

use super::*;
use crate::cli::manifests::{Source, read_sources};

/// The messages for policies, given as names and specs, one for each line of a file.
fn messages(specs: &[(&str, &str)]) -> Vec<String> {
    let documents = specs.iter().map(|(name, spec)| {
        format!(
            "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, metadata: {{name: {name}}}, \
             spec: {{{spec}}}}}\n"
        )
    });
    diagnostics(&documents.collect::<Vec<_>>().join("---\n"))
}

fn diagnostics(text: &str) -> Vec<String> {
    let source = Arc::new(Source::new("a.yaml", text));
    let (manifests, diagnostics) = read_sources(&[source], "default", Vec::new());
    assert_eq!(diagnostics, []);
    of(&manifests)
}

/// The same, of manifests that also have this number of errors within objects.
fn beside(errors: usize, text: &str) -> Vec<String> {
    let source = Arc::new(Source::new("a.yaml", text));
    let (manifests, diagnostics) = read_sources(&[source], "default", Vec::new());
    assert_eq!(diagnostics.len(), errors, "{diagnostics:?}");
    of(&manifests)
}

fn of(manifests: &Manifests) -> Vec<String> {
    let diagnostics = check(manifests, "tsdp-system", Timestamp::UNIX_EPOCH);
    let message = |diagnostic: &Diagnostic| format!("{:?} {diagnostic}", diagnostic.severity);
    diagnostics.iter().map(message).collect()
}

#[test]
fn policies_that_declare_different_values_for_one_device_conflict() {
    let message = messages(&[
        (
            "a",
            "device: {hostname: router}, tags: ['tag:a'], keyExpiry: Enabled",
        ),
        (
            "b",
            "device: {hostname: ROUTER}, tags: ['tag:b'], keyExpiry: Enabled, exitNode: true",
        ),
    ]);
    let diagnostic = "Error a.yaml:3:121: spec.tags: default/a declares another value for the same device. Declare \
                 the same in both, or leave tags out of one; until then, the older policy takes precedence";
    assert_eq!(message, [diagnostic]);
}

#[test]
fn a_conflict_by_priority_or_selector_is_a_warning() {
    for (first, second, words) in [
        (
            "device: {name: r}, name: one, priority: 5",
            "device: {name: r.tail1.ts.net}, name: two",
            "default/a takes precedence by its priority, 5",
        ),
        (
            "deviceSelector: {tags: ['tag:a']}, exitNode: true",
            "deviceSelector: {tags: ['tag:a', 'tag:b'], hostnames: ['fra-*']}, exitNode: false",
            "for devices that both select",
        ),
        (
            "deviceSelector: {users: ['*@example.com'], os: [linux]}, exitNode: true",
            "device: {hostname: a, users: [amelie@example.com]}, exitNode: false",
            "",
        ),
    ] {
        let message = messages(&[("a", first), ("b", second)]);
        match words {
            "" => assert_eq!(message, [""; 0]),
            words => assert!(
                message[0].starts_with("Warning") && message[0].contains(words),
                "{message:?}"
            ),
        }
    }
}

#[test]
fn a_value_that_is_unique_in_the_tailnet_is_declared_once() {
    for (first, second, severity, diagnostic) in [
        (
            "device: {hostname: a}, ipv4: 100.80.0.1",
            "device: {hostname: b}, ipv4: 100.80.0.1",
            "Error",
            "spec.ipv4: default/a declares the same value for another device",
        ),
        (
            "device: {hostname: a}, ipv4: 100.80.0.1",
            "device: {id: '1'}, ipv4: 100.80.0.1",
            "Warning",
            "spec.ipv4: default/a declares the same value for another device",
        ),
        (
            "device: {hostname: a}, name: one",
            "device: {hostname: b}, name: one",
            "Error",
            "spec.name: default/a declares the same value for another device",
        ),
        (
            "device: {hostname: a}, postureAttributes: {custom:a: {integer: 1}}",
            "device: {hostname: b}, postureAttributes: {custom:a: {string: x}}",
            "Error",
            "spec.postureAttributes[custom:a]: default/a declares custom:a as",
        ),
        (
            "deviceSelector: {tags: ['tag:a'], expression: \"device.os == 'linux'\"}, \
             postureAttributes: {custom:a: {integer: 1}}",
            "deviceSelector: {tags: ['tag:b']}, postureAttributes: {custom:A: {integer: 1}}",
            "Error",
            "spec.postureAttributes[custom:A]: default/a declares custom:a as",
        ),
    ] {
        let message = messages(&[("a", first), ("b", second)]);
        assert_eq!(message.len(), 1, "{message:?}");
        let expected = message[0].starts_with(severity) && message[0].contains(diagnostic);
        assert!(expected, "{message:?}");
    }
}

#[test]
fn compatible_policies_are_not_reported() {
    for (first, second) in [
        // Different devices.
        (
            "device: {hostname: a}, exitNode: true",
            "device: {hostname: b}, exitNode: false",
        ),
        // The same value, and lists that add up.
        (
            "device: {id: '1'}, tags: ['tag:a']",
            "device: {id: '1'}, tags: ['tag:a']",
        ),
        (
            "device: {id: '1'}, tags: ['tag:a'], ownership: {tags: AtLeast}",
            "device: {id: '1'}, tags: ['tag:b'], ownership: {tags: AtLeast}",
        ),
        // One that only observes, another tailnet.
        (
            "device: {id: '1'}, exitNode: true",
            "device: {id: '1'}, exitNode: false, enforcement: Observe",
        ),
        (
            "device: {id: '1'}, exitNode: true",
            "device: {id: '1'}, exitNode: false, tailnetRef: {name: lab}",
        ),
    ] {
        assert_eq!(
            messages(&[("a", first), ("b", second)]),
            [""; 0],
            "{first}; {second}"
        );
    }
}

#[test]
fn a_missing_tailnet_is_reported_if_there_are_others() {
    let tailnet = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, metadata: {name: lab}, \
                   spec: {credentialsSecret: {name: a}}}\n";
    let policy = "{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, metadata: {name: a}, \
                  spec: {device: {id: '1'}, tailnetRef: {name: lap}}}\n";
    assert_eq!(diagnostics(policy), [""; 0]);
    assert_eq!(
        diagnostics(&format!("{tailnet}---\n{policy}")),
        [
            "Warning a.yaml:3:131: spec.tailnetRef.name: found no TailscaleTailnet lap among the \
          manifests. Add it, or name lab in tailnetRef"
        ]
    );
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleDevicePolicy, metadata: {{name: {name}}}, spec: \
         {{{spec}}}}}\n---\n"
    )
}

fn tailnet(spec: &str) -> String {
    format!(
        "{{apiVersion: tailnet.dev/v1alpha1, kind: TailscaleTailnet, metadata: {{name: default}}, spec: \
         {{credentialsSecret: {{name: a}}, {spec}}}}}\n---\n"
    )
}

#[test]
fn an_error_in_one_field_hides_no_conflict_of_another() {
    let other = policy(
        "a",
        "device: {hostname: a}, exitNode: true, tags: ['tag:b']",
    );
    for (spec, errors, conflicts) in [
        ("device: {hostname: a}, exitNode: false, tag: [a]", 1, 1),
        ("device: {hostname: a}, exitNode: false, tags: [a]", 1, 1),
        (
            "device: {hostname: a}, exitNode: false, enabledRoutes: [10.0.0.1/16]",
            1,
            1,
        ),
        (
            "device: {hostname: a}, exitNode: false, postureAttributes: {'custom:a': {string: on}}",
            1,
            1,
        ),
        (
            "device: {hostname: a}, exitNode: no, tags: ['tag:a'], name: 5",
            1,
            2,
        ),
        // Unknown devices, precedence or enforcement: nothing is certain.
        ("device: {hostname: a, node: b}, exitNode: false", 1, 0),
        (
            "device: {hostname: a}, exitNode: false, priority: high",
            1,
            0,
        ),
        (
            "device: {hostname: a}, exitNode: false, enforcement: No",
            1,
            0,
        ),
    ] {
        let found = beside(errors, &(other.clone() + &policy("b", spec)));
        assert_eq!(found.len(), conflicts, "{spec}: {found:?}");
        let both = found
            .iter()
            .all(|it| it.contains("default/a declares another value"));
        assert!(both, "{spec}: {found:?}");
    }
}

#[test]
fn an_error_in_one_field_hides_no_denial_of_another() {
    let spec = "device: {hostname: a}, exitNode: true, tags: [a]";
    let rules = "allowedPolicies: [{fields: [tags]}]";
    for (tailnet_spec, errors, denied) in [
        (rules.to_owned(), 1, true),
        (format!("{rules}, maxChangedDevices: many"), 2, true),
        // What is allowed is unknown, but not that the tailnet exists.
        ("allowedPolicies: [{fields: [tag]}]".to_owned(), 2, false),
    ] {
        let found = beside(errors, &(tailnet(&tailnet_spec) + &policy("b", spec)));
        assert_eq!(found.len(), usize::from(denied), "{found:?}");
        assert!(
            found.iter().all(|it| it.contains("spec.exitNode: ")),
            "{found:?}"
        );
    }
}
