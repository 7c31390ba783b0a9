//! Data goes to stdout, all else to stderr.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use clap::ValueEnum;
use comfy_table::Table;

/// When output is coloured. `NO_COLOR` is kept throughout, as by the library that writes the colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Everywhere, unless `NO_COLOR` is set.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether what goes to stdout is coloured.
    pub fn is_on(self) -> bool {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Self::Always => !unwanted,
            Self::Never => false,
            Self::Auto => io::stdout().is_terminal() && !unwanted && !dumb,
        }
    }
}

/// How many columns there are: `COLUMNS`, else those of the terminal; `None` for a file or a pipe.
pub(super) fn width() -> Option<u16> {
    let columns = env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.parse().ok());
    let given = columns.filter(|columns| *columns > 0);
    given.or_else(|| Table::new().width())
}

/// Prints data. Whoever reads it may have seen enough (`| head`): that is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    match print_to_the_end(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints data that somebody is to see: that nobody reads it any more is an error.
pub(super) fn print_to_the_end(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// A text in green, where it is to be coloured.
pub(super) fn green(text: &str, color: bool) -> String {
    if color {
        format!("\u{1b}[32m{text}\u{1b}[39m")
    } else {
        text.to_owned()
    }
}

/// A text that others wrote, fit for one line of a terminal, a comment or a page: machines choose
/// their own names. Control characters, ends of lines (those of YAML 1.1 too) and what turns the
/// direction of a line are shown as what they are.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        let turns = matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || turns || letter == '\u{feff}' {
            line.extend(letter.escape_unicode());
        } else {
            line.push(letter);
        }
    }
    line
}
