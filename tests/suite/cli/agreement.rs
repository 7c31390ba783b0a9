//! `tsdp validate` and a real API server report the same errors for the same objects.

use std::{collections::BTreeSet, path::Path};

use futures::{StreamExt as _, stream};
use kube::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tsdp;
use crate::{
    refusals::corpus,
    support::{Kubectl, control_plane},
};

/// An object and its description.
struct Case {
    name: String,
    object: Value,
}

/// A case of `structure.yaml`.
#[derive(Deserialize)]
struct Variation {
    name: String,
    kind: Option<String>,
    #[serde(default)]
    object: Map<String, Value>,
    without: Option<String>,
}

impl From<Variation> for Case {
    fn from(variation: Variation) -> Self {
        let kind = variation.kind.as_deref();
        let mut object = object(
            kind.unwrap_or("TailscaleDevicePolicy"),
            &json!({"device": {"hostname": "a"}}),
        );
        let fields = object.as_object_mut().unwrap();
        fields.extend(variation.object);
        if let Some(without) = &variation.without {
            fields.remove(without).unwrap();
        }
        let name = variation.name;
        Self { name, object }
    }
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "tailnet.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "case"},
        "spec": spec,
    })
}

/// The cases of `refusals.yaml`, and those about the structure.
fn cases() -> Vec<Case> {
    let structure: Vec<Variation> = serde_yaml::from_str(include_str!("structure.yaml")).unwrap();
    let mut cases: Vec<Case> = structure.into_iter().map(Case::from).collect();
    for (kind, of_kind) in corpus() {
        cases.extend(of_kind.specs().map(|(name, spec)| Case {
            name: format!("{kind}, {name}"),
            object: object(&kind, &spec),
        }));
    }
    cases
}

#[tokio::test]
async fn validate_and_the_api_server_refuse_the_same_fields_in_the_same_words() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);
    kubectl.install_crds().await;

    let client = control_plane.client();
    let compared = cases().into_iter().map(|case| {
        let client = client.clone();
        async move {
            let server = ask(&client, &case.object).await;
            disagreements(&server, &validated(&case.object))
                .into_iter()
                .map(|what| format!("{}: {what}", case.name))
                .collect::<Vec<_>>()
        }
    });
    let found: Vec<Vec<String>> = stream::iter(compared).buffer_unordered(4).collect().await;
    let found = found.concat();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// An error of one of the two about a field.
#[derive(Debug, Clone)]
struct FieldError {
    /// Its path, with a dot before each name.
    field: String,
    message: String,
    /// What to do, of ours. The server's is the end of the message.
    help: Option<String>,
}

/// The rules for which `validate` knows what to write better than a fixed text does.
const BETTER_HELP: [&str; 5] = [
    "has host bits",
    "is not a valid CIDR",
    "is not a valid duration",
    "is not a valid tag",
    "is outside of the namespace custom:",
];

#[derive(Debug)]
struct Answer {
    accepted: bool,
    unknown: BTreeSet<String>,
    findings: Vec<FieldError>,
    /// Whether rules were skipped because the structure was wrong.
    blocked: bool,
}

