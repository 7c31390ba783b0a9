//! Policies that the devices of [`super::api`] satisfy already.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};
use tsdp::{convert, plan::PolicyInput, plan::PolicyKey};

/// A policy for each of the devices.
pub fn singles(many: usize) -> Vec<PolicyInput> {
    let spec = |number: usize| {
        json!({
            "device": {"nodeId": format!("n{number}CNTRL")},
            "keyExpiry": "Disabled",
            "tags": ["tag:server", format!("tag:site-{}", number % 100)],
        })
    };
    (0..many).map(|it| policy(it, spec(it))).collect()
}

/// A hundred policies, one for each site.
pub fn fleets() -> Vec<PolicyInput> {
    let spec = |site: usize| {
        json!({
            "selector": {"tags": [format!("tag:site-{site}")]},
            "keyExpiry": "Disabled",
            "tags": ["tag:server", format!("tag:site-{site}")],
        })
    };
    (0..100).map(|it| policy(it, spec(it))).collect()
}

fn policy(number: usize, spec: Value) -> PolicyInput {
    let key = PolicyKey::new("network", format!("policy-{number}"));
    let spec = serde_json::from_value(spec).unwrap();
    convert::policy(
        key,
        format!("uid-{number}"),
        1,
        Timestamp::UNIX_EPOCH,
        &spec,
        None,
    )
}

/// The manifests of single policies, in one file.
pub fn manifests(many: usize) -> String {
    let mut text = String::new();
    for number in 0..many {
        let site = number % 100;
        write!(
            text,
            "---\napiVersion: tailnet.dev/v1alpha1\nkind: TailscaleDevicePolicy\nmetadata:\n  name: server-{number}\n  \
             namespace: network\nspec:\n  device:\n    nodeId: n{number}CNTRL\n  keyExpiry: Disabled\n  tags:\n    - \
             tag:server\n    - tag:site-{site}\n"
        )
        .unwrap();
    }
    text
}
