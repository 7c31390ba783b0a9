//! The layers of the crate keep to the rules of `docs/architecture.md`.

use std::{fs, path::Path};

/// A layer, and the words that its code must not contain.
const LAYERS: [(&str, &[&str]); 6] = [
    (
        "model",
        &[
            "crate::api",
            "crate::plan",
            "crate::tail",
            "kube::",
            "reqwest::",
            "tokio::",
        ],
    ),
    (
        "api",
        &[
            "crate::plan",
            "crate::tail",
            "crate::controller",
            "reqwest::",
            "tokio::",
        ],
    ),
    (
        "plan",
        &[
            "kube::",
            "reqwest::",
            "tokio::",
            "async ",
            "Timestamp::now",
            "Instant::now",
            "fastrand::",
            "crate::tail",
        ],
    ),
    (
        "tailnet",
        &["kube::", "k8s_openapi::", "reqwest::", "crate::controller"],
    ),
    (
        "tailscale",
        &[
            "kube::",
            "k8s_openapi::",
            "crate::api",
            "crate::plan",
            "crate::controller",
        ],
    ),
    (
        "simulator",
        &[
            "crate::tailscale",
            "crate::model",
            "crate::plan",
            "crate::api",
            "kube::",
        ],
    ),
];

#[test]
fn no_layer_knows_what_it_must_not_know() {
    let mut found = Vec::new();
    for (layer, words) in LAYERS {
        let files = rust_files(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("src")
                .join(layer),
        );
        assert!(!files.is_empty(), "there is no layer src/{layer}");
        for (path, text) in files {
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in words.iter().filter(|word| code.contains(**word)) {
                    found.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "see docs/architecture.md:\n{}",
        found.join("\n")
    );
}

fn rust_files(folder: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path.display().to_string(), text));
        }
    }
    files
}
