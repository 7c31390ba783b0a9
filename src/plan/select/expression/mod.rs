//! `deviceSelector.expression`: a subset of CEL over the device as the poll reports it.
//!
//! This is a parser of our own because anyone who can write a policy chooses the text: no 512 characters may
//! use up the stack, the memory, or the time of the controller. Patterns are bounded in size and compiled
//! when they are first matched, and an evaluation has a limited number of steps. All types are checked when
//! the policy is parsed, so an evaluation can fail only on a field that a device does not have, or on too
//! many steps. An accepted expression means the same as in CEL (a test compares both).

mod ast;
mod fields;
mod lexer;
mod parser;
mod pattern;
mod syntax_error;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use self::ast::{Evaluation, Failure, Truth};
use crate::model::{Device, DeviceField};

/// A condition on a device.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    root: Arc<Truth>,
}

impl Expression {
    /// The longest expression, in characters.
    pub const MAX_LENGTH: usize = 512;

    /// The most steps of an evaluation: a pattern takes its letters times those of the string.
    pub const MAX_STEPS: usize = 20_000;

    /// Whether it holds for a device. An error if the result depends on a field that the device does not
    /// have, or if the evaluation takes too many steps.
    pub fn holds(&self, device: &Device) -> Result<bool, ExpressionError> {
        self.evaluate(device).0
    }

    /// Whether it holds for a device, and the steps that this took.
    pub(in crate::plan) fn evaluate(
        &self,
        device: &Device,
    ) -> (Result<bool, ExpressionError>, usize) {
        let evaluation = Evaluation::new(device, Self::MAX_STEPS);
        let result = self.root.of(&evaluation);
        // An evaluation that fails counts too, so that no expression gets its steps for nothing.
        let steps = Self::MAX_STEPS - evaluation.left();
        (result.map_err(|failure| self.error(failure)), steps)
    }

    /// The unreadable fields of a device that it names.
    pub(in crate::plan) fn unknown(&self, device: &Device) -> Vec<DeviceField> {
        // Almost all devices can be read: their evaluation must not search the text.
        if device.unreadable.is_empty() {
            return Vec::new();
        }
        // A field in a string literal or behind && counts too: the device then waits, which is safe.
        fields::MAY_BE_UNREADABLE
            .into_iter()
            .filter(|field| device.is_unknown(*field) && self.text.contains(field.as_str()))
            .collect()
    }

    /// Whether it names an unreadable field of a device.
    pub(in crate::plan) fn reads_unknown(&self, device: &Device) -> bool {
        !self.unknown(device).is_empty()
    }

    fn error(&self, failure: Failure) -> ExpressionError {
        match failure {
            Failure::Absent(absent) => {
                let field = absent.field;
                let why = format!("device.{field} is absent: test has(device.{field}) first");
                ExpressionError::at(&self.text, absent.at, why)
            }
            Failure::Exhausted(at) => {
                let why = format!(
                    "this takes more than {} steps for one device: write shorter or fewer patterns",
                    Self::MAX_STEPS
                );
                ExpressionError::at(&self.text, at, why)
            }
        }
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let length = text.chars().count();
        // Before it is parsed: the length bounds the work of the parser.
        if length > Self::MAX_LENGTH {
            let why = format!(
                "the expression is too long: found {length} characters, expected at most {}",
                Self::MAX_LENGTH
            );
            return Err(ExpressionError::at(text, Self::MAX_LENGTH, why));
        }
        match parser::parse(text) {
            Ok(root) => Ok(Self {
                text: text.into(),
                root: Arc::new(root),
            }),
            Err(error) => Err(ExpressionError::at(text, error.at, error.why)),
        }
    }
}

/// Expressions with the same text are the same condition.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExpressionError {
    line: usize,
    column: usize,
    /// The text at that place; empty at the end.
    there: String,
    why: String,
}

impl ExpressionError {
    /// `at` counts characters from the start.
    fn at(text: &str, at: usize, why: String) -> Self {
        // The message goes into a condition, which must stay one short line.
        const SHOWN: usize = 24;
        let before: Vec<char> = text.chars().take(at).collect();
        let line_start = before.iter().rposition(|letter| *letter == '\n');
        let mut after = text.chars().skip(at).take_while(|letter| *letter != '\n');
        let mut there: String = after.by_ref().take(SHOWN).collect();
        if after.next().is_some() {
            there.push('…');
        }
        Self {
            line: 1 + before.iter().filter(|letter| **letter == '\n').count(),
            column: before.len() - line_start.map_or(0, |at| at + 1) + 1,
            there,
            why,
        }
    }
}

/// `line 1, column 8, at «hostnme == 'fra'»: …`
impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}, ", self.line, self.column)?;
        if self.there.is_empty() {
            f.write_str("at the end")?;
        } else {
            write!(f, "at «{}»", self.there)?;
        }
        write!(f, ": {}", self.why)
    }
}
