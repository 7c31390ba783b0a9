//! Files in the repository that the code generates. As with the snapshots of insta, `INSTA_UPDATE=always`
//! writes them.

use std::{collections::BTreeMap, fs, path::Path};

const HINT: &str = "write the generated files again with .ci/generate, and review the difference";

/// Fails if a file, named from the root of the repository, is not the generated one.
pub fn assert_generated(path: &str, content: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if updates() {
        fs::write(&file, content).unwrap();
        return;
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    if found != content {
        let line = found
            .lines()
            .zip(content.lines())
            .position(|(found, expected)| found != expected)
            .unwrap_or_else(|| found.lines().count().min(content.lines().count()));
        panic!(
            "{path} is out of date from line {}: found {:?}, generated {:?}. To fix it, {HINT}",
            line + 1,
            found.lines().nth(line).unwrap_or("the end"),
            content.lines().nth(line).unwrap_or("the end"),
        );
    }
}

/// The same for all files of a folder.
pub fn assert_generated_folder(folder: &str, files: &BTreeMap<String, String>) {
    for (name, content) in files {
        assert_generated(&format!("{folder}/{name}"), content);
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if files.contains_key(&name) {
            continue;
        }
        assert!(
            updates(),
            "{folder}/{name} is no longer generated. To fix it, {HINT}"
        );
        fs::remove_file(entry.path()).unwrap();
    }
}

fn updates() -> bool {
    std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always")
}
