//! An object that this version may not be able to deserialize, such as one that a newer release
//! wrote.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value};

/// An object, or its readable part: an object that cannot be deserialized must neither stop a watch
/// nor lose its record.
///
/// kube's own type of this name retains only the metadata.
#[derive(Debug, Clone)]
pub struct DeserializeGuard<K>(pub Result<K, Unreadable>);

/// An object that this version cannot deserialize.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Why not.
    pub error: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
    spec: Map<String, Value>,
    status: Map<String, Value>,
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    // Of any type, as anything may be wrong with the object.
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl Unreadable {
    /// The readable fields of its spec, and the names of the others.
    #[must_use]
    pub fn spec<S: DeserializeOwned + Default>(&self) -> (S, Vec<String>) {
        readable(&self.spec)
    }

    /// The readable fields of its status.
    #[must_use]
    pub fn status<S: DeserializeOwned + Default>(&self) -> S {
        readable(&self.status).0
    }

    /// Whether a status has been written; the schema's default is not one.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.status
            .iter()
            .any(|(name, value)| name != "observedGeneration" || value.as_i64() != Some(-1))
    }
}

/// Each field is deserialized by itself, so that one from a newer release hides no other.
fn readable<S: DeserializeOwned + Default>(fields: &Map<String, Value>) -> (S, Vec<String>) {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    let (kept, lost): (Map<_, _>, Map<_, _>) = fields.partition(|(name, value)| {
        // Enough to deserialize, as every other field of S has a default.
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        S::deserialize(Value::Object(alone)).is_ok()
    });
    (
        S::deserialize(Value::Object(kept)).unwrap_or_default(),
        lost.into_iter().map(|(name, _)| name).collect(),
    )
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

impl<'de, K: Deserialize<'de> + Resource> Deserialize<'de> for DeserializeGuard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Buffered, as the object is read a second time if the first fails.
        let whole = serde_value::Value::deserialize(deserializer)?;
        let error = match K::deserialize(whole.clone()) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        // Metadata that cannot be deserialized is an error after all: the object has no name to report.
        let parts =
            Parts::deserialize(whole).map_err(serde_value::DeserializerError::into_error)?;
        Ok(Self(Err(Unreadable {
            error,
            metadata: parts.metadata,
            spec: fields(parts.spec),
            status: fields(parts.status),
        })))
    }
}

impl<K: Resource> Resource for DeserializeGuard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{
        TailscaleDevicePolicy, TailscaleDevicePolicySpec, TailscaleDevicePolicyStatus,
    };

    fn read(spec: &Value, status: &Value) -> DeserializeGuard<TailscaleDevicePolicy> {
        let object = json!({
            "apiVersion": "tailnet.dev/v1alpha1",
            "kind": "TailscaleDevicePolicy",
            "metadata": {"name": "a", "namespace": "network"},
            "spec": spec,
            "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_value_of_a_newer_release_hides_no_other_field() {
        let spec =
            json!({"device": {"hostname": "nas"}, "enforcement": "Simulate", "tags": ["tag:a"]});
        let status = json!({"nodeId": "n1", "ownedAttributes": ["custom:a"], "devices": 7});
        let unreadable = read(&spec, &status).0.unwrap_err();
        assert!(
            unreadable.error.contains("Simulate"),
            "{}",
            unreadable.error
        );
        assert_eq!(unreadable.metadata.name.as_deref(), Some("a"));
        let (spec, lost) = unreadable.spec::<TailscaleDevicePolicySpec>();
        assert_eq!(spec.tags, Some(vec!["tag:a".to_owned()]));
        assert_eq!(lost, ["enforcement"]);
        let status: TailscaleDevicePolicyStatus = unreadable.status();
        assert_eq!(status.node_id.as_deref(), Some("n1"));
        assert_eq!(status.owned_attributes, ["custom:a"]);
        assert!(unreadable.has_status());
    }

    #[test]
    fn default_of_the_schema_is_not_a_status() {
        let of = |status| read(&json!(7), &status).0.unwrap_err().has_status();
        assert!(!of(json!(null)) && !of(json!({"observedGeneration": -1})));
        assert!(of(json!({"observedGeneration": 1})));
    }
}
