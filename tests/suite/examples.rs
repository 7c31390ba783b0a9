//! The manifests under `deploy/examples` and its folders.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use serde_json::Value;

/// Every file in a folder and its subfolders.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    found
}

/// Every document of every file there.
fn examples() -> Vec<Value> {
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples"))
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            serde_yaml::Deserializer::from_str(&text)
                .map(|document| Value::deserialize(document).unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_examples_show_every_setting_of_every_resource() {
    let examples = examples();
    for definition in tsdp::api::schema::definitions() {
        let kind = &definition.spec.names.kind;
        let shown: BTreeSet<String> = examples
            .iter()
            .filter(|example| example["kind"] == **kind)
            .filter_map(|example| example["spec"].as_object())
            .flat_map(|spec| spec.keys().cloned())
            .collect();
        let definition = serde_json::to_value(&definition).unwrap();
        let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
        let settings = definition.pointer(schema).unwrap().as_object().unwrap();
        let missing: Vec<&String> = settings
            .keys()
            .filter(|key| !shown.contains(*key))
            .collect();
        assert!(
            missing.is_empty(),
            "{kind}: no manifest in deploy/examples shows {missing:?}"
        );
    }
}
