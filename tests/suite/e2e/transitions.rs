//! Each transition of `Ready` is one Event and one log line; what concerns the tailnet is reported on the tailnet.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Stage, eventually};

/// Type, reason and note of each Event about an object, without the Events of single changes.
async fn transitions(stage: &Stage, kind: &str, name: &str) -> Vec<[String; 3]> {
    let all = stage
        .kubectl
        .get(&["-A", "events.v1.events.k8s.io", "--sort-by=.eventTime"])
        .await;
    let events = all["items"].as_array().cloned().unwrap_or_default();
    let about = events.iter().filter(|event| {
        let regarding = &event["regarding"];
        event["action"] == "Reconcile" && regarding["kind"] == kind && regarding["name"] == name
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    about
        .map(|event| ["type", "reason", "note"].map(|field| text(&event[field])))
        .collect()
}

/// Waits until an object has had these transitions.
async fn had(stage: &Stage, kind: &str, name: &str, expected: &[(&str, &str)]) -> Vec<[String; 3]> {
    let mut seen = Vec::new();
    eventually(Duration::from_secs(20), async || {
        seen = transitions(stage, kind, name).await;
        let short = seen.iter().map(|[kind, reason, _]| (&**kind, &**reason));
        let short: Vec<_> = short.collect();
        if short == expected {
            Ok(())
        } else {
            Err(format!("{name}: {seen:#?}"))
        }
    })
    .await;
    seen
}

const POLICY: &str = "TailscaleDevicePolicy";
const TAILNET: &str = "TailscaleTailnet";

#[tokio::test]
async fn each_transition_is_one_event_and_one_log_line_with_the_same_words() {
    let stage = Stage::new().await;
    let controller = stage.controller().await;
    stage
        .policy("lost", "{device: {hostname: nowhere}, keyExpiry: Disabled}")
        .await;
    stage.policy_reason("lost", "DeviceNotFound").await;
    let seen = had(&stage, POLICY, "lost", &[("Warning", "DeviceNotFound")]).await;
    let note = &seen[0][2];
    assert!(note.contains("nowhere"), "{note}");
    controller.logs(note).await;
    let log = controller.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(note)).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("WARN"), "{}", lines[0]);

    stage
        .policy("lost", "{device: {hostname: nas}, keyExpiry: Disabled}")
        .await;
    stage.policy_reason("lost", "InSync").await;
    eventually(Duration::from_secs(20), async || {
        let seen = transitions(&stage, POLICY, "lost").await;
        match seen.last() {
            Some([kind, reason, _]) if (&**kind, &**reason) == ("Normal", "InSync") => Ok(()),
            _ => Err(format!("{seen:#?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_rejected_key_is_reported_once_on_the_tailnet_and_not_on_each_policy() {
    let stage = Stage::new().await;
    let controller = stage.controller().await;
    for (name, device) in [("one", "nas"), ("two", "fra-router")] {
        // In sync from the start: the only transitions are those of the tailnet.
        let spec = format!("{{device: {{hostname: {device}}}, authorized: true}}");
        stage.policy(name, &spec).await;
        stage.policy_reason(name, "InSync").await;
        had(&stage, POLICY, name, &[("Normal", "InSync")]).await;
    }
    stage.secret(&json!({"api_key": "tskey-api-wrong"})).await;
    for name in ["one", "two"] {
        stage.policy_reason(name, "CredentialRejected").await;
    }
    let rejected = ("Warning", "CredentialRejected");
    let connected = ("Normal", "Connected");
    let seen = had(&stage, TAILNET, "default", &[connected, rejected]).await;
    controller.logs(&seen[1][2]).await;

    stage
        .secret(&json!({"api_key": crate::support::API_KEY}))
        .await;
    for name in ["one", "two"] {
        stage.policy_reason(name, "InSync").await;
        had(&stage, POLICY, name, &[("Normal", "InSync")]).await;
    }
    let log = controller.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("CredentialRejected"));
    assert_eq!(lines.count(), 1, "{log}");
    // A third Event, or the first one with a count.
    eventually(Duration::from_mins(1), async || {
        let all = stage.kubectl.get(&["-A", "events.v1.events.k8s.io"]).await;
        let events = all["items"].as_array().cloned().unwrap_or_default();
        let counts = events
            .iter()
            .filter(|event| event["reason"] == "Connected")
            .map(|event| event["series"]["count"].clone());
        let counts: Vec<_> = counts.collect();
        if counts == [json!(2)] {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
}
