//! What README.md says is so.

use std::{fs, process::Command};

use serde::Deserialize as _;
use tsdp::{
    api::{TailscaleDevicePolicy, schema},
    plan::{self, PolicyKey},
};

fn readme() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The contents of the fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    text.split("```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| {
            block
                .strip_prefix(language)?
                .strip_prefix('\n')
                .map(str::to_owned)
        })
        .collect()
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

#[test]
fn the_manifests_in_it_and_in_the_pages_on_capabilities_are_valid() {
    let pages = [readme(), include_str!("../../docs/fleets.md").to_owned()];
    let manifests: Vec<_> = pages.iter().flat_map(|page| blocks(page, "yaml")).collect();
    assert!(manifests.len() > pages.len() - 1);
    for text in manifests {
        let policy =
            TailscaleDevicePolicy::deserialize(serde_yaml::Deserializer::from_str(&text)).unwrap();
        let key = PolicyKey {
            namespace: "default".into(),
            name: "readme".into(),
        };
        let created = jiff::Timestamp::UNIX_EPOCH;
        let declared = plan::parse(key, String::new(), 1, created, &policy.spec, None);
        assert_eq!(declared.policy.map(|_| ()), Ok(()));
    }
}

#[test]
fn its_table_of_fields_is_that_of_the_schema() {
    let definitions = schema::definitions();
    let schema = serde_json::to_value(&definitions[0]).unwrap();
    let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut fields: Vec<_> = spec["properties"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    fields.sort();
    let text = readme();
    let section = text
        .split("## What a policy can say")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '.']).next());
    let mut named: Vec<_> = rows.map(str::to_owned).collect();
    named.sort();
    assert_eq!(named, fields);
}

#[test]
fn its_table_of_reasons_names_only_reasons_that_exist() {
    let conditions = include_str!("../../src/api/conditions.rs");
    let text = readme();
    let section = text
        .split("## What a status says")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let rows = section.lines().filter(|line| {
        line.starts_with("| True") || line.starts_with("| False") || line.starts_with("| Unknown")
    });
    for row in rows {
        let reasons = row.split('|').nth(2).unwrap();
        for reason in reasons.split('`').skip(1).step_by(2) {
            assert!(
                conditions.contains(&format!("Self::{reason} =>")),
                "there is no reason {reason}"
            );
        }
    }
}
