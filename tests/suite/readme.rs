//! What README.md and docs/reasons.md say is true.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

use crate::{docs::blocks, gitops::recorded};

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

#[test]
fn the_first_two_commands_are_the_demo_and_the_tests() {
    let text = readme();
    let commands = blocks(&text, "sh");
    assert_eq!(commands[0].trim(), "cargo run -- demo");
    assert_eq!(commands[1].trim(), "cargo test");
    let ci = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/run")).unwrap();
    assert!(
        ci.lines().any(|line| line == commands[1].trim()),
        ".ci/run runs another command"
    );
}

#[test]
fn the_demo_plans_applies_and_repairs_and_ends_by_itself() {
    let output = Command::new(env!("CARGO_BIN_EXE_tsdp"))
        .arg("demo")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in [
        "fra-router     tags           +tag:fra  (declared by network/fra-router)",
        "  fra-router     tags: tag:router → tag:fra,tag:router",
        "18 changes, 14 requests. Everything is in sync.",
        "2 requests. The controller repaired the drift at the next poll.",
        "Next: ",
    ] {
        assert!(
            text.contains(line),
            "the demo does not say «{line}»:\n{text}"
        );
    }
}

/// The sections of docs/reasons.md: each reason, with the status of `Ready` above it.
fn reasons_on_page() -> BTreeSet<(String, String)> {
    let page = include_str!("../../docs/reasons.md");
    let mut found = BTreeSet::new();
    let mut ready = "";
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            ready = heading.strip_prefix("Ready=").unwrap_or("other");
        } else if let Some(reason) = line.strip_prefix("### ") {
            let is_new = found.insert((ready.to_owned(), reason.to_owned()));
            assert!(is_new, "docs/reasons.md has {reason} twice");
        }
    }
    found
}

/// The condition `Ready` of a policy in each possible state.
fn reasons_of_states() -> BTreeSet<(String, String)> {
    let ready = |object: Value| {
        let conditions = object["status"]["conditions"].as_array()?.iter();
        let ready = conditions
            .clone()
            .find(|condition| condition["type"] == "Ready")?;
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        (object["kind"] == "TailscaleDevicePolicy").then(|| (text("status"), text("reason")))
    };
    let recorded = recorded().into_iter();
    recorded.filter_map(|(_, object)| ready(object)).collect()
}

#[test]
fn each_reason_of_a_state_has_its_section() {
    let (page, states) = (reasons_on_page(), reasons_of_states());
    let missing: Vec<_> = states.difference(&page).collect();
    assert!(missing.is_empty(), "docs/reasons.md lacks {missing:?}");
}

#[test]
fn each_reason_has_one_anchor() {
    let conditions = include_str!("../../src/model/reason.rs");
    let reasons = conditions.lines().filter_map(|line| {
        let (reason, _) = line.trim().strip_prefix("Self::")?.split_once(" => ")?;
        Some(reason.to_owned())
    });
    let mut reasons: Vec<String> = reasons.collect();
    let mut sections: Vec<String> = reasons_on_page()
        .into_iter()
        .map(|(_, reason)| reason)
        .collect();
    reasons.sort();
    sections.sort();
    assert_eq!(
        sections, reasons,
        "docs/reasons.md has another section than src/model/reason.rs has reasons"
    );
}
