//! Each alert fires when it must and stays quiet otherwise, and has a runbook.

use std::{fs, process::Command};

use serde_json::Value;

use crate::support::prometheus_program;

const RULES: &str = "deploy/helm/tsdp/files/alerts.yaml";
const TESTS: &str = "tests/prometheus/alerts_test.yaml";

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Each alert.
pub fn alerts() -> Vec<Value> {
    let rules: Value = serde_yaml::from_str(&read(RULES)).unwrap();
    rules["groups"][0]["rules"].as_array().unwrap().clone()
}

fn promtool(args: &[&str]) {
    let output = Command::new(prometheus_program("promtool", "PROMTOOL"))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(
        output.status.success(),
        "promtool {}: {said}",
        args.join(" ")
    );
}

#[test]
fn promtool_accepts_the_alerts() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", RULES]);
}

#[test]
fn each_alert_fires_when_it_must_and_not_otherwise() {
    promtool(&["test", "rules", TESTS]);
}

#[test]
fn each_alert_has_tests_of_both_kinds_and_a_runbook() {
    let tests: Value = serde_yaml::from_str(&read(TESTS)).unwrap();
    let names: Vec<&str> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|test| test["name"].as_str())
        .collect();
    let page = read("docs/alerts.md");
    for alert in alerts() {
        let name = alert["alert"].as_str().unwrap();
        for kind in ["fires", "stays quiet"] {
            let start = format!("{name} {kind} ");
            let tested = names.iter().any(|test| test.starts_with(&start));
            assert!(tested, "{TESTS} has no test of {name} that {kind}");
        }
        let annotations = &alert["annotations"];
        let url = annotations["runbook_url"].as_str().unwrap();
        let anchor = format!("/docs/alerts.md#{}", name.to_lowercase());
        assert!(url.ends_with(&anchor), "{name}: {url}");
        let section = page.split(&format!("\n### {name}\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/alerts.md has no section {name}"));
        let section = section.split("\n#").next().unwrap();
        for part in ["**Meaning.** ", "**Check.** ", "**Do.** "] {
            assert!(
                section.contains(part),
                "the runbook of {name} has no {part}"
            );
        }
        assert!(annotations["summary"].is_string() && annotations["description"].is_string());
    }
    let runbooks = page.matches("\n### Tsdp").count();
    assert_eq!(
        runbooks,
        alerts().len(),
        "docs/alerts.md has a runbook without an alert"
    );
}
