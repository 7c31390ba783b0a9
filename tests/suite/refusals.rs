//! What `kubectl apply` takes and refuses, by the cases in `refusals.yaml`.

use std::{collections::BTreeMap, process::Output};

use serde::Deserialize;
use serde_json::{Value, json};

/// The cases by kind.
type Corpus = BTreeMap<String, Cases>;

#[derive(Deserialize)]
struct Cases {
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
}

#[derive(Deserialize)]
struct Accepted {
    name: String,
    spec: Value,
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    spec: Value,
    /// Where the API server must point.
    field: String,
    /// A part of what it must say.
    message: String,
}

fn corpus() -> Corpus {
    serde_yaml::from_str(include_str!("refusals.yaml")).unwrap()
}

/// Sends each case to an API server on which the definitions are installed.
///
/// `apply` runs `kubectl apply --dry-run=server -f -` with the given manifest on its input.
pub fn check(apply: impl Fn(&str) -> Output) {
    let mut wrong = Vec::new();
    for (kind, cases) in corpus() {
        let said = |spec: Value| {
            let manifest = json!({
                "apiVersion": "tailnet.dev/v1alpha1",
                "kind": kind,
                "metadata": {"name": "case"},
                "spec": spec,
            });
            let output = apply(&manifest.to_string());
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() {
                Ok(())
            } else {
                Err(stderr)
            }
        };
        for case in cases.accepted {
            if let Err(stderr) = said(case.spec) {
                wrong.push(format!("{kind}, {}: refused: {stderr}", case.name));
            }
        }
        for case in cases.refused {
            let (field, message) = (&case.field, &case.message);
            match said(case.spec) {
                Ok(()) => wrong.push(format!("{kind}, {}: accepted", case.name)),
                Err(stderr) if stderr.contains(field) && stderr.contains(message) => {}
                Err(stderr) => wrong.push(format!(
                    "{kind}, {}: refused without '{field}' or '{message}': {stderr}",
                    case.name
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
