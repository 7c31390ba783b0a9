//! `docs/incidents.md`: prose by hand, and transcripts that the test writes.

use std::{collections::BTreeMap, fs};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/incidents.md");
const HINT: &str = "INSTA_UPDATE=always cargo test --test suite -- e2e::incidents";

pub struct Page {
    text: String,
    seen: BTreeMap<String, String>,
}

/// Whether this run writes the page instead of comparing it.
pub fn writes() -> bool {
    std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always")
}

impl Page {
    pub fn read() -> Self {
        let text = fs::read_to_string(PAGE).unwrap();
        let seen = BTreeMap::new();
        Self { text, seen }
    }

    fn place(&self, key: &str) -> std::ops::Range<usize> {
        let start = format!("<!-- run: {key} -->\n```console\n");
        let found = self.text.find(&start);
        let from = found.unwrap_or_else(|| panic!("{PAGE} has no block {start:?}")) + start.len();
        let length = self.text[from..].find("```").unwrap();
        from..from + length
    }

    /// The transcript that the page has.
    pub fn block(&self, key: &str) -> &str {
        &self.text[self.place(key)]
    }

    /// What this run has shown. Written at once, so that a run that fails shows how far it came.
    pub fn seen(&mut self, key: &str, transcript: String) {
        if writes() {
            let place = self.place(key);
            self.text.replace_range(place, &transcript);
            fs::write(PAGE, &self.text).unwrap();
        }
        self.seen.insert(key.to_owned(), transcript);
    }

    /// Fails with the first transcript that differs.
    pub fn close(mut self) {
        let blocks = self.text.matches("<!-- run: ").count();
        assert_eq!(
            blocks,
            self.seen.len(),
            "the page has other transcripts than the test"
        );
        for (key, seen) in std::mem::take(&mut self.seen) {
            let place = self.place(&key);
            assert_eq!(
                &self.text[place], seen,
                "docs/incidents.md differs in '{key}'. If the new output is right, write it: {HINT}"
            );
        }
    }
}
