//! The log as a program reads it: one JSON object a line, whose fields are documented.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Controller, Stage};

/// The names of all fields, also of the spans that a line is in.
fn fields(line: &Value, into: &mut BTreeSet<String>) {
    let named = |value: &Value| {
        let names = value.as_object().into_iter().flatten();
        names.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    into.extend(named(line));
    into.extend(named(&line["span"]));
    for span in line["spans"].as_array().into_iter().flatten() {
        into.extend(named(span));
    }
}

#[tokio::test]
async fn each_field_of_the_log_is_documented_and_each_step_has_its_line() {
    let stage = Stage::new().await;
    let arguments = ["--log=info,tsdp=debug", "--log-format=json"];
    let controller = Controller::ready(stage.kubeconfig(), &arguments, &[]).await;
    stage
        .policy("nas", "{device: {hostname: nas}, keyExpiry: Disabled}")
        .await;
    stage.policy_reason("nas", "InSync").await;
    let approve = "{device: {hostname: nas}, enabledRoutes: [10.9.0.0/16], enforcement: Approve}";
    stage.policy("nas", approve).await;
    stage.held_plan("nas", "").await;
    controller.logs("waits for approval").await;

    let log = controller.log();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")));
    let lines: Vec<Value> = lines.collect();
    let mut used = BTreeSet::new();
    for line in &lines {
        fields(line, &mut used);
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
    let page = std::fs::read_to_string("docs/operate.md").unwrap();
    let table = page.split("## Fields of the log").nth(1).unwrap();
    let documented = |name: &&String| table.contains(&format!("`{name}`"));
    let missing: Vec<_> = used.iter().filter(|name| !documented(name)).collect();
    assert!(missing.is_empty(), "not in docs/operate.md: {missing:?}");

    let says = |level: &str, words: &str| {
        let mut lines = lines.iter().filter(|line| line["level"] == level);
        lines.any(|line| {
            line["message"]
                .as_str()
                .is_some_and(|it| it.contains(words))
        })
    };
    for (level, words) in [
        ("INFO", "tsdp is running"),
        ("INFO", "leadership won"),
        ("INFO", "The controller can read the tailnet's devices."),
        ("INFO", ") is in sync."),
        ("INFO", "keyExpiry: Enabled → Disabled"),
        ("WARN", "waits for approval"),
        ("DEBUG", "poll"),
        ("DEBUG", "Tailscale API"),
    ] {
        assert!(says(level, words), "{level} {words}: {log}");
    }
    let request = lines
        .iter()
        .find(|line| line["message"] == "Tailscale API")
        .unwrap();
    for field in ["request", "status", "request_id", "duration_ms"] {
        assert!(!request[field].is_null(), "{field}: {request}");
    }
}
