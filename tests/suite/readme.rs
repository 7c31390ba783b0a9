//! What README.md says is so.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

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
        "fra-router     tags                                  tag:router                  tag:fra,tag:router",
        "  fra-router     tags: tag:router → tag:fra,tag:router",
        "18 differences, 14 calls. Everything is as declared.",
        "2 calls. Repaired at the next look.",
        "Next: ",
    ] {
        assert!(
            text.contains(line),
            "the demo does not say «{line}»:\n{text}"
        );
    }
}

/// The reasons in the rows of README.md's table, by what `Ready` says beside them.
fn reasons_in_readme() -> BTreeSet<(String, String)> {
    let text = readme();
    let (_, section) = text.split_once("## What a status says").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut found = BTreeSet::new();
    for row in section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
    {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        for reason in cells[2].split('`').skip(1).step_by(2) {
            found.insert((cells[1].to_owned(), reason.to_owned()));
        }
    }
    found
}

/// What stands in the condition `Ready` of a policy in each state that there is.
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
fn its_table_of_reasons_has_each_that_a_policy_can_have() {
    let (table, states) = (reasons_in_readme(), reasons_of_states());
    let missing: Vec<_> = states.difference(&table).collect();
    assert!(
        missing.is_empty(),
        "README.md's table of reasons lacks {missing:?}"
    );
    let conditions = include_str!("../../src/api/conditions.rs");
    for (_, reason) in &table {
        assert!(
            conditions.contains(&format!("Self::{reason} =>")),
            "there is no reason {reason}"
        );
    }
}

#[test]
fn each_reason_that_exists_is_explained_on_some_page() {
    let conditions = include_str!("../../src/api/conditions.rs");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages = fs::read_dir(docs)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let pages: Vec<String> = pages
        .map(|page| fs::read_to_string(page).unwrap())
        .collect();
    let text = pages.join("\n") + &readme();
    let reasons = conditions.lines().filter_map(|line| {
        let (reason, _) = line.trim().strip_prefix("Self::")?.split_once(" => ")?;
        Some(reason)
    });
    // Those stand beside others only: in the conditions Accepted and InSync.
    let beside = ["Accepted", "OutOfSync", "AttributesUnread"];
    let unexplained: Vec<_> = reasons
        .filter(|reason| !beside.contains(reason) && !text.contains(&format!("`{reason}`")))
        .collect();
    assert!(unexplained.is_empty(), "no page explains {unexplained:?}");
}
