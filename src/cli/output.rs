//! Output: data goes to stdout, everything else to stderr.

#![allow(clippy::doc_markdown, reason = "`--help` shows the comments verbatim")]

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use clap::ValueEnum;
use comfy_table::Table;
use serde::Serialize;

use crate::model::is_unprintable;
pub(super) use crate::model::printable;

/// When to color output. A flag that someone wrote takes precedence over `NO_COLOR`, which is a default for all programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always, even if NO_COLOR is set.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to color stdout.
    pub fn is_on(self) -> bool {
        // An empty value does not count: https://no-color.org.
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => io::stdout().is_terminal() && !no_color && !dumb,
        }
    }
}

/// The number of columns: `COLUMNS`, else that of the terminal. `None` for a file or a pipe.
pub(super) fn width() -> Option<u16> {
    env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        // 0 means unknown, and no table fits into it.
        .filter(|columns| *columns > 0)
        .or_else(|| Table::new().width())
}

/// Prints data. A reader that has seen enough (`| head`) is not an error.
pub(super) fn print(text: &str) -> io::Result<()> {
    match print_to_the_end(text) {
        // Rust ignores SIGPIPE, so a reader that is gone arrives as an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints data that someone must see: a reader that is gone is an error.
pub(super) fn print_to_the_end(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    // Flushed here: an error when the process exits would be lost.
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// The text in green, if `color` is set.
pub(super) fn green(text: &str, color: bool) -> String {
    if color {
        format!("\u{1b}[32m{text}\u{1b}[39m")
    } else {
        text.to_owned()
    }
}

/// JSON for people and programs. Escapes the characters that control a terminal or change the direction of
/// a line. They occur only in strings.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(escaped(&text) + "\n")
}

/// Text that is JSON already, with these characters escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter != '\n' && is_unprintable(letter) {
            // Each of them is in the basic plane, so that it needs no surrogate pair.
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}
