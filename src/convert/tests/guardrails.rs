use serde_json::json;

use crate::{
    convert::{GuardrailsSource, fixtures::tailnet_spec},
    plan::Guardrails,
};

#[test]
fn invalid_guardrail_is_refused_with_its_path() {
    let spec = tailnet_spec(&json!({
        "protectedDevices": [{"tags": ["tag:a"], "expression": "device.nothing"}],
    }));
    let source = GuardrailsSource {
        spec: &spec,
        own_namespace: "",
    };
    let refused = Guardrails::try_from(source).unwrap_err().to_string();
    assert!(
        refused.starts_with("spec.protectedDevices[0]: "),
        "{refused}"
    );
}
