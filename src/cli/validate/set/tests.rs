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
    let diagnostics = check(&manifests, "tsdp-system", Timestamp::UNIX_EPOCH);
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
