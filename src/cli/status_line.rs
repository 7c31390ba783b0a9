//! A line on stderr that the next text replaces, on a terminal.

use std::io::{self, IsTerminal as _, Write as _};

/// The line. Without a terminal it is never shown.
#[derive(Debug)]
pub(super) struct StatusLine {
    is_shown: bool,
}

impl StatusLine {
    pub fn new() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
        }
    }

    /// Whether the line is visible.
    pub fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Replaces the text.
    pub fn draw(&self, text: &str) {
        if self.is_shown {
            // An error means that the terminal is gone, and with it the reader of the line.
            let _ = write!(io::stderr(), "\r\u{1b}[K{text}");
        }
    }

    /// Removes the text, so that other output can begin there.
    pub fn wipe(&self) {
        self.draw("");
    }
}
