//! Errors are typed: a caller can tell one from another, and their texts stand in one place.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_function_returns_a_text_as_its_error() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 100);
    let mut faults = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        if name.contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let production = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        // Signatures may span lines.
        let joined: String = production.split_whitespace().collect();
        let count = joined.matches(",String>").count() - maps(&joined);
        if count > 0 {
            faults.push(format!("{name}: {count} Result<…, String>"));
        }
    }
    assert!(
        faults.is_empty(),
        "write an error with thiserror:\n{}",
        faults.join("\n")
    );
}

/// The maps to strings among the types that end in `,String>`.
fn maps(text: &str) -> usize {
    let mut count = 0;
    for (end, _) in text.match_indices(",String>") {
        // The opening bracket of the type that ends here.
        let mut depth = 1;
        let start = text[..end].char_indices().rev().find(|(at, letter)| {
            match letter {
                // An arrow is no bracket.
                '>' if text[..*at].ends_with(['-', '=']) => {}
                '>' => depth += 1,
                '<' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let before = start.map_or("", |(at, _)| &text[..at]);
        if !before.ends_with("Result") {
            count += 1;
        }
    }
    count
}
