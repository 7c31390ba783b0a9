use serde::Deserialize as _;
use serde_json::Value;

/// The documents of a text in YAML, without empty ones.
pub fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}