/// Sends the object to the API server as `kubectl create --dry-run=server` does.
async fn ask(client: &Client, object: &Value) -> Answer {
    let kind = object["kind"].as_str().unwrap();
    let path = match kind {
        "TailscaleTailnet" => "tailscaletailnets",
        "TailscaleDeviceInvite" => "namespaces/default/tailscaledeviceinvites",
        _ => "namespaces/default/tailscaledevicepolicies",
    };
    let uri = format!("/apis/tailnet.dev/v1alpha1/{path}?dryRun=All&fieldValidation=Strict");
    let request = http::Request::post(uri)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    let refusal = match client.request::<Value>(request).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status),
        Err(error) => panic!("{object}: {error}"),
    };
    let mut answer = Answer {
        accepted: refusal.is_none(),
        unknown: BTreeSet::new(),
        findings: Vec::new(),
        blocked: false,
    };
    let Some(status) = refusal else { return answer };
    let names = status.message.split("unknown field \"").skip(1);
    let names = names.filter_map(|rest| rest.split_once('"'));
    answer.unknown = names.map(|(name, _)| plain(name)).collect();
    for cause in status.details.iter().flat_map(|details| &details.causes) {
        if cause
            .message
            .contains("some validation rules were not checked")
        {
            answer.blocked = true;
            continue;
        }
        // Errors before the structure is known have their path only in the message.
        let field = match cause.message.rsplit_once(" in ") {
            Some((_, path)) if cause.field == "<nil>" => path,
            _ => &cause.field,
        };
        answer.findings.push(FieldError {
            field: plain(field),
            message: cause.message.clone(),
            help: None,
        });
    }
    // A decoding error of the server has no path.
    answer.blocked |= answer.findings.is_empty();
    answer
}

fn validated(object: &Value) -> Answer {
    let args = ["validate", "-o", "json", "-f", "-"];
    let output = tsdp(Path::new("."), &args, &object.to_string());
    let message: Value = serde_json::from_slice(&output.stdout).unwrap();
    let accepted = message["valid"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!accepted)));
    let mut answer = Answer {
        accepted,
        unknown: BTreeSet::new(),
        findings: Vec::new(),
        blocked: false,
    };
    let diagnostics = message["diagnostics"].as_array().unwrap();
    for fault in diagnostics.iter().filter(|it| it["severity"] == "error") {
        let field = fault["field"].as_str().unwrap_or_default();
        if fault["code"] == "unknown-field" {
            answer.unknown.insert(plain(field));
            continue;
        }
        answer.findings.push(FieldError {
            field: plain(field),
            message: fault["message"].as_str().unwrap().to_owned(),
            help: fault["help"].as_str().map(str::to_owned),
        });
    }
    answer
}

/// The API server writes some keys with a dot and others in brackets.
fn plain(field: &str) -> String {
    field.replace('[', ".").replace(']', "")
}

/// Whether our error is at the field of the server's error. For labels and annotations the server names
/// only the whole map.
fn at(ours: &FieldError, server: &FieldError) -> bool {
    let whole = ["metadata.labels", "metadata.annotations"].contains(&server.field.as_str());
    ours.field == server.field || (whole && ours.field.starts_with(&server.field))
}

fn same_words(ours: &FieldError, server: &str) -> bool {
    if BETTER_HELP.iter().any(|it| ours.message.contains(it)) {
        return server.contains(&ours.message);
    }
    let help = ours.help.as_deref().unwrap_or_default();
    let words = format!("{}: {help}", ours.message);
    match words.split_once("' differs only in case") {
        // The server names a random key of a map.
        Some((_, words)) => server.ends_with(words),
        None => server.ends_with(&words),
    }
}

fn disagreements(server: &Answer, ours: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if server.accepted != ours.accepted {
        found.push(format!("the server: {server:?}, validate: {ours:?}"));
    }
    // If there are unknown fields, the server reports nothing else.
    if !server.unknown.is_empty() {
        if server.unknown != ours.unknown {
            found.push(format!("the server: {server:?}, validate: {ours:?}"));
        }
        return found;
    }
    for finding in &server.findings {
        let mut same = ours.findings.iter().filter(|it| at(it, finding));
        // The server's own errors have other words, those of our rules the same.
        let of_a_rule = finding.message.contains("write ") || finding.message.contains("keep one");
        if !same.any(|it| !of_a_rule || same_words(it, &finding.message)) {
            found.push(format!(
                "only the server says {finding:?}, validate: {ours:?}"
            ));
        }
    }
    for finding in ours.findings.iter().filter(|_| !server.blocked) {
        let mut same = server.findings.iter();
        if !same.any(|it| at(finding, it)) {
            found.push(format!(
                "only validate says {finding:?}, the server: {server:?}"
            ));
        }
    }
    found
}
