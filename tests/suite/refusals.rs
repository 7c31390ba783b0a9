//! The API server accepts and refuses the cases in `refusals.yaml`.

use std::{collections::BTreeMap, str::FromStr};

use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tsdp::{
    api::TailscaleDevicePolicySpec,
    model::{
        AttributeKey, AttributeString, DeviceLabel, NodeId, Route, SafeInteger, Tag, TailnetIpv4,
        parse_time,
    },
};

use crate::support::{Kubectl, control_plane};

/// The cases by kind.
pub type Corpus = BTreeMap<String, Cases>;

#[derive(Deserialize)]
pub struct Cases {
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
}

impl Cases {
    /// The name and the spec of each.
    pub fn specs(self) -> impl Iterator<Item = (String, Value)> {
        let accepted = self.accepted.into_iter().map(|case| (case.name, case.spec));
        let refused = self.refused.into_iter().map(|case| (case.name, case.spec));
        accepted.chain(refused)
    }
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
    /// The path in the API server's error.
    field: String,
    /// A part of the API server's error.
    message: String,
    /// Whether a single value is wrong, so that the parser of that value refuses it too.
    #[serde(default)]
    value: bool,
}

pub fn corpus() -> Corpus {
    serde_yaml::from_str(include_str!("refusals.yaml")).unwrap()
}

#[tokio::test]
async fn kubectl_apply_accepts_and_refuses_the_cases() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);
    kubectl.install_crds().await;

    // Enough concurrent checks to keep a small machine busy.
    let checks = corpus()
        .into_iter()
        .flat_map(|(kind, cases)| checks(&kind, cases));
    let faults: Vec<String> = stream::iter(checks.map(|check| check.fault(&kubectl)))
        .buffer_unordered(4)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A case as sent to the API server.
struct Check {
    /// The kind and the case.
    name: String,
    manifest: Value,
    /// The path and a part of the API server's error. `None`: it must accept the case.
    refusal: Option<(String, String)>,
}

fn checks(kind: &str, cases: Cases) -> Vec<Check> {
    let check = |name: &str, spec: Value, refusal| Check {
        name: format!("{kind}, {name}"),
        manifest: json!({
            "apiVersion": "tailnet.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": "case"},
            "spec": spec,
        }),
        refusal,
    };
    let accepted = cases
        .accepted
        .into_iter()
        .map(|case| check(&case.name, case.spec, None));
    let refused = cases
        .refused
        .into_iter()
        .map(|case| check(&case.name, case.spec, Some((case.field, case.message))));
    accepted.chain(refused).collect()
}

impl Check {
    /// The deviation of the API server from the case, if any.
    async fn fault(self, kubectl: &Kubectl) -> Option<String> {
        let args = ["apply", "--dry-run=server", "-f", "-"];
        let output = kubectl.run(&args, &self.manifest.to_string()).await;
        let error = String::from_utf8_lossy(&output.stderr);
        let name = self.name;
        match (output.status.success(), self.refusal) {
            (true, None) => None,
            (true, Some(_)) => Some(format!("{name}: accepted")),
            (false, None) => Some(format!("{name}: refused: {error}")),
            (false, Some((field, message))) => {
                let as_expected = error.contains(&field) && error.contains(&message);
                (!as_expected)
                    .then(|| format!("{name}: refused without '{field}' or '{message}': {error}"))
            }
        }
    }
}

/// Whether the parsers of the crate refuse a value of the policy. They replace the rules where there is no
/// API server.
fn parsers_refuse(spec: &TailscaleDevicePolicySpec) -> bool {
    fn refuses<T: FromStr>(texts: impl IntoIterator<Item = impl AsRef<str>>) -> bool {
        texts
            .into_iter()
            .any(|text| text.as_ref().parse::<T>().is_err())
    }
    let attributes = || spec.posture_attributes.iter().flatten();
    let integers = attributes().filter_map(|(_, attribute)| attribute.integer);
    let expiries = attributes().filter_map(|(_, attribute)| attribute.expiry.as_ref());
    let mut times = spec.expire_key_at.iter().chain(expiries);
    let device = spec.device.iter();
    let selected = spec.device_selector.iter();
    refuses::<NodeId>(device.clone().filter_map(|device| device.node_id.as_ref()))
        || refuses::<Tag>(device.filter_map(|device| device.tags.as_ref()).flatten())
        || refuses::<Tag>(selected.filter_map(|all| all.tags.as_ref()).flatten())
        || refuses::<Tag>(spec.tags.iter().flatten())
        || refuses::<Route>(spec.enabled_routes.iter().flatten())
        || refuses::<DeviceLabel>(&spec.name)
        || refuses::<TailnetIpv4>(&spec.ipv4)
        || refuses::<AttributeKey>(attributes().map(|(key, _)| key))
        || refuses::<AttributeString>(attributes().filter_map(|(_, a)| a.string.as_ref()))
        || times.any(|time| parse_time(time).is_err())
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
