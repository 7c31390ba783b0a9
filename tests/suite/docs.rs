//! A real API server accepts the manifests in README.md and the pages under docs/.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize as _;
use serde_json::Value;

use crate::support::{Kubectl, control_plane};

/// The contents of the fenced blocks of a language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
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

/// README.md and every page.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/decisions"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.is_file()));
    }
    pages
}

/// Our resources in the YAML blocks of a page.
fn manifests(page: &Path) -> Vec<Value> {
    let text = fs::read_to_string(page).unwrap();
    let blocks = blocks(&text, "yaml");
    let documents = blocks.iter().flat_map(|block| {
        serde_yaml::Deserializer::from_str(block)
            .map(|document| Value::deserialize(document).unwrap())
            .collect::<Vec<_>>()
    });
    let ours = |document: &Value| {
        let version = document["apiVersion"].as_str();
        version.is_some_and(|version| version.starts_with("tailnet.dev/"))
    };
    documents.filter(ours).collect()
}

#[tokio::test]
async fn each_manifest_on_the_pages_is_accepted_as_written() {
    let control_plane = control_plane().await;
    let kubectl = Kubectl::admin(&control_plane);
    kubectl.install_crds().await;
    let all: Vec<(PathBuf, Value)> = pages()
        .into_iter()
        .flat_map(|page| {
            manifests(&page)
                .into_iter()
                .map(move |manifest| (page.clone(), manifest))
        })
        .collect();
    let namespaces: BTreeSet<&str> = all
        .iter()
        .filter_map(|(_, manifest)| manifest["metadata"]["namespace"].as_str())
        .filter(|namespace| *namespace != "default")
        .collect();
    for namespace in namespaces {
        kubectl.ok(&["create", "namespace", namespace]).await;
    }
    let apply = [
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
    ];
    let mut refused = Vec::new();
    for (page, manifest) in &all {
        let output = kubectl.run(&apply, &manifest.to_string()).await;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            refused.push(format!("{}: {message}{manifest}", page.display()));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    let shown: BTreeSet<&str> = all
        .iter()
        .filter_map(|(_, manifest)| manifest["kind"].as_str())
        .collect();
    for definition in tsdp::api::schema::definitions() {
        let kind = definition.spec.names.kind;
        assert!(shown.contains(kind.as_str()), "no page shows a {kind}");
    }
}

/// The anchors of a page, as GitHub makes them from its headings.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(page).unwrap();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let title = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            title.chars().filter(kept).collect::<String>()
        })
        .map(|title| title.replace(' ', "-"))
        .collect()
}

#[test]
fn each_link_leads_to_a_file_and_an_anchor_that_exist() {
    let mut broken = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let more = ["CONTRIBUTING.md", "STYLE.md"].map(|name| root.join(name));
    for page in pages().into_iter().chain(more) {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.with_file_name(file)
            };
            let is_right =
                target.exists() && (anchor.is_empty() || anchors(&target).contains(anchor));
            if !is_right {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Paths in code spans of the pages for contributors: from the root, or below `src`.
#[test]
fn each_path_on_the_pages_for_contributors_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for page in pages_for_contributors() {
        let text = fs::read_to_string(&page).unwrap();
        let outside_of_blocks = text.split("```").step_by(2);
        for path in outside_of_blocks.flat_map(|text| text.split('`').skip(1).step_by(2)) {
            let exists = [root.join(path), root.join("src").join(path)]
                .iter()
                .any(|path| path.exists());
            if is_path(path) && !exists {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

fn pages_for_contributors() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let decisions = fs::read_dir(root.join("docs/decisions")).unwrap();
    decisions
        .map(|entry| entry.unwrap().path())
        .chain(["docs/architecture.md", "CONTRIBUTING.md"].map(|page| root.join(page)))
        .collect()
}

/// Whether a code span can only be a path: no path of the API, and no command.
fn is_path(text: &str) -> bool {
    let is_of_api = text.starts_with('/');
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-/.".contains(c);
    text.contains('/') && !is_of_api && !text.starts_with('~') && text.chars().all(letter)
}

/// The site has every page: mdBook leaves out those that SUMMARY.md does not name.
#[test]
fn each_page_is_in_the_summary() {
    let summary = include_str!("../../docs/SUMMARY.md");
    let entries = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
    // Decisions and pictures are in folders.
    let files = entries.map(Result::unwrap).filter(|it| it.path().is_file());
    let names = files.map(|entry| entry.file_name().into_string().unwrap());
    let missing: Vec<String> = names
        .filter(|name| name != "SUMMARY.md")
        .filter(|name| !summary.contains(&format!("]({name})")))
        .collect();
    assert!(missing.is_empty(), "add {missing:?} to docs/SUMMARY.md");
}
