//! `values.schema.json` has each value of the chart, and refuses others.

use std::fs;

use serde_json::Value;

use super::generated::values_text;
use crate::support::{CHART, Helm};

/// Values that Helm itself may pass to a chart.
const OF_HELM: [&str; 2] = ["enabled", "global"];

/// Where the values and the schema have different keys.
fn differences(path: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), value.as_object())
    else {
        return;
    };
    if values.is_empty() {
        return;
    }
    if schema["additionalProperties"] != false {
        found.push(format!("{path}: the schema allows any key"));
    }
    for (key, value) in values {
        let path = format!("{path}.{key}");
        match properties.get(key) {
            None => found.push(format!("{path} is not in the schema")),
            Some(schema) => differences(&path, value, schema, found),
        }
    }
    for key in properties.keys() {
        if !values.contains_key(key) && !OF_HELM.contains(&key.as_str()) {
            found.push(format!("{path}.{key} is not in values.yaml"));
        }
    }
}

#[test]
fn the_schema_has_the_values_and_no_others() {
    let schema = fs::read_to_string(format!("{CHART}/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let values: Value = serde_yaml::from_str(&values_text()).unwrap();
    let mut found = Vec::new();
    differences("", &values, &schema, &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test]
async fn wrong_values_are_refused_with_their_path() {
    let helm = Helm::new();
    let refused = [
        ("replica: 2", "replica"),
        ("replicas: two", "/replicas"),
        ("image: {digest: latest}", "/image/digest"),
        ("webhook: {port: 70000}", "/webhook/port"),
        ("policyNamespaces: [Network]", "/policyNamespaces/0"),
        (
            "credentials: {data: {apiKey: tskey-api-x}}",
            "/credentials/data",
        ),
        (
            "credentials: {create: true}",
            "credentials.data: write api_key",
        ),
        (
            "serviceAccount: {create: false}",
            "serviceAccount.name: write the name",
        ),
    ];
    for (values, words) in refused {
        let message = helm.refused(&["template", "tsdp", CHART], values).await;
        assert!(message.contains(words), "{values}: {message}");
    }
}
