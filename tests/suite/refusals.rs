//! What `kubectl apply` takes and refuses, by the cases in `refusals.yaml`.

use std::{collections::BTreeMap, process::Output, str::FromStr};

use serde::Deserialize;
use serde_json::{Value, json};
use tsdp::{
    api::TailscaleDevicePolicySpec,
    model::{
        AttributeKey, AttributeString, DeviceLabel, NodeId, Route, SafeInteger, Tag, TailnetIpv4,
    },
};

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
    /// Whether it is a single value that is wrong, so that the parser of that value refuses it too.
    #[serde(default)]
    value: bool,
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

/// Whether the parsers of the crate refuse a value of the policy: what stands for the rules where
/// there is no API server.
fn parsers_refuse(spec: &TailscaleDevicePolicySpec) -> bool {
    fn refuses<T: FromStr>(texts: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        texts
            .into_iter()
            .any(|text| text.as_ref().parse::<T>().is_err())
    }
    let attributes = || spec.posture_attributes.iter().flatten();
    let integers = attributes().filter_map(|(_, attribute)| attribute.integer);
    refuses::<NodeId>(&spec.device.node_id)
        || refuses::<Tag>(spec.device.tags.iter().flatten())
        || refuses::<Tag>(spec.tags.iter().flatten())
        || refuses::<Route>(spec.enabled_routes.iter().flatten())
        || refuses::<DeviceLabel>(&spec.name)
        || refuses::<TailnetIpv4>(&spec.ipv4)
        || refuses::<AttributeKey>(attributes().map(|(key, _)| key))
        || refuses::<AttributeString>(attributes().filter_map(|(_, a)| a.string.as_ref()))
        || integers.map(SafeInteger::try_from).any(|it| it.is_err())
}

#[test]
fn the_parsers_refuse_the_values_that_the_api_server_refuses() {
    let cases = corpus().remove("TailscaleDevicePolicy").unwrap();
    for case in cases.accepted {
        let spec = serde_json::from_value(case.spec).unwrap();
        assert!(!parsers_refuse(&spec), "{}: refused", case.name);
    }
    for case in cases.refused.into_iter().filter(|case| case.value) {
        let spec = serde_json::from_value(case.spec).unwrap();
        assert!(parsers_refuse(&spec), "{}: accepted", case.name);
    }
}
