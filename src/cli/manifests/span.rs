//! Where something stands in a file.

use std::{fmt, sync::Arc};

/// A text that was read, and what it is called.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as it was given or found; `-` for the standard input.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

impl Source {
    /// A line without its end, counted from 1.
    #[must_use]
    pub fn line(&self, number: usize) -> Option<&str> {
        let mut lines = self.text.split('\n');
        let line = lines.nth(number.checked_sub(1)?)?;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }
}

/// A point in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl Position {
    /// Where a text begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// A part of a text: up to `end`, which it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

impl Span {
    /// A point.
    #[must_use]
    pub const fn at(start: Position) -> Self {
        Self { start, end: start }
    }

    /// Whether nothing stands in it.
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
