//! Places in files.

use std::{fmt, sync::Arc};

/// A text with the name of its file.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as it was given or found. `-` for standard input.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The offsets at which its lines start. Without them, each of many errors would count all lines before it.
    lines: Vec<usize>,
}

impl Source {
    /// A text.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            name: name.into(),
            lines: [0].into_iter().chain(breaks).collect(),
            text,
        }
    }

    /// A line without its line break, counted from 1.
    #[must_use]
    pub fn line(&self, number: usize) -> Option<&str> {
        let start = *self.lines.get(number.checked_sub(1)?)?;
        let line = self.text[start..].split('\n').next()?;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }
}

/// A point in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

impl Position {
    /// The start of a text.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The position after a text that starts here.
    #[must_use]
    pub fn after(self, text: &str) -> Self {
        match text.rfind('\n') {
            Some(end) => Self {
                line: self.line + text.matches('\n').count(),
                column: text[end + 1..].chars().count() + 1,
            },
            None => Self {
                column: self.column + text.chars().count(),
                ..self
            },
        }
    }
}

/// A part of a text. `end` is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first position.
    pub start: Position,
    /// The position after the last one.
    pub end: Position,
}

impl Span {
    /// An empty span.
    #[must_use]
    pub const fn at(start: Position) -> Self {
        Self { start, end: start }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub source: Arc<Source>,
    /// The part.
    pub span: Span,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.span.start;
        write!(f, "{}:{line}:{column}", self.source.name)
    }
}
