//! Patterns of `matches`.

use regex::{Regex, RegexBuilder};

/// Memory for one pattern: it bounds the steps for each letter of a text, as the engine looks at each
/// letter once.
const SIZE: usize = 64 << 10;
const NESTING: u32 = 16;

/// Reads a pattern; its faults in one line.
pub(super) fn parse(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern)
        .size_limit(SIZE)
        .dfa_size_limit(SIZE)
        .nest_limit(NESTING)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            "the pattern is too large: write fewer or smaller repetitions".to_owned()
        }
        other => {
            let told = other.to_string();
            let told = told.lines().last().unwrap_or_default();
            let told = told.trim_start_matches("error: ");
            format!("this is no regular expression: {told}")
        }
    })
}
