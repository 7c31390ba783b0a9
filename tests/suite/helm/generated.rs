//! What the chart repeats from elsewhere is generated: the definitions, and the description of its values.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use serde_json::Value;

use crate::support::{CHART, assert_generated, assert_generated_folder};

/// A value of the chart, as the comments of values.yaml describe it.
struct Described {
    path: Vec<String>,
    description: String,
}

pub fn values_text() -> String {
    fs::read_to_string(format!("{CHART}/values.yaml")).unwrap()
}

/// The values with a comment `# -- …` above their key, in their order.
fn described(text: &str) -> Vec<Described> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut description = None;
    for line in text.lines() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if let Some(comment) = trimmed.strip_prefix("# -- ") {
            description = Some(comment.to_owned());
            continue;
        }
        let Some((key, _)) = trimmed.split_once(':') else {
            continue;
        };
        if key.starts_with(['#', '-']) {
            continue;
        }
        path.retain(|(outer, _)| *outer < indent);
        path.push((indent, key.to_owned()));
        if let Some(description) = description.take() {
            let path = path.iter().map(|(_, key)| key.clone()).collect();
            found.push(Described { path, description });
        }
    }
    found
}

/// Each value that a description must explain: it, or a value around it.
fn leaves(path: &[String], value: &Value, found: &mut Vec<Vec<String>>) {
    match value.as_object() {
        Some(inside) if !inside.is_empty() => {
            for (key, value) in inside {
                leaves(&[path, std::slice::from_ref(key)].concat(), value, found);
            }
        }
        _ => found.push(path.to_vec()),
    }
}

#[test]
fn each_value_of_the_chart_is_described() {
    let text = values_text();
    let described = described(&text);
    let mut all = Vec::new();
    leaves(&[], &serde_yaml::from_str(&text).unwrap(), &mut all);
    let missing: Vec<String> = all
        .iter()
        .filter(|leaf| !described.iter().any(|entry| leaf.starts_with(&entry.path)))
        .map(|leaf| leaf.join("."))
        .collect();
    assert!(
        missing.is_empty(),
        "values.yaml has no comment `# -- …` above {missing:?}"
    );
}

#[test]
fn generated_readme_of_the_chart_is_up_to_date() {
    let text = values_text();
    let values: Value = serde_yaml::from_str(&text).unwrap();
    let mut page = include_str!("readme_head.md").to_owned();
    page.push_str("\n| value | default | meaning |\n|---|---|---|\n");
    for Described { path, description } in described(&text) {
        let default = path.iter().fold(&values, |value, key| &value[key]);
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| `{}` | `{}` | {} |",
            path.join("."),
            cell(&default.to_string()),
            cell(&description)
        );
    }
    assert_generated("deploy/helm/tsdp/README.md", &page);
}

#[test]
fn generated_crds_of_the_chart_are_up_to_date() {
    let files = tsdp::cli::crds::files().unwrap().into_iter();
    let files: BTreeMap<String, String> =
        files.filter(|(name, _)| name != "Kustomization").collect();
    assert_generated_folder("deploy/helm/tsdp/files/crds", &files);
}

#[test]
fn generated_alerts_and_dashboard_of_the_chart_are_up_to_date() {
    let read = |name: &str| {
        let path = format!("{}/deploy/monitoring/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).unwrap()
    };
    assert_generated(
        "deploy/helm/tsdp/files/dashboard.json",
        &read("dashboard.json"),
    );
    // What stands below `spec`, without the object around it: promtool and the chart read it.
    let rule = read("prometheusrule.yaml");
    let (_, spec) = rule.split_once("\nspec:\n").unwrap();
    let lines = spec.lines().map(|line| line.strip_prefix("  ").unwrap());
    let groups: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert_generated("deploy/helm/tsdp/files/alerts.yaml", &groups);
}
