//! The chart has the same objects as `deploy/` for kustomize.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};
use tokio::process::Command;
use tsdp::local::Binaries;

use crate::support::{Helm, documents};

/// Labels that Helm gives to its objects, and kustomize does not.
const OF_HELM: [&str; 4] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
];

/// What `kubectl apply -k` would apply for a kustomization.
async fn kustomized(kustomization: &Value) -> Vec<Value> {
    // kustomize reads resources below its own folder, or folders that are relative to it.
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
    // Cargo may build elsewhere.
    fs::create_dir_all(target).unwrap();
    let folder = tempfile::tempdir_in(target).unwrap();
    let file = folder.path().join("kustomization.yaml");
    fs::write(file, kustomization.to_string()).unwrap();
    let binaries = Binaries::find_or_build()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let output = Command::new(binaries.kubectl)
        .arg("kustomize")
        .arg(folder.path())
        .output()
        .await
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl kustomize: {error}");
    documents(&String::from_utf8(output.stdout).unwrap())
}

/// `0.0` and `0` are the same in YAML, and kustomize writes the numbers anew.
fn with_plain_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => *value = json!(number.as_f64()),
        Value::Array(items) => items.iter_mut().for_each(with_plain_numbers),
        Value::Object(entries) => entries.values_mut().for_each(with_plain_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The objects by kind and name, without what only Helm adds.
fn by_name(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let without_helm = |mut object: Value| {
        with_plain_numbers(&mut object);
        let paths = [
            "/metadata/labels",
            "/spec/selector",
            "/spec/selector/matchLabels",
            "/spec/template/metadata/labels",
        ];
        for path in paths {
            if let Some(Value::Object(labels)) = object.pointer_mut(path) {
                labels.retain(|label, _| !OF_HELM.contains(&label.as_str()));
            }
        }
        let metadata = object["metadata"].as_object_mut().unwrap();
        if metadata.get("annotations") == Some(&json!({"helm.sh/resource-policy": "keep"})) {
            metadata.remove("annotations");
        }
        // The definitions have no labels in `crds/`.
        if object["kind"] == "CustomResourceDefinition" {
            let name = json!({"app.kubernetes.io/name": "tsdp"});
            let metadata = object["metadata"].as_object_mut().unwrap();
            assert_eq!(metadata.remove("labels").unwrap_or(name.clone()), name);
        }
        let text = |pointer| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("-")
        };
        let key = [
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name"),
        ]
        .join(" ");
        (key, object)
    };
    objects.into_iter().map(without_helm).collect()
}

async fn assert_same(values: &str, kustomization: &Value) {
    let mut expected = by_name(kustomized(kustomization).await);
    // Helm has no object for its namespace: it must exist before the release, which is stored in it.
    assert!(expected.remove("Namespace - tsdp-system").is_some());
    let found = by_name(Helm::new().objects(values).await);
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, object) in &expected {
        let (found, expected) = (&found[name], object);
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test]
async fn chart_and_kustomization_have_the_same_objects() {
    assert_same("", &json!({"resources": ["../../deploy"]})).await;
}

#[tokio::test]
async fn chart_and_kustomization_have_the_same_objects_with_monitoring() {
    let values = "{monitoring: {serviceMonitor: {enabled: true}, rules: {enabled: true}, \
                  dashboard: {enabled: true}}}";
    let folders = json!({"resources": ["../../deploy", "../../deploy/monitoring"]});
    assert_same(values, &folders).await;
    let values = "{monitoring: {podMonitor: {enabled: true}}}";
    let found = by_name(Helm::new().objects(values).await);
    let name = "PodMonitor tsdp-system tsdp";
    let manifest = include_str!("../../../deploy/monitoring/podmonitor.yaml");
    assert_eq!(found[name], by_name(documents(manifest))[name]);
}

#[tokio::test]
async fn chart_and_kustomization_have_the_same_objects_with_invites() {
    let kustomization = json!({
        "resources": ["../../deploy"],
        "components": ["../../deploy/components/invites"],
    });
    assert_same("invites: {enabled: true}", &kustomization).await;
}
