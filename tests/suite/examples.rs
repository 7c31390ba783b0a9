//! The manifests under `deploy/examples` and its folders.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::support::{Kubectl, control_plane, documents};

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
        .flat_map(|file| documents(&fs::read_to_string(file).unwrap()))
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

#[test]
fn each_example_says_first_what_it_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    for file in ["connect", "examples", "optional"]
        .iter()
        .flat_map(|folder| files(&root.join(folder)))
    {
        let text = fs::read_to_string(&file).unwrap();
        let comment: Vec<&str> = text
            .lines()
            .map_while(|line| line.strip_prefix('#'))
            .collect();
        let comment = comment.join(" ");
        assert!(
            comment.trim().len() > 20 && comment.contains('.'),
            "{}: the first lines do not say what it does",
            file.display()
        );
    }
}

/// `kubectl apply -R -f deploy/examples` in a cluster that is in use.
#[tokio::test]
async fn all_examples_can_be_applied_without_harm() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);
    let root = env!("CARGO_MANIFEST_DIR");
    kubectl
        .ok(&["apply", "--server-side", "-k", &format!("{root}/deploy")])
        .await;
    kubectl
        .wait_for("condition=Established", &["crd", "--all"])
        .await;
    let tailnet = json!({
        "apiVersion": "tailnet.dev/v1alpha1", "kind": "TailscaleTailnet",
        "metadata": {"name": "default"},
        "spec": {
            "tailnet": "T1234CNTRL",
            "apiURL": "https://api.example.com",
            "credentialsSecret": {"name": "ours"},
            "allowedPolicies": [{"namespaces": {"names": ["ours"]}}],
        },
    });
    kubectl.apply(&tailnet.to_string()).await;

    let examples = format!("{root}/deploy/examples");
    kubectl.ok(&["apply", "-R", "-f", &examples]).await;

    // The connection in use is the same.
    let found = kubectl.get(&["tstn", "default"]).await;
    assert_eq!(found["spec"], tailnet["spec"]);
    assert_eq!(found["metadata"]["generation"], 1);
    // A further one sends nothing.
    for other in kubectl.get(&["tstn"]).await["items"].as_array().unwrap() {
        let is_in_use = other["metadata"]["name"] == "default";
        assert!(is_in_use || other["spec"]["suspend"] == true, "{other}");
    }
    // Nobody loses a permission, and nobody gets one.
    let kinds: BTreeSet<String> = self::examples()
        .iter()
        .map(|example| format!("{} {}", example["apiVersion"], example["kind"]))
        .filter(|kind| !kind.contains("tailnet.dev/"))
        .collect();
    assert_eq!(kinds, BTreeSet::from([r#""v1" "Namespace""#.to_owned()]));
    kubectl
        .ok(&[
            "annotate",
            "tsdp",
            "databases",
            "-n",
            "network",
            "tailnet.dev/approve=plan:0123456789abcdef",
        ])
        .await;
    // No device is deleted because someone tries the examples.
    for example in self::examples() {
        let deletes = !example["spec"]["deleteInactive"].is_null();
        assert!(
            !deletes || example["spec"]["enforcement"] == "Observe",
            "{example}"
        );
    }
    // Not to the end: without a controller manager, a namespace is never gone.
    kubectl
        .ok(&["delete", "--wait=false", "-R", "-f", &examples])
        .await;
}
