//! The status of every state as a manifest in a file: what GitOps tools are tested with.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::{T0, failure, of_policy, of_tailnet, report, states};
use crate::{
    api::{Reason, TailscaleDevicePolicyStatus, TailscaleTailnetStatus},
    generated::assert_generated_folder,
    tailnet::{Failure, Retry, TailnetReport},
};

const FOLDER: &str = "deploy/gitops/argocd/resource_customizations/tailnet.dev/_/testdata";
const GENERATION: i64 = 3;

#[test]
fn generated_statuses_are_up_to_date() {
    assert_generated_folder(FOLDER, &records());
}

/// File names and manifests.
fn records() -> BTreeMap<String, String> {
    let mut records = BTreeMap::new();
    let policies = states().into_iter().map(|(state, _)| {
        let old = TailscaleDevicePolicyStatus::default();
        policy(&json!(of_policy(&old, &report(state), "default", T0)))
    });
    let tailnets = tailnet_reports().map(|report| {
        let old = TailscaleTailnetStatus::default();
        tailnet(&json!(of_tailnet(&old, &report, GENERATION, T0)))
    });
    for object in policies.chain(tailnets) {
        let reason = object["status"]["conditions"][0]["reason"].as_str();
        let name = format!("{}-{}", short(&object), kebab(reason.unwrap()));
        insert(&mut records, &name, &object);
    }
    for (name, object) in moments() {
        insert(&mut records, name, &object);
    }
    records
}

/// What an object looks like before, between and instead of two reconciles.
fn moments() -> [(&'static str, Value); 5] {
    let report = report(states().swap_remove(0).0);
    let in_sync = of_policy(
        &TailscaleDevicePolicyStatus::default(),
        &report,
        "default",
        T0,
    );
    let mut edited = policy(&json!(in_sync));
    edited["metadata"]["generation"] = json!(GENERATION + 1);
    let mut suspended = policy(&json!(in_sync));
    suspended["spec"]["suspend"] = json!(true);
    let report = TailnetReport {
        suspended: true,
        ..tailnet_reports().next().unwrap()
    };
    let old = TailscaleTailnetStatus::default();
    let mut suspended_tailnet = tailnet(&json!(of_tailnet(&old, &report, GENERATION, T0)));
    suspended_tailnet["spec"]["suspend"] = json!(true);
    let mut without_status = policy(&Value::Null);
    without_status.as_object_mut().unwrap().remove("status");
    [
        // As the default in the CRD has it.
        ("policy-new", policy(&json!({"observedGeneration": -1}))),
        ("policy-without-status", without_status),
        ("policy-edited", edited),
        ("policy-suspended", suspended),
        ("tailnet-suspended", suspended_tailnet),
    ]
}

fn tailnet_reports() -> impl Iterator<Item = TailnetReport> {
    let report = |failure: Option<Failure>, devices| TailnetReport {
        failure,
        domain: Some("tail1234.ts.net".into()),
        devices,
        policies: 6,
        missing_scopes: BTreeSet::new(),
        attributes_interval: Duration::from_mins(10),
        ..TailnetReport::default()
    };
    [
        report(None, Some(8)),
        report(None, None),
        report(
            Some(failure(Reason::CredentialRejected, Retry::Later)),
            None,
        ),
        report(Some(failure(Reason::Invalid, Retry::Never)), None),
    ]
    .into_iter()
}

fn policy(status: &Value) -> Value {
    json!({
        "apiVersion": "tailnet.dev/v1alpha1",
        "kind": "TailscaleDevicePolicy",
        "metadata": {"name": "fra-router", "namespace": "network", "generation": GENERATION},
        "spec": {"device": {"hostname": "fra-router"}, "keyExpiry": "Disabled", "tags": ["tag:router"]},
        "status": status,
    })
}

fn tailnet(status: &Value) -> Value {
    json!({
        "apiVersion": "tailnet.dev/v1alpha1",
        "kind": "TailscaleTailnet",
        "metadata": {"name": "default", "generation": GENERATION},
        "spec": {"tailnet": "-"},
        "status": status,
    })
}

/// Two states with one reason are told apart by a number.
fn insert(records: &mut BTreeMap<String, String>, name: &str, object: &Value) {
    let mut names = (2..).map(|number| format!("{name}-{number}.yaml"));
    let mut file = format!("{name}.yaml");
    while records.contains_key(&file) {
        file = names.next().unwrap();
    }
    records.insert(file, serde_yaml::to_string(object).unwrap());
}

fn short(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap();
    let last = kind.rfind(char::is_uppercase).unwrap();
    kind[last..].to_lowercase()
}

fn kebab(reason: &str) -> String {
    let mut text = String::new();
    for letter in reason.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
