//! The layers of the crate keep to the rules of `docs/architecture.md`.

use std::{fs, path::Path};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::support::{SourceFile, production_files};

/// A folder of `src`.
struct Layer {
    name: &'static str,
    /// The layers that its code may use: only ones that stand above this entry, so that there is no circle.
    uses: &'static [&'static str],
    /// Words that neither its code nor its tests contain.
    never: &'static [&'static str],
}

/// All layers, from the one that knows nothing to the one that knows all.
const LAYERS: [Layer; 10] = [
    Layer {
        name: "model",
        uses: &[],
        never: &["kube::", "k8s_openapi::", "reqwest::", "tokio::"],
    },
    Layer {
        name: "api",
        uses: &["model"],
        never: &["reqwest::", "tokio::"],
    },
    Layer {
        name: "plan",
        uses: &["model"],
        never: &[
            "kube::",
            "reqwest::",
            "tokio::",
            "async ",
            "Timestamp::now",
            "Instant::now",
            "fastrand::",
            "comfy_table::",
        ],
    },
    Layer {
        name: "convert",
        uses: &["model", "api", "plan"],
        never: &["kube::", "reqwest::", "tokio::", "async ", "Timestamp::now"],
    },
    Layer {
        name: "tailscale",
        uses: &["model"],
        never: &["kube::", "k8s_openapi::"],
    },
    Layer {
        name: "tailnet",
        uses: &["model", "plan", "tailscale"],
        never: &["kube::", "k8s_openapi::", "reqwest::"],
    },
    Layer {
        name: "controller",
        uses: &["model", "api", "plan", "convert", "tailscale", "tailnet"],
        never: &[],
    },
    // A second opinion on the Tailscale API: it shares no type with the client.
    Layer {
        name: "simulator",
        uses: &[],
        never: &[
            "crate::tailscale",
            "crate::model",
            "crate::plan",
            "crate::api",
            "kube::",
        ],
    },
    Layer {
        name: "local",
        uses: &[],
        never: &[],
    },
    Layer {
        name: "cli",
        uses: &[
            "model",
            "api",
            "plan",
            "convert",
            "tailscale",
            "tailnet",
            "controller",
            "simulator",
            "local",
        ],
        never: &[],
    },
];

#[test]
fn each_layer_uses_only_the_layers_below_it() {
    let mut found = Vec::new();
    for file in production_files() {
        let Some(name) = file.module.first() else {
            continue;
        };
        let layer = LAYERS.iter().find(|layer| layer.name == name);
        let layer = layer.unwrap_or_else(|| panic!("add src/{name} to the table of layers"));
        for used in uses(&file) {
            if used != *name && !layer.uses.contains(&used.as_str()) {
                found.push(format!("{}: {name} must not use {used}", file.path));
            }
        }
    }
    assert!(
        found.is_empty(),
        "see docs/architecture.md:\n{}",
        found.join("\n")
    );
}

#[test]
fn the_layers_form_no_circle() {
    for (at, layer) in LAYERS.iter().enumerate() {
        for used in layer.uses {
            let is_below = LAYERS[..at].iter().any(|below| below.name == *used);
            assert!(is_below, "{} may use {used}, which follows it", layer.name);
        }
    }
}

#[test]
fn no_layer_contains_what_it_must_not_know() {
    let mut found = Vec::new();
    for layer in LAYERS {
        let files = rust_files(
            &Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("src")
                .join(layer.name),
        );
        assert!(!files.is_empty(), "there is no layer src/{}", layer.name);
        for (path, text) in files {
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in layer.never.iter().filter(|word| code.contains(**word)) {
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

/// The files that have the engine as a whole. All others get the parts that they read or change
/// (docs/decisions/0032).
const WHOLE_ENGINE: [&str; 4] = [
    "src/tailnet/engine/approved_plan.rs",
    "src/tailnet/engine/intake.rs",
    "src/tailnet/engine/mod.rs",
    "src/tailnet/engine/parts.rs",
];

#[test]
fn a_phase_of_the_engine_gets_its_parts_and_not_the_engine() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tailnet/engine");
    let mut found = Vec::new();
    for (path, text) in rust_files(&folder) {
        let code = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        let has_engine = code
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .any(|word| word == "Engine");
        if has_engine && !WHOLE_ENGINE.iter().any(|known| path.ends_with(known)) {
            found.push(path);
        }
    }
    assert!(
        found.is_empty(),
        "list the parts in src/tailnet/engine/parts.rs:\n{}",
        found.join("\n")
    );
}

/// The layers that a file uses, by `crate::…` or by as many `super::` as lead to the crate.
fn uses(file: &SourceFile) -> Vec<String> {
    let mut used = Vec::new();
    collect_uses(&file.tokens, file.module.len(), &mut used);
    used.sort();
    used.dedup();
    used
}

fn collect_uses(tokens: &TokenStream, depth: usize, used: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut supers = 0;
    for (at, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            collect_uses(&group.stream(), depth, used);
        }
        // A path continues with `::NAME` or `::{NAME, …}`.
        let is_path =
            tokens.get(at + 1).is_some_and(is_colon) && tokens.get(at + 2).is_some_and(is_colon);
        let leads_to_crate = match token.to_string().as_str() {
            "crate" => true,
            "super" => {
                supers += 1;
                supers == depth
            }
            _ => {
                if !is_colon(token) {
                    supers = 0;
                }
                false
            }
        };
        if !(leads_to_crate && is_path) {
            continue;
        }
        match tokens.get(at + 3) {
            Some(TokenTree::Ident(name)) => used.push(name.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                used.extend(first_names(group.stream()));
            }
            _ => {}
        }
    }
}

/// The first name of each path in `{a::B, c::{D, E}}`.
fn first_names(list: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = list.into_iter().collect();
    tokens
        .split(|token| token.to_string() == ",")
        .filter_map(|path| path.first())
        .map(ToString::to_string)
        .collect()
}

fn is_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':')
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
