use serde_json::{Value, json};

use crate::{
    convert::{GuardrailsSource, fixtures::tailnet_spec},
    plan::Guardrails,
};

/// Why the guardrails of a spec are refused.
fn refused(spec: &Value) -> String {
    let spec = tailnet_spec(spec);
    let source = GuardrailsSource {
        spec: &spec,
        own_namespace: "",
    };
    Guardrails::try_from(source).unwrap_err().to_string()
}

#[test]
fn invalid_guardrail_is_refused_with_its_path() {
    let protected =
        json!({"protectedDevices": [{"tags": ["tag:a"], "expression": "device.nothing"}]});
    let error = refused(&protected);
    assert!(
        error.starts_with("spec.protectedDevices[0].expression: line 1"),
        "{error}"
    );
    let allowed = json!({"allowedPolicies": [{}, {"devices": [{"hostnames": ["fra-*"]}]}]});
    let error = refused(&allowed);
    assert!(
        error.starts_with("spec.allowedPolicies[1].devices[0]: anyone who runs a machine"),
        "{error}"
    );
}

#[test]
fn guarded_devices_without_a_single_tag_are_refused() {
    let error = refused(&json!({"protectedDevices": [{"tags": []}]}));
    assert!(error.starts_with("spec.protectedDevices[0]: "), "{error}");
    assert!(error.contains("none empty"), "{error}");
}
