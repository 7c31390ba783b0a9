//! What a release is made of: the version in one place, the changelog, and the files beside the binaries.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::{assert_generated, documents};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files that repeat the version of Cargo.toml, and what stands before it there.
const REPEATED: [(&str, &[&str]); 3] = [
    (
        "deploy/helm/tsdp/Chart.yaml",
        &["\nversion: ", "\nappVersion: "],
    ),
    ("deploy/kustomization.yaml", &["newTag: "]),
    ("Dockerfile", &["ARG VERSION="]),
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// Runs a script of `.ci`, and returns its output.
fn script(args: &[&str]) -> String {
    let output = Command::new(Path::new(ROOT).join(".ci").join(args[0]))
        .args(&args[1..])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The text with another version after each occurrence of `before`.
fn with_version(text: &str, before: &str) -> String {
    let mut parts = text.split(before);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find('\n').unwrap_or(part.len());
        result.push_str(before);
        result.push_str(VERSION);
        result.push_str(&part[end..]);
    }
    result
}

#[test]
fn generated_versions_are_up_to_date() {
    for (path, marks) in REPEATED {
        let text = read(path);
        for mark in marks {
            assert!(text.contains(mark), "{path} has no {mark:?}");
        }
        let text = marks
            .iter()
            .fold(text, |text, mark| with_version(&text, mark));
        assert_generated(path, &text);
    }
}

#[test]
fn the_image_is_built_with_the_toolchain_of_the_tests() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.split('"').nth(1).unwrap();
    let image = format!("rust:{channel}-");
    assert!(read("Dockerfile").contains(&image), "not built on {image}");
}

/// What the image is built from must be enough: `.dockerignore` leaves everything else outside.
#[test]
fn each_file_that_the_dockerfile_copies_is_in_the_context() {
    let ignored = read(".dockerignore");
    let kept: Vec<&str> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    let mut copied = Vec::new();
    for line in read("Dockerfile").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["COPY", files @ .., _] = &words[..] {
            copied.extend(
                files
                    .iter()
                    .filter(|file| !file.starts_with("--from") && **file != "/image/")
                    .map(|file| (*file).to_owned()),
            );
        }
    }
    copied.sort();
    assert_eq!(copied, kept);
}

#[test]
fn the_changelog_has_the_version_and_links_for_each() {
    assert_eq!(script(&["version"]).trim(), VERSION);
    let text = read("CHANGELOG.md");
    let versions: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## [")?.split(']').next())
        .collect();
    assert_eq!(versions[0], "Unreleased");
    assert!(versions.contains(&VERSION), "{versions:?}");
    for version in versions {
        assert!(
            text.contains(&format!("\n[{version}]: https://")),
            "{version}"
        );
    }
    let section = script(&["changelog", VERSION]);
    assert!(section.contains("### Added"), "{section}");
    assert!(!section.contains("## ["), "{section}");
}

/// Packs stand-ins for the binaries as the release does, and fills in what refers to them.
#[tokio::test]
async fn packages_and_their_manifests_fit_together() {
    let binaries = tsdp::local::Binaries::find_or_build()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let dist = tempfile::tempdir().unwrap();
    for name in ["linux-amd64", "linux-arm64", "darwin-arm64"] {
        let binary = dist.path().join("binary");
        fs::write(&binary, name).unwrap();
        let packed = script(&["package", name, binary.to_str().unwrap()]);
        let packed = Path::new(ROOT).join(packed.trim());
        fs::copy(&packed, dist.path().join(packed.file_name().unwrap())).unwrap();
        fs::remove_file(packed).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let kubectl = binaries.kubectl.parent().unwrap().display();
    let output = Command::new(Path::new(ROOT).join(".ci/manifests"))
        .arg(dist.path())
        .env("PATH", format!("{kubectl}:{path}"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let file = |name: &str| fs::read_to_string(dist.path().join(name)).unwrap();
    let krew: Value = serde_yaml::from_str(&file("krew.yaml")).unwrap();
    assert_eq!(krew["spec"]["version"], format!("v{VERSION}"));
    let formula = file("tsdp.rb");
    for platform in krew["spec"]["platforms"].as_array().unwrap() {
        let uri = platform["uri"].as_str().unwrap();
        let (folder, archive) = uri.rsplit_once('/').unwrap();
        assert!(folder.ends_with(&format!("/v{VERSION}")), "{uri}");
        let listed = Command::new("sha256sum")
            .arg(dist.path().join(archive))
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let expected = listed.split(' ').next().unwrap();
        assert_eq!(platform["sha256"], expected, "{archive}");
        assert!(
            formula.contains(expected) && formula.contains(uri),
            "{formula}"
        );
        let content = Command::new("tar")
            .arg("-tzf")
            .arg(dist.path().join(archive))
            .output()
            .unwrap();
        let content = String::from_utf8(content.stdout).unwrap();
        let program = platform["bin"].as_str().unwrap();
        assert!(content.lines().any(|line| line == program), "{content}");
    }
    assert!(!formula.contains('@'), "{formula}");
    let install = documents(&file("install.yaml"));
    let image = format!("ghcr.io/tailnet-dev/tsdp:{VERSION}");
    let has_image = |object: &Value| object.to_string().contains(&image);
    assert!(install.iter().any(has_image));
    assert_eq!(documents(&file("crds.yaml")).len(), 3);
}
