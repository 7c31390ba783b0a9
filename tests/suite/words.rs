//! The project writes one word for each concept (STYLE.md). Vale finds the words that it does not
//! write: the rules are in `tests/words/styles/tsdp`, and `.vale.ini` reads every file as plain text,
//! so that identifiers, comments and examples count too.
//!
//! Vale is pinned in `tests/words/go.mod`. `go tool` builds it once and keeps it in the cache of Go.

use std::{fs, process::Command};

use crate::support::go_tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Files and folders that are checked.
const CHECKED: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "STYLE.md",
    "docs",
    "deploy",
    "src",
    "crds",
    "tests/suite",
];
/// This file, which quotes words that are not written. Vale compares the pattern with the name that a file
/// has as plain text (`words.txt`).
const EXCEPT: &str = "!tests/suite/words.*";

/// What Vale finds in these files, one line for each: `path:line:column:rule:message`.
fn found(paths: &[&str]) -> Vec<String> {
    let output = Command::new(go_tool("tests/words", "vale", "VALE"))
        .args(["--no-global", "--output=line", "--glob", EXCEPT])
        .args(paths)
        .current_dir(ROOT)
        .output()
        .unwrap();
    // 0: nothing found, 1: something found, 2: Vale itself failed.
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "Vale failed: {error}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_file_uses_the_words_of_the_glossary() {
    let found = found(CHECKED);
    assert!(
        found.is_empty(),
        "{} words are not those of STYLE.md. Write the expected word, or add an exception to the rule \
         in tests/words/styles/tsdp:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn words_are_found_inside_identifiers_and_longer_words_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let lines_of = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let found = found(&[path.to_str().unwrap()]);
        found
            .iter()
            .map(|line| {
                line.split(':')
                    .nth(1)
                    .and_then(|line| line.parse().ok())
                    .unwrap()
            })
            .collect::<Vec<usize>>()
    };

    // The mark keeps the words out of this file, which follows the rules itself.
    let not_written = "struct W~ishList;\nfn l~et_go() {}\nst~atus.acts\nis n~o CIDR\n\
                       the n~ext look\n# m~ends\n"
        .replace('~', "");
    assert_eq!(lines_of("a.rs", &not_written), [1, 2, 3, 4, 5, 6]);
    assert_eq!(lines_of("a.yaml", &not_written), [1, 2, 3, 4, 5, 6]);
    let written = "recommend\ndeparted\nreappear, reapply\nclippy::needless_pass_by_value\n\
                   no more than 5\nexactly, a policy acts on it\nthere is no tag\nlooks for\n";
    assert_eq!(lines_of("b.rs", written), [0_usize; 0]);
}
